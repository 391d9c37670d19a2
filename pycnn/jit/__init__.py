"""Kernel sources to machine code: NVRTC for the GPU, g++ for the simulator, and a cache on disk under both.

`instances` says what may be compiled, `sources` reads it, `nvrtc` and `host` compile it, `cache` keeps the results and
`cubin` reads them.  Nothing here needs a GPU or its driver.
"""

from pycnn.jit.errors import CompileError, MissingToolError

__all__ = ["CompileError", "MissingToolError"]
