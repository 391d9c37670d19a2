"""Initialisers, with PyTorch's names: each fills a tensor in place from `pycnn.random` and returns it.

A weight of shape (K, C, R, S) or (out, in) has fan_in C*R*S and fan_out K*R*S.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from pycnn import random
from pycnn.arrays import beside
from pycnn.nn.parameter import changed
from pycnn.tensor import Tensor

__all__ = [
    "calculate_fan_in_and_fan_out",
    "calculate_gain",
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "lecun_normal_",
    "normal_",
    "ones_",
    "skip",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_skipping: ContextVar[bool] = ContextVar("pycnn_init_skipping", default=False)

# Numbers drawn at a time, so that the float64 the generator works in never fills memory.  A multiple of 4, the words of
# one Philox counter, so the values do not depend on it.
_BLOCK = 2**18


@contextmanager
def skip() -> Iterator[None]:
    """Within it nothing random is drawn and new layers' weights are zeros: for weights that are loaded or drawn later.

    >>> from pycnn import nn
    >>> with skip():
    ...     layer = nn.Linear(1000, 1000)
    >>> layer.weight.data.any()
    np.False_
    """
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """PyTorch's factor for the nonlinearity that follows: 1, 5/3 (tanh), sqrt(2) (relu), sqrt(2/(1+slope^2)), 3/4.

    Raises ValueError for an unknown name.

    >>> calculate_gain("tanh") == 5 / 3
    True
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    gains = {"linear": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}
    if nonlinearity not in gains:
        raise ValueError(f"nonlinearity must be leaky_relu or one of {', '.join(gains)}, got {nonlinearity!r}")
    return gains[nonlinearity]


def calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight.  Raises ValueError for fewer than two axes.

    >>> import pycnn
    >>> calculate_fan_in_and_fan_out(pycnn.zeros(8, 3, 5, 5))
    (75, 200)
    """
    shape = tuple(tensor.shape)
    if len(shape) < 2:
        raise ValueError(f"a weight needs at least two axes to have a fan-in, got shape {shape}")
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, where: slice = slice(None)) -> Tensor:
    """Uniform in [a, b); `where` limits it to a range of the first axis.

    >>> import pycnn
    >>> w = uniform_(pycnn.zeros(100), 2.0, 3.0)
    >>> bool(w.min() >= 2 and w.max() < 3)
    True
    """
    return _fill(tensor, lambda count: random.uniform(count, a, b), where)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal with `mean` and `std`."""
    return _fill(tensor, lambda count: random.normal(count, mean, std, tensor.dtype))


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Normal, drawn again while outside [a, b] (bounds on the value, not multiples of `std`)."""
    return _fill(tensor, lambda count: random.truncated_normal(count, mean, std, a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """All elements `val`; `skip` does not concern it.

    >>> import pycnn
    >>> constant_(pycnn.zeros(2), 0.5)
    tensor([0.5, 0.5])
    """
    tensor.data[...] = val
    changed(tensor)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """All elements 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """All elements 1."""
    return constant_(tensor, 1.0)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)).

    Reference: Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010,
    equation 16.
    """
    bound = gain * math.sqrt(6 / sum(calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out)); Glorot & Bengio, 2010."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(calculate_fan_in_and_fan_out(tensor))))


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform in +-gain * sqrt(3 / fan), the gain of `nonlinearity` with slope `a`.

    Args, Raises: as `kaiming_normal_`.

    Reference: He et al., "Delving deep into rectifiers", 2015, section 2.2.
    """
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal with std gain / sqrt(fan), the gain of `nonlinearity` with slope `a`; He et al., 2015, equation 10.

    Args:
        tensor: a weight of at least two axes.
        a: slope of the negative side, for "leaky_relu".
        mode: "fan_in" keeps the variance of the forward pass, "fan_out" that of the gradients.
        nonlinearity: what follows, see `calculate_gain`.

    Raises:
        ValueError: an unknown mode or nonlinearity, or a tensor of fewer than two axes.

    >>> import pycnn
    >>> w = kaiming_normal_(pycnn.zeros(100, 200), nonlinearity="relu")
    >>> abs(w.std().item() - (2 / 200) ** 0.5) < 0.003
    True
    """
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)))


def lecun_normal_(tensor: Tensor) -> Tensor:
    """Normal with std 1 / sqrt(fan_in).

    Reference: LeCun, Bottou, Orr & Müller, "Efficient backprop", 1998, equation 16.
    """
    return normal_(tensor, 0.0, 1 / math.sqrt(_fan(tensor, "fan_in")))


def default_(weight: Tensor, bias: Tensor | None) -> None:
    """PyTorch's default for convolutions and full layers: both uniform in +-1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(_fan(weight, "fan_in"))
    uniform_(weight, -bound, bound)
    if bias is not None:
        uniform_(bias, -bound, bound)


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]


def _fill(tensor: Tensor, draw: Callable[[int], np.ndarray[Any, Any]], where: slice = slice(None)) -> Tensor:
    if _skipping.get():
        return tensor
    part = tensor.data[where]
    if part.flags.c_contiguous:
        flat = part.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK]
            block[...] = beside(draw(block.size), block)
    else:
        part[...] = beside(draw(part.size).reshape(part.shape), part)
    changed(tensor)
    return tensor
