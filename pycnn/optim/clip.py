"""Gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pycnn.arrays import is_half, is_host, module_of
from pycnn.memory_format import is_dense
from pycnn.nn.parameter import changed
from pycnn.optim._device import host_of
from pycnn.optim.optimizer import blocks
from pycnn.tensor import Tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Any:
    """Scale all gradients together so that their joint norm is at most `max_norm`.

    Args:
        parameters: one parameter or many; those without gradient count for nothing.
        max_norm: the largest norm to leave.
        norm_type: 2, or any positive power, or ``math.inf``.
        error_if_nonfinite: refuse a norm that is NaN or infinite, instead of spreading it.

    Returns:
        the norm before clipping, summed in double precision; for gradients on a GPU a 0-d Tensor there, of float32 if
        they are, so that nobody waits for it.

    Raises:
        RuntimeError: a norm that is not finite, with `error_if_nonfinite`; no gradient is changed.

    Reference: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013, algorithm 1.

    >>> import pycnn
    >>> p = pycnn.ones(4, requires_grad=True)
    >>> (p * 2).sum().backward()
    >>> clip_grad_norm_(p, 1.0)
    4.0
    >>> p.grad.data.round(3)
    array([0.5, 0.5, 0.5, 0.5], dtype=float32)
    """
    gradients = _gradients(parameters)
    if gradients and not is_host(gradients[0].data):
        return _clip_on_device(gradients, float(max_norm), float(norm_type), error_if_nonfinite)
    norm = _norm([gradient.data for gradient in gradients], float(norm_type))
    _expect_finite(norm, error_if_nonfinite)
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1.0:
        for gradient in gradients:
            array = gradient.data
            array *= factor
            changed(gradient)
    return norm


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip every element of every gradient to between -clip_value and clip_value; NaN stays.

    >>> import pycnn
    >>> p = pycnn.ones(2, requires_grad=True)
    >>> (p * pycnn.tensor([0.5, -9.0])).sum().backward()
    >>> clip_grad_value_(p, 1.0)
    >>> p.grad.data.round(3)
    array([ 0.5, -1. ], dtype=float32)
    """
    for gradient in _gradients(parameters):
        module_of(gradient.data).clip(gradient.data, -clip_value, clip_value, out=gradient.data)
        changed(gradient)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [parameters] if isinstance(parameters, Tensor) else parameters
    return [tensor.grad for tensor in tensors if tensor.grad is not None]


def _norm(gradients: list[Any], power: float) -> float:
    if power <= 0:
        raise ValueError(f"norm_type must be above 0, got {power}")
    parts = [_wide(part) for gradient in gradients if gradient.size for (part,) in blocks(gradient)]
    if power == math.inf:
        return max((float(abs(part).max()) for part in parts), default=0.0)
    if power == 2:
        return math.sqrt(sum(float(module_of(part).vdot(part, part)) for part in parts))
    return sum(float((abs(part) ** power).sum()) for part in parts) ** (1 / power)


def _wide(array: Any) -> Any:
    """Gradients of 16 bits in float32, which holds their squares."""
    return array.astype("float32") if is_half(array) else array


def _expect_finite(norm: Any, asked: bool) -> None:
    if asked and not math.isfinite(float(norm)):
        raise RuntimeError(f"the gradients' norm is {float(norm)}; they cannot be clipped")


def _clip_on_device(gradients: list[Tensor], most: float, power: float, error_if_nonfinite: bool) -> Tensor:
    """The same without a number of the host's in between."""
    if power <= 0:
        raise ValueError(f"norm_type must be above 0, got {power}")
    if power == 2 and all(gradient.dtype == "float32" and is_dense(gradient.data) for gradient in gradients):
        host, arrays = host_of(gradients[0].data), [gradient.data for gradient in gradients]
        norm = host.gradient_norm(arrays)
        _expect_finite(norm, error_if_nonfinite)
        host.clip_gradients(arrays, norm, most)
        for gradient in gradients:
            changed(gradient)
        return Tensor(norm)
    xp = module_of(gradients[0].data)
    arrays = [_wide(gradient.data) for gradient in gradients if gradient.data.size]
    if power == math.inf:
        norm = xp.stack([abs(array).max() for array in arrays]).max().astype("float64")
    else:
        sums = [(abs(array) ** power).sum(dtype="float64") for array in arrays]
        norm = xp.stack(sums).sum() ** (1 / power)
    _expect_finite(norm, error_if_nonfinite)
    factor = xp.minimum(most / (norm + 1e-6), 1.0)
    for gradient in gradients:
        array = gradient.data
        array *= factor.astype(array.dtype)
        changed(gradient)
    return Tensor(norm)
