"""pycnn inside PyTorch: its operators as PyTorch's own, and layers that take the place of `torch.nn`'s.

    import pycnn.torch
    pycnn.torch.swap(model)      # from here on this model's layers are computed by pycnn; nothing else changes
    pycnn.torch.unswap(model)    # and from here on by torch again, for torch.onnx.export and the like

The functions have torch.nn.functional's names and arguments.  They differentiate (twice, too), and work under autocast,
torch.compile (as single nodes, without a break) and torch.func's grad, vjp, jacrev and vmap, in any order.  Tensors are
read and handed over without a copy, on the CPU and, through CuPy, on CUDA.  Not offered: forward mode, and
torch.compile around a gradient of torch.func's.
"""

from pycnn.torch.functional import (
    adaptive_avg_pool2d,
    avg_pool2d,
    batch_norm,
    conv2d,
    conv_transpose2d,
    linear,
    max_pool2d,
    relu,
)
from pycnn.torch.modules import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    MaxPool2d,
    ReLU,
    swap,
    swapped,
    unswap,
)

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "conv_transpose2d",
    "linear",
    "max_pool2d",
    "relu",
    "swap",
    "swapped",
    "unswap",
]
