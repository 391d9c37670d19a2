"""The native CPU engine: dense C-ordered float32 and float64 arrays through `pycnn._cpu`.

One file a subject; every function has the name and the arguments of its twin in `reference`.
"""

from pycnn.backends.cpu.activation import (
    activation_bwd,
    activation_fwd,
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
from pycnn.backends.cpu.boxes import nms, roi_max
from pycnn.backends.cpu.conv import (
    channel_sum,
    conv2d_algorithms,
    conv2d_choose,
    conv2d_dgrad,
    conv2d_fprop,
    conv2d_predicted,
    conv2d_wgrad,
)
from pycnn.backends.cpu.group_norm import group_norm_bwd, group_norm_fwd
from pycnn.backends.cpu.linear import gemm, linear_fwd
from pycnn.backends.cpu.loss import nll_bwd, nll_fwd
from pycnn.backends.cpu.norm import batch_norm_bwd, batch_norm_eval, batch_norm_fwd, channel_affine, lrn_bwd, lrn_fwd
from pycnn.backends.cpu.pool import (
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
from pycnn.backends.cpu.random import dropout, philox_uint32
from pycnn.backends.cpu.sampling import resample, sample_dw, sample_dx, sample_fwd
from pycnn.backends.cpu.shaping import add, add_to, concat, pad2d, scaled_rows
from pycnn.backends.cpu.windows import fold2d, unfold2d

__all__ = [
    "activation_bwd",
    "activation_fwd",
    "adaptive_avg_pool2d_bwd",
    "adaptive_avg_pool2d_fwd",
    "adaptive_max_pool2d_bwd",
    "adaptive_max_pool2d_fwd",
    "add",
    "add_to",
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
    "conv2d_predicted",
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
    "scaled_rows",
    "sigmoid_bwd",
    "sigmoid_fwd",
    "softmax_bwd",
    "softmax_fwd",
    "tanh_bwd",
    "tanh_fwd",
    "unfold2d",
]
