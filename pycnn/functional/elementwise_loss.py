"""Losses of each element by itself: distances, cross-entropies of two classes, likelihoods.

All are written in Tensor operations, and so run on every backend and are differentiable as often as one likes.  Inside
`pycnn.amp.autocast` operands of 16 bits are widened first.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from pycnn import graph
from pycnn.arithmetic import where
from pycnn.arrays import is_host, module_of
from pycnn.functional._arrays import composed, expect_arrays
from pycnn.functional.activation import Sigmoid
from pycnn.functional.loss import reduced
from pycnn.functional.rectifier import Activation
from pycnn.graph import Function, Variable
from pycnn.ops._checks import flag, number
from pycnn.ops.loss import check_reduction
from pycnn.tensor import Tensor

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "poisson_nll_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
]

Array = Any


def widened(input: Any) -> Any:
    """`input`, in float32 where it has 16 bits and autocast is on: rounding a loss would cost what it is for."""
    return input.to(np.float32) if graph.caster.get() is not None and input.dtype.itemsize == 2 else input


def beside(name: str, value: Any, like: Any) -> Any:
    """`value` as a Tensor of `like`'s dtype."""
    expect_arrays(**{name: value})
    tensor: Any = value if isinstance(value, Variable) else Tensor(value)
    return tensor if tensor.dtype == like.dtype else tensor.to(like.dtype)


def _pair(name: str, input: Any, target: Any, reduction: str) -> tuple[Any, Any]:
    """Both, of one dtype; broadcast with a warning."""
    check_reduction(reduction)
    input = widened(input)
    target = beside("target", target, input)
    if input.shape != target.shape:
        warnings.warn(
            f"{name}: input has shape {input.shape} and target {target.shape}; they are broadcast", stacklevel=5
        )
    return input, target


def _same_shape(input: Any, target: Any, reduction: str) -> tuple[Any, Any]:
    check_reduction(reduction)
    input = widened(input)
    target = beside("target", target, input)
    if input.shape != target.shape:
        raise ValueError(f"target must have input's shape {input.shape}, got {target.shape}")
    return input, target


def _weighted(loss: Any, weight: Any) -> Any:
    return loss if weight is None else loss * beside("weight", weight, loss)


@composed
def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """Absolute error |input - target|, reduced by "mean", "sum" or "none".

    Warns where the two shapes differ and broadcasting would hide it.

    Args:
        input, target: of one shape; Tensors or arrays.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError: not an array.  ValueError: an unknown reduction.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.l1_loss(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    array(1.)
    """
    input, target = _pair("l1_loss", input, target, reduction)
    return reduced(abs(input - target), reduction)


@composed
def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """d^2 / (2 beta) where d = |input - target| is below beta, else d - beta/2.

    Args, Raises: as `l1_loss`; `beta` at least 0, and 0 is the absolute error itself.

    Reference: Girshick, "Fast R-CNN", 2015, equation 3.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.smooth_l1_loss(np.array([1.0, 4.0]), np.array([0.0, 0.0]), "none")
    array([0.5, 3.5])
    """
    beta = number("beta", beta, 0)
    input, target = _pair("smooth_l1_loss", input, target, reduction)
    error = input - target
    return reduced(Activation.apply(error, "huber", beta, 1 / beta) if beta else abs(error), reduction)


@composed
def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """d^2 / 2 where d = |input - target| is at most delta, else delta * (d - delta/2).

    Args, Raises: as `l1_loss`; `delta` above 0.

    Reference: Huber, "Robust estimation of a location parameter", 1964.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.huber_loss(np.array([1.0, 4.0]), np.array([0.0, 0.0]), "none", 2.0)
    array([0.5, 6. ])
    """
    delta = number("delta", delta, 0)
    if delta == 0:
        raise ValueError("delta must be above 0")
    input, target = _pair("huber_loss", input, target, reduction)
    return reduced(Activation.apply(input - target, "huber", delta, 1.0), reduction)


class BinaryCrossEntropy(Function):
    """-(t log x + (1 - t) log(1 - x)), each logarithm at least -100; the slope is limited as PyTorch limits it."""

    @staticmethod
    def forward(ctx: Any, x: Array, t: Array) -> Array:
        ctx.save(x, t)
        module = module_of(x)
        with np.errstate(divide="ignore"):
            return module.asarray(-(t * module.log(x).clip(-100) + (1 - t) * module.log1p(-x).clip(-100)))

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, t = ctx.saved
        need_x, need_t = ctx.needs_input_grad
        dx = dy * ((x - t) / ((1.0 - x) * x).clamp(min=1e-12)) if need_x else None
        dt = dy * ((1.0 - x).log().clamp(min=-100) - x.log().clamp(min=-100)) if need_t else None
        return dx, dt


@composed
def binary_cross_entropy(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Any:
    """Cross-entropy of two classes: l = -weight * (t log x + (1 - t) log(1 - x)), a logarithm counting at least -100.

    Args:
        input: probabilities, 0 to 1; a Tensor or an array.
        target: of input's shape, 0 to 1.
        weight: broadcast against them, or None.
        reduction: "mean" (over all elements, whatever the weights), "sum" or "none".

    Raises:
        TypeError: not an array.
        ValueError: different shapes, an unknown reduction, or a probability outside [0, 1] (looked for on the CPU
            alone; on a GPU the loss is NaN).

    >>> import numpy as np, pycnn
    >>> pycnn.functional.binary_cross_entropy(np.array([0.5]), np.array([1.0])).round(4)
    np.float64(0.6931)
    """
    input, target = _same_shape(input, target, reduction)
    data = input._data
    if is_host(data) and not ((data >= 0) & (data <= 1)).all():
        wrong = data[~((data >= 0) & (data <= 1))].flat[0]
        raise ValueError(f"input must hold probabilities, between 0 and 1, got {wrong}")
    return reduced(_weighted(BinaryCrossEntropy.apply(input, target), weight), reduction)


@composed
def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """`binary_cross_entropy` of sigmoid(input), without overflow.

        l = -weight * (pos_weight * t log sigmoid(x) + (1 - t) log(1 - sigmoid(x)))

    Args:
        input: scores; a Tensor or an array.
        target: of input's shape, 0 to 1.
        weight: broadcast against them, or None.
        reduction: "mean", "sum" or "none".
        pos_weight: a factor of the positive class, broadcast from the last dimension on, or None.

    Raises:
        TypeError: not an array.  ValueError: different shapes, or an unknown reduction.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.binary_cross_entropy_with_logits(np.array([-1000.0]), np.array([1.0]))
    array(1000.)
    """
    input, target = _same_shape(input, target, reduction)
    return reduced(_weighted(_two_classes(input, target, pos_weight), weight), reduction)


def _two_classes(input: Any, target: Any, pos_weight: Any = None) -> Any:
    log = Activation.apply(input, "logsigmoid")
    if pos_weight is not None:
        log = log * ((beside("pos_weight", pos_weight, input) - 1.0) * target + 1.0)
    return (1.0 - target) * input - log


@composed
def sigmoid_focal_loss(
    inputs: Any, targets: Any, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> Any:
    """Cross-entropy of two classes that counts what is known well for less, as torchvision.ops.sigmoid_focal_loss.

        l = alpha_t * (1 - p_t)^gamma * cross-entropy,  p_t = p where t = 1, else 1 - p,  p = sigmoid(input)

    Args:
        inputs: scores; a Tensor or an array.
        targets: of inputs' shape, 0 or 1.
        alpha: weight of the positive class, 1 - alpha that of the other; negative for none.
        gamma: how much less.
        reduction: "none", "mean" or "sum".

    Raises:
        TypeError: not an array.  ValueError: different shapes, an unknown reduction, or an alpha above 1.

    Reference: Lin, Goyal, Girshick, He & Dollar, "Focal loss for dense object detection", ICCV 2017.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.sigmoid_focal_loss(np.array([0.0]), np.array([1.0])).round(4)
    array([0.0433])
    """
    alpha, gamma = number("alpha", alpha), number("gamma", gamma)
    if alpha > 1:
        raise ValueError(f"alpha must be at most 1, got {alpha}")
    inputs, targets = _same_shape(inputs, targets, reduction)
    p = Sigmoid.apply(inputs)
    missed = p * (1.0 - targets) + (1.0 - p) * targets
    loss = _two_classes(inputs, targets) * missed**gamma
    if alpha >= 0:
        loss = loss * (targets * alpha + (1.0 - targets) * (1 - alpha))
    return reduced(loss, reduction)


@composed
def soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """l = log(1 + e^(-t x)) for targets of 1 and -1.

    Args, Raises: as `l1_loss`; ValueError where the shapes differ.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.soft_margin_loss(np.array([1000.0]), np.array([-1.0]))
    array(1000.)
    """
    input, target = _same_shape(input, target, reduction)
    return reduced(-Activation.apply(input * target, "logsigmoid"), reduction)


@composed
def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Any:
    """l = x where t = 1, max(0, margin - x) where t = -1.

    Args, Raises: as `l1_loss`; `margin` a finite number.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.hinge_embedding_loss(np.array([3.0, 0.25]), np.array([1.0, -1.0]), reduction="none")
    array([3.  , 0.75])
    """
    margin = number("margin", margin)
    check_reduction(reduction)
    input = widened(input)
    target = beside("target", target, input)
    apart, together = (margin - input).clamp(min=0.0), input
    return reduced(_where(target != 1, apart, 0.0) + _where(target != -1, together, 0.0), reduction)


@composed
def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """Kullback-Leibler divergence, l = t * (log t - x), of log-probabilities x from probabilities t.

    Args:
        input: log-probabilities; a Tensor or an array.
        target: probabilities, or their logarithms; broadcast.
        reduction: "batchmean" (the sum over the first dimension's size, which is the divergence), "mean" (over all
            elements), "sum" or "none".
        log_target: whether `target` holds logarithms.

    Raises:
        TypeError: not an array.  ValueError: an unknown reduction.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.kl_div(np.log(np.array([[0.5, 0.5]])), np.array([[1.0, 0.0]]), "batchmean").round(4)
    np.float64(0.6931)
    """
    if reduction != "batchmean":
        check_reduction(reduction)
    input = widened(input)
    target = beside("target", target, input)
    if flag("log_target", log_target):
        loss = target.exp() * (target - input)
    else:
        loss = target * _where(target == 0, 1.0, target).log() - target * input
    return loss.sum() / input.shape[0] if reduction == "batchmean" and input.ndim else reduced(loss, _mean(reduction))


def _mean(reduction: str) -> str:
    return "mean" if reduction == "batchmean" else reduction


@composed
def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
) -> Any:
    """Negative log-likelihood of counts: e^x - t x, or x - t log(x + eps) without `log_input`.

    Args:
        input: the rate, or its logarithm; a Tensor or an array.
        target: counts; broadcast.
        log_input: whether `input` holds logarithms.
        full: whether to add Stirling's approximation of log t!, t log t - t + log(2 pi t)/2 where t > 1.
        eps: added to the rate.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError: not an array.  ValueError: an unknown reduction.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.poisson_nll_loss(np.array([0.0]), np.array([3.0]))
    array(1.)
    """
    check_reduction(reduction)
    eps = number("eps", eps, 0)
    input = widened(input)
    target = beside("target", target, input)
    loss = input.exp() - target * input if flag("log_input", log_input) else input - target * (input + eps).log()
    if flag("full", full):
        counted = _where(target > 1, target, 1.0)
        stirling = counted * counted.log() - counted + (counted * (2 * math.pi)).log() * 0.5
        loss = loss + _where(target > 1, stirling, 0.0)
    return reduced(loss, reduction)


@composed
def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """Negative log-likelihood under normal distributions: (log v + (x - t)^2 / v) / 2, v = max(var, eps).

    Args:
        input: means; a Tensor or an array.
        target: what was seen, broadcast.
        var: variances: of input's shape, of that with a last dimension of 1 or without it, or a number.  The limit
            does not stop its gradient.
        full: whether to add log(2 pi) / 2.
        eps: the least variance, above 0.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError: not an array.
        ValueError: an unknown reduction, variances of another shape or (on the CPU) below 0, or an eps that is not
            above 0.

    Reference: Nix & Weigend, "Estimating the mean and variance of the target probability distribution", 1994.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.gaussian_nll_loss(np.array([1.0]), np.array([3.0]), np.array([1.0]))
    array(2.)
    """
    check_reduction(reduction)
    eps = number("eps", eps, 0)
    if eps == 0:
        raise ValueError("eps must be above 0")
    input = widened(input)
    target = beside("target", target, input)
    if isinstance(var, (int, float)):
        var = Tensor(np.full(input.shape, var, np.float64)) if is_host(input._data) else input * 0.0 + float(var)
    var = beside("var", var, input)
    if var.shape != input.shape:
        if var.shape == input.shape[:-1]:
            var = var.unsqueeze(-1)
        elif var.shape[:-1] != input.shape[:-1] or var.shape[-1:] != (1,):
            raise ValueError(f"var must have input's shape {input.shape}, or 1 for its last size, got {var.shape}")
    if is_host(var._data) and (var._data < 0).any():
        raise ValueError(f"var must not be below 0, got {var._data.min()}")
    limited = var + (var.detach().clamp(min=eps) - var.detach())
    error = input - target
    loss = (limited.log() + error * error / limited) * 0.5
    return reduced(loss + 0.5 * math.log(2 * math.pi) if flag("full", full) else loss, reduction)


def _where(condition: Any, a: Any, b: Any) -> Any:
    return where(condition._data, a, b)
