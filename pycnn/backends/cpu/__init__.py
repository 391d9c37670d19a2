"""The native CPU engine: dense C-ordered float32 and float64 arrays through `pycnn._cpu`.

One file a subject; every function has the name and the arguments of its twin in `reference`.
"""

from pycnn.backends.cpu.conv import (
    channel_sum,
    conv2d_algorithms,
    conv2d_choose,
    conv2d_dgrad,
    conv2d_fprop,
    conv2d_wgrad,
)
from pycnn.backends.cpu.linear import gemm, linear_fwd

__all__ = [
    "channel_sum",
    "conv2d_algorithms",
    "conv2d_choose",
    "conv2d_dgrad",
    "conv2d_fprop",
    "conv2d_wgrad",
    "gemm",
    "linear_fwd",
]
