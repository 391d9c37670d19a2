"""Raw operators on arrays: every argument is validated here, then one backend function runs.  No autograd."""

from pycnn.ops.activation import (
    ACTIVATIONS,
    activation,
    activation_backward,
    log_softmax,
    log_softmax_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    tanh,
    tanh_backward,
)
from pycnn.ops.boxes import nms, roi_max
from pycnn.ops.conv import conv2d_dgrad, conv2d_fprop, conv2d_wgrad
from pycnn.ops.conv3d import conv3d_dgrad, conv3d_fprop, conv3d_wgrad
from pycnn.ops.conv_transpose import conv_transpose2d_dgrad, conv_transpose2d_fprop, conv_transpose2d_wgrad
from pycnn.ops.group_norm import group_norm, group_norm_backward
from pycnn.ops.linear import gemm, linear
from pycnn.ops.loss import nll, nll_backward
from pycnn.ops.norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_eval,
    channel_affine,
    channel_sum,
    lrn,
    lrn_backward,
)
from pycnn.ops.pool import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    adaptive_max_pool2d,
    adaptive_max_pool2d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
    plane_put,
    plane_take,
)
from pycnn.ops.random import dropout, philox_uint32
from pycnn.ops.sampling import resample, sample, sample_backward_input, sample_backward_weight
from pycnn.ops.shaping import add, concat, pad
from pycnn.ops.windows import fold2d, unfold2d

__all__ = [
    "ACTIVATIONS",
    "activation",
    "activation_backward",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "add",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_eval",
    "channel_affine",
    "channel_sum",
    "concat",
    "conv2d_dgrad",
    "conv2d_fprop",
    "conv2d_wgrad",
    "conv3d_dgrad",
    "conv3d_fprop",
    "conv3d_wgrad",
    "conv_transpose2d_dgrad",
    "conv_transpose2d_fprop",
    "conv_transpose2d_wgrad",
    "dropout",
    "fold2d",
    "gemm",
    "group_norm",
    "group_norm_backward",
    "linear",
    "log_softmax",
    "log_softmax_backward",
    "lrn",
    "lrn_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "nll",
    "nll_backward",
    "nms",
    "pad",
    "philox_uint32",
    "plane_put",
    "plane_take",
    "relu",
    "relu_backward",
    "resample",
    "roi_max",
    "sample",
    "sample_backward_input",
    "sample_backward_weight",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
    "unfold2d",
]
