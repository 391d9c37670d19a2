"""The reference: every function of the backend protocol in plain NumPy, for being right and readable.

This is the oracle that the native engine and the CUDA kernels are tested against.  It imports NumPy and nothing of
pycnn, takes plain ints, computes its own output sizes, accumulates in float64 and rounds once to the input's dtype.
Arrays of one call share float32 or float64; inputs, of any strides, are never written to; results are fresh and in C
order.  Kernel, stride, dilation and output size are pairs (height first), padding is (top, bottom, left, right).

    conv.py      conv2d_fprop, conv2d_dgrad, conv2d_wgrad, channel_sum
    pool.py      max, average and adaptive pooling, plane_take
    dense.py     gemm, linear_fwd, ReLU, tanh, sigmoid, softmax
    activation.py  the other activations, by name
    loss.py      negative log-likelihood
    norm.py      lrn, batch_norm, channel_affine
    group_norm.py  group_norm
    random.py    philox_uint32, dropout
    shaping.py   pad2d, concat, add
    windows.py   unfold2d, fold2d
    sampling.py  resample, sample_fwd, sample_dx, sample_dw
    boxes.py     roi_max, nms
"""

from .activation import activation_bwd, activation_fwd
from .boxes import nms, roi_max
from .conv import (
    channel_sum,
    conv2d_algorithms,
    conv2d_choose,
    conv2d_dgrad,
    conv2d_fprop,
    conv2d_wgrad,
)
from .dense import (
    gemm,
    linear_fwd,
    log_softmax_bwd,
    log_softmax_fwd,
    relu_bwd,
    relu_fwd,
    sigmoid_bwd,
    sigmoid_fwd,
    softmax_bwd,
    softmax_fwd,
    tanh_bwd,
    tanh_fwd,
)
from .group_norm import group_norm_bwd, group_norm_fwd
from .loss import nll_bwd, nll_fwd
from .norm import batch_norm_bwd, batch_norm_eval, batch_norm_fwd, channel_affine, lrn_bwd, lrn_fwd
from .pool import (
    adaptive_avg_pool2d_bwd,
    adaptive_avg_pool2d_fwd,
    adaptive_max_pool2d_bwd,
    adaptive_max_pool2d_fwd,
    avg_pool2d_bwd,
    avg_pool2d_fwd,
    max_pool2d_bwd,
    max_pool2d_fwd,
    plane_take,
)
from .random import dropout, philox_uint32
from .sampling import resample, sample_dw, sample_dx, sample_fwd
from .shaping import add, concat, pad2d
from .windows import fold2d, unfold2d

__all__ = [
    "activation_bwd",
    "activation_fwd",
    "adaptive_avg_pool2d_bwd",
    "adaptive_avg_pool2d_fwd",
    "adaptive_max_pool2d_bwd",
    "adaptive_max_pool2d_fwd",
    "add",
    "avg_pool2d_bwd",
    "avg_pool2d_fwd",
    "batch_norm_bwd",
    "batch_norm_eval",
    "batch_norm_fwd",
    "channel_affine",
    "channel_sum",
    "concat",
    "conv2d_algorithms",
    "conv2d_choose",
    "conv2d_dgrad",
    "conv2d_fprop",
    "conv2d_wgrad",
    "dropout",
    "fold2d",
    "gemm",
    "group_norm_bwd",
    "group_norm_fwd",
    "linear_fwd",
    "log_softmax_bwd",
    "log_softmax_fwd",
    "lrn_bwd",
    "lrn_fwd",
    "max_pool2d_bwd",
    "max_pool2d_fwd",
    "nll_bwd",
    "nll_fwd",
    "nms",
    "pad2d",
    "philox_uint32",
    "plane_take",
    "relu_bwd",
    "relu_fwd",
    "resample",
    "roi_max",
    "sample_dw",
    "sample_dx",
    "sample_fwd",
    "sigmoid_bwd",
    "sigmoid_fwd",
    "softmax_bwd",
    "softmax_fwd",
    "tanh_bwd",
    "tanh_fwd",
    "unfold2d",
]
