"""The CUDA backend: host code written once, for whatever answers the five calls of `device.Device`.

`Host` plans a call (instance, grid, arguments), allocates and launches.  Bound to the GPU by CuPy, its methods are the
backend functions in `bound`; bound to the simulator they are those of `pycnn.backends.sim`.

Images that lie channels-last (`pycnn.memory_format`) are read as they lie, and results lie so: by convolution on tensor
cores and by every other function but LRN and the losses, which like the rest of convolution get copies in C order.

    device.py          the five calls; device_cupy.py is a GPU, device_sim.py the simulator, device_trace.py writes down
    bound.py           the backend functions of the GPU that holds the arrays
    layout.py          the kernels' structs, packed
    host.py            what the parts of the host code share
    plan.py, conv.py   convolution: what a plan is, and all of them
    order.py           which of them is taken
    winograd.py        plans of the Winograd kernels
    im2col.py          plans of implicit GEMM
    tensor.py          plans of implicit GEMM on tensor cores
    tensor_product.py  batches of float32 products on tensor cores
    columns.py         the plan of explicit im2col
    gemm.py            float32 matrix products, for the others
    linear.py          matrix products and linear layers
    direct*.py         plans of the direct kernels
    slices.py          sums of partial results
    pool.py            pooling
    activation.py      activations, softmax, add
    norm.py            batch norm, LRN, coefficients a channel
    group_norm.py      normalisation of groups of channels
    reduce.py          sums over all axes but the channels
    loss.py            negative log-likelihood
    random.py          the random stream, dropout
    shaping.py         padding, concatenation
    windows.py         windows side by side, and back
    resample.py        interpolation by tables
    sampling.py        points that are weighted sums of an image's elements
    boxes.py           maxima over regions, suppression of overlapping boxes
    convert.py         from one dtype to another
    optim.py           optimiser steps over many arrays
"""

from __future__ import annotations

from pycnn.backends.cuda import (
    activation,
    boxes,
    columns,
    convert,
    direct,
    direct_depthwise,
    direct_pointwise,
    direct_wgrad,
    gemm,
    group_norm,
    im2col,
    loss,
    norm,
    optim,
    pool,
    random,
    reduce,
    resample,
    sampling,
    shaping,
    slices,
    tensor,
    tensor_product,
    windows,
    winograd,
)
from pycnn.backends.cuda.boxes import BoxesHost
from pycnn.backends.cuda.group_norm import GroupNormHost
from pycnn.backends.cuda.host import UnavailableError
from pycnn.backends.cuda.linear import LinearHost
from pycnn.backends.cuda.loss import LossHost
from pycnn.backends.cuda.norm import NormHost
from pycnn.backends.cuda.optim import OptimHost
from pycnn.backends.cuda.pool import PoolHost
from pycnn.backends.cuda.random import RandomHost
from pycnn.backends.cuda.reduce import ReduceHost
from pycnn.backends.cuda.resample import ResampleHost
from pycnn.backends.cuda.sampling import SamplingHost
from pycnn.backends.cuda.shaping import ShapingHost
from pycnn.backends.cuda.windows import WindowsHost

__all__ = ["LAUNCHERS", "Host", "UnavailableError"]

# The modules that launch kernels; the KERNELS of each are the ones it launches.
LAUNCHERS = (
    direct,
    direct_depthwise,
    direct_pointwise,
    direct_wgrad,
    im2col,
    columns,
    winograd,
    tensor,
    tensor_product,
    gemm,
    pool,
    slices,
    activation,
    norm,
    group_norm,
    reduce,
    loss,
    random,
    shaping,
    windows,
    resample,
    sampling,
    boxes,
    convert,
    optim,
)

# What the backend has beyond the protocol: it works on the device's memory alone, for CUDA graphs.
ON_DEVICE = (
    *("adam_step", "advance", "clip_gradients", "convert", "count_step"),
    *("gradient_norm", "next_scale", "round_all", "sgd_step", "take_over", "unscale_gradients", "widen_all"),
)


class Host(
    LinearHost,
    PoolHost,
    NormHost,
    GroupNormHost,
    ReduceHost,
    LossHost,
    RandomHost,
    ShapingHost,
    WindowsHost,
    ResampleHost,
    SamplingHost,
    BoxesHost,
    OptimHost,
):
    """The backend functions on one device.

    Args:
        device: where the kernels run.
        sources: the kernels.
    """
