"""The native CPU engine: dense C-ordered float32 and float64 arrays through `pycnn._cpu`.

One file a subject; every function has the name and the arguments of its twin in `reference`.
"""

from pycnn.backends.cpu.linear import gemm, linear_fwd

__all__ = ["gemm", "linear_fwd"]
