"""Operators on Tensors or arrays; names and flags are torch.nn.functional's.

If no argument is a Tensor nothing is recorded and the result is an array of the caller's own kind.
"""

from pycnn.functional.activation import log_softmax, relu, sigmoid, softmax, tanh
from pycnn.functional.boxes import batched_nms, box_iou, nms, roi_align, roi_pool
from pycnn.functional.conv import conv2d, conv_transpose2d
from pycnn.functional.conv1d import conv1d, conv_transpose1d
from pycnn.functional.conv3d import conv3d, conv_transpose3d
from pycnn.functional.deform import deform_conv2d
from pycnn.functional.distance import cosine_similarity, normalize, one_hot, pairwise_distance
from pycnn.functional.dropout import dropout
from pycnn.functional.elementwise_loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    poisson_nll_loss,
    sigmoid_focal_loss,
    smooth_l1_loss,
    soft_margin_loss,
)
from pycnn.functional.grid import affine_grid, grid_sample
from pycnn.functional.group_norm import group_norm, instance_norm, layer_norm, rms_norm
from pycnn.functional.interpolate import interpolate, upsample
from pycnn.functional.linear import bias, linear
from pycnn.functional.local import locally_connected1d, locally_connected2d
from pycnn.functional.loss import cross_entropy, mse_loss, nll_loss
from pycnn.functional.lp_pool import lp_pool1d, lp_pool2d, lp_pool3d
from pycnn.functional.margin_loss import (
    cosine_embedding_loss,
    margin_ranking_loss,
    multi_margin_loss,
    multilabel_soft_margin_loss,
    triplet_margin_loss,
)
from pycnn.functional.norm import batch_norm, local_response_norm
from pycnn.functional.pool import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from pycnn.functional.pool1d import adaptive_avg_pool1d, adaptive_max_pool1d, avg_pool1d, max_pool1d
from pycnn.functional.pool3d import adaptive_avg_pool3d, adaptive_max_pool3d, avg_pool3d, max_pool3d
from pycnn.functional.rectifier import (
    celu,
    elu,
    erf,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu6,
    selu,
    silu,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from pycnn.functional.sampling import resample
from pycnn.functional.shaping import cat, flatten, pad, stack, where
from pycnn.functional.shuffle import channel_shuffle, pixel_shuffle, pixel_unshuffle
from pycnn.functional.spatial_dropout import alpha_dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout
from pycnn.functional.unfold import fold, unfold
from pycnn.functional.unpool import max_unpool1d, max_unpool2d, max_unpool3d

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "affine_grid",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "batched_nms",
    "bias",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "box_iou",
    "cat",
    "celu",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "deform_conv2d",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "erf",
    "feature_alpha_dropout",
    "flatten",
    "fold",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "grid_sample",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "locally_connected1d",
    "locally_connected2d",
    "log_softmax",
    "logsigmoid",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "nms",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "resample",
    "rms_norm",
    "roi_align",
    "roi_pool",
    "selu",
    "sigmoid",
    "sigmoid_focal_loss",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softplus",
    "softshrink",
    "softsign",
    "stack",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "unfold",
    "upsample",
    "where",
]
