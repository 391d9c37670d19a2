"""Operators on Tensors or arrays; names and flags are torch.nn.functional's.

If no argument is a Tensor nothing is recorded and the result is an array of the caller's own kind.
"""

from pycnn.functional.activation import log_softmax, relu, sigmoid, softmax, tanh
from pycnn.functional.conv import conv2d, conv_transpose2d
from pycnn.functional.dropout import dropout
from pycnn.functional.linear import bias, linear
from pycnn.functional.loss import cross_entropy, mse_loss, nll_loss
from pycnn.functional.norm import batch_norm, local_response_norm
from pycnn.functional.pool import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from pycnn.functional.shaping import cat, flatten, pad, stack, where

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "bias",
    "cat",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "flatten",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "stack",
    "tanh",
    "where",
]
