"""Kernel sources to machine code: NVRTC for the GPU, g++ for the simulator, and a cache on disk under both.

`instances` says what may be compiled, `sources` reads it, `nvrtc` and `host` compile it, `parallel` many at once,
`cache` keeps the results, `bundle` packs them for other machines and `cubin` reads them.  Nothing here needs a GPU or
its driver.
"""

from pycnn.jit.bundle import BundleError, use_bundle
from pycnn.jit.errors import CompileError, MissingToolError
from pycnn.jit.parallel import compile_all

__all__ = ["BundleError", "CompileError", "MissingToolError", "compile_all", "use_bundle"]
