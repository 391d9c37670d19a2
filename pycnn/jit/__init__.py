"""Kernel sources to machine code: NVRTC for the GPU, g++ for the simulator, and a cache on disk under both.

`instances` says what may be compiled, `sources` reads it, `nvrtc` and `host` compile it, `cache` keeps the results,
`bundle` takes them to other machines and `cubin` reads them.  Nothing here needs a GPU or its driver.
"""

from pycnn.jit.bundle import BundleError
from pycnn.jit.bundle import use as use_bundle
from pycnn.jit.errors import CompileError, MissingToolError

__all__ = ["BundleError", "CompileError", "MissingToolError", "use_bundle"]
