"""The reference: every function of the backend protocol in plain NumPy, for being right and readable.

This is the oracle that the native engine and the CUDA kernels are tested against.  It imports NumPy and nothing of
pycnn, takes plain ints, computes its own output sizes, accumulates in float64 and rounds once to the input's dtype.

    conv.py      conv2d_fprop, conv2d_dgrad, conv2d_wgrad, channel_sum
"""

from .conv import (
    channel_sum,
    conv2d_algorithms,
    conv2d_choose,
    conv2d_dgrad,
    conv2d_fprop,
    conv2d_wgrad,
)

__all__ = [
    "channel_sum",
    "conv2d_algorithms",
    "conv2d_choose",
    "conv2d_dgrad",
    "conv2d_fprop",
    "conv2d_wgrad",
]
