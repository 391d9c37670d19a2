"""Normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.arithmetic import where
from pycnn.onnx.graph import dtype_of
from pycnn.onnx.operators._common import axis_of, tensor_of
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor


@operator("BatchNormalization")
def batch_norm_before_14(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    is_test: int = 1,
    spatial: int = 1,
    outputs: int = 1,
) -> Any:
    """With more than one output, or is_test=0 in opsets 1 and 6, it would train, which only opset 14 defines fully."""
    if outputs > 1:
        raise ValueError("training batch normalisation of an opset before 14")
    if not spatial:  # one mean for each element of an image
        flat = x.reshape(x.shape[0], -1)
        scale, bias, mean, var = (one.reshape(-1) for one in (scale, bias, mean, var))
        return _batch_norm(flat, scale, bias, mean, var, epsilon).reshape(x.shape)
    return _batch_norm(x, scale, bias, mean, var, epsilon)


def _batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float) -> Tensor:
    if x.ndim == 1:
        return _batch_norm(x.reshape(-1, 1), scale, bias, mean, var, epsilon).reshape(-1)
    return F.batch_norm(x, mean, var, scale, bias, eps=epsilon)


@operator("BatchNormalization", since=14)
def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:
    if not training_mode:
        return _batch_norm(x, scale, bias, mean, var, epsilon)
    axes = (0, *range(2, x.ndim))
    batch_mean, batch_var = x.mean(axes).detach(), x.var(axes, correction=0).detach()
    y = F.batch_norm(x, None, None, scale.to(x.dtype), bias.to(x.dtype), training=True, eps=epsilon)
    running = [
        old.detach() * momentum + new.to(old.dtype) * (1.0 - momentum)
        for old, new in ((mean, batch_mean), (var, batch_var))
    ]
    return y, *running


def _column(x: Tensor, weight: Tensor) -> Tensor:
    return weight.reshape(-1, *(1,) * (x.ndim - 2))


def _standard(x: Tensor, axes: tuple[int, ...], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """x with mean 0 and variance 1 over `axes`, the mean, and 1 / the standard deviation."""
    mean = x.mean(axes, True)
    centred = x - mean
    inverse = ((centred * centred).mean(axes, True) + epsilon) ** -0.5
    return centred * inverse, mean, inverse


def _is_kept(x: Tensor, stash_type: int) -> bool:
    """Whether what is normalised has x's own dtype, float32 or float64, as pycnn's functions compute it."""
    return x.dtype.char in "fd" and (not stash_type or dtype_of(stash_type) == x.dtype)


@operator("InstanceNormalization")
def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return group_norm(x, scale, bias, epsilon=epsilon, num_groups=x.shape[1], stash_type=0)


@operator("GroupNormalization", since=18)
def group_norm_of_groups(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, num_groups: int) -> Tensor:
    """In opset 18 scale and bias had one value a group."""
    c = x.shape[1]
    each = c // num_groups
    wide = [one.reshape(-1, 1).expand(num_groups, each).reshape(c) for one in (scale, bias)]
    return group_norm(x, *wide, epsilon=epsilon, num_groups=num_groups)


@operator("GroupNormalization", since=21)
def group_norm(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1
) -> Tensor:
    single = x.numel() == num_groups  # one element to normalise, which PyTorch refuses
    if _is_kept(x, stash_type) and scale.dtype == bias.dtype == x.dtype and not single:
        return F.group_norm(x, num_groups, scale, bias, epsilon)
    wide = x.to(dtype_of(stash_type)) if stash_type else x
    grouped = wide.reshape(x.shape[0], num_groups, -1)
    normal, _, _ = _standard(grouped, (2,), epsilon)
    return normal.reshape(x.shape).to(x.dtype) * _column(x, scale) + _column(x, bias)


@operator("LayerNormalization")
def layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int = 1,
) -> Any:
    axes = tuple(range(axis_of(axis, x.ndim), x.ndim))
    shape = x.shape[axes[0] :]
    same = all(one is None or (one.shape == shape and one.dtype == x.dtype) for one in (scale, bias))
    if outputs == 1 and same and _is_kept(x, stash_type):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    normal, mean, inverse = _standard(x.to(dtype_of(stash_type)), axes, epsilon)
    y = normal.to(x.dtype) * scale
    y = y if bias is None else y + bias
    return y if outputs == 1 else (y, mean, inverse)


@operator("RMSNormalization")
def rms_norm(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    axes = tuple(range(axis_of(axis, x.ndim), x.ndim))
    shape = x.shape[axes[0] :]
    if scale.shape == shape and scale.dtype == x.dtype and _is_kept(x, stash_type):
        return F.rms_norm(x, shape, scale, epsilon)
    wide = x.to(dtype_of(stash_type))
    normal = wide * ((wide * wide).mean(axes, True) + epsilon) ** -0.5
    return normal.to(x.dtype) * scale


@operator("LRN")
def local_response_norm(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    """As ONNX and PyTorch have it, alpha is divided by the size; for an even size they reach to different sides."""
    if size % 2:
        return F.local_response_norm(x, size, alpha, beta, bias)
    flipped = x[:, ::-1]
    return F.local_response_norm(flipped, size, alpha, beta, bias)[:, ::-1]


@operator("LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    total = (x * x).sum(axis, True).sqrt() if p == 2 else abs(x).sum(axis, True)
    return x / where((total == 0).data, 1.0, total)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(x: Tensor, *, axes: tuple[int, ...] = (0, 2, 3)) -> Tensor:
    centred = x - x.mean(axes, True)
    return centred / ((centred * centred).mean(axes, True).sqrt() + 1e-9)


@operator("Dropout")
def dropout_before_12(x: Tensor, *, ratio: float = 0.5, is_test: int = 1, outputs: int = 1, version: int) -> Any:
    """Opsets 1 and 6 said whether it trains; 7 and 10 never do.  Every network runs here as it is applied."""
    if outputs == 1:
        return x
    mask = np.ones(x.shape, bool)
    return x, mask if version >= 10 else tensor_of(mask.astype(x.dtype), x)


@operator("Dropout", since=12, host=(1, 2))
def dropout(
    x: Tensor,
    ratio: np.ndarray | None = None,
    training: np.ndarray | None = None,
    *,
    seed: int | None = None,
    outputs: int = 1,
) -> Any:
    share = 0.5 if ratio is None else float(ratio.item())
    if training is None or not training.item() or share == 0:
        return x if outputs == 1 else (x, np.ones(x.shape, bool))
    draws = np.random.default_rng(seed).random(math.prod(x.shape)).reshape(x.shape)
    mask = draws >= share
    return x * tensor_of((mask / (1.0 - share)).astype(x.dtype), x), mask
