"""Dropout of whole channels, and the dropout that keeps mean and variance: masks from `dropout`'s own random stream.

`inplace` is accepted for PyTorch's sake and has no effect: the result is always new.
"""

from __future__ import annotations

from typing import Any

from pycnn import graph, random
from pycnn.arithmetic import where
from pycnn.arrays import module_of
from pycnn.functional._arrays import composed
from pycnn.functional.dropout import dropout
from pycnn.functional.rectifier import SELU_ALPHA, SELU_SCALE
from pycnn.ops._checks import flag, real

__all__ = ["alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]

_LOWEST = -SELU_ALPHA * SELU_SCALE  # what selu gives far below 0


def _active(p: float, training: bool) -> bool:
    """Whether there is anything to do.  ValueError for what is no probability."""
    if not 0 <= real("p", p) <= 1:
        raise ValueError(f"p must be a probability, between 0 and 1, got {p}")
    return flag("training", training) and p > 0


def _mask(x: Any, leading: int, p: float, generator: random.Generator | None) -> Any:
    """0 or 1 / (1 - p) for each place of the first dimensions."""
    shape = (*x.shape[:leading], *(1,) * (x.ndim - leading))
    return dropout(graph.wrap(module_of(x._data).ones(shape, x.dtype)), p, True, generator)


def _of_channels(name: str, x: Any, unbatched: int, p: float, training: bool, generator: Any) -> Any:
    """Channels of (C, ...), of so many dimensions, or of (N, C, ...), of one more."""
    if x.ndim not in (unbatched, unbatched + 1):
        raise ValueError(f"{name} takes input of {unbatched} or {unbatched + 1} dimensions, got shape {x.shape}")
    if not _active(p, training):
        return x
    return x * _mask(x, 1 if x.ndim == unbatched else 2, p, generator)


@composed
def dropout1d(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    generator: random.Generator | None = None,
) -> Any:
    """Set each channel of (N, C, L) or (C, L) to 0 with probability `p` and scale the others by 1 / (1 - p).

    Args:
        input: a Tensor or an array.
        p: probability of a zero, 0 to 1.
        training: False returns `input` as it is.
        generator: where the random numbers come from; pycnn's own by default (see `pycnn.manual_seed`).

    Raises:
        ValueError: another number of dimensions, or a `p` outside [0, 1].

    Reference: Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015.

    >>> import numpy as np, pycnn
    >>> y = pycnn.functional.dropout1d(np.ones((100, 3)))
    >>> sorted({float(v) for v in y[:, 0]}), bool((y == y[:, :1]).all())
    ([0.0, 2.0], True)
    """
    return _of_channels("dropout1d", input, 2, p, training, generator)


@composed
def dropout2d(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    generator: random.Generator | None = None,
) -> Any:
    """`dropout1d` of the channels of (N, C, H, W) or, as PyTorch has it, (N, C, L).

    Args, Raises: as `dropout1d`.

    >>> import numpy as np, pycnn
    >>> y = pycnn.functional.dropout2d(np.ones((2, 50, 2, 2)))
    >>> sorted({float(v) for v in y[:, :, 0, 0].ravel()}), bool((y == y[..., :1, :1]).all())
    ([0.0, 2.0], True)
    """
    if input.ndim not in (3, 4):
        raise ValueError(f"dropout2d takes input of 3 or 4 dimensions, got shape {input.shape}")
    return input * _mask(input, 2, p, generator) if _active(p, training) else input


@composed
def dropout3d(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    generator: random.Generator | None = None,
) -> Any:
    """`dropout1d` of the channels of (N, C, D, H, W) or (C, D, H, W).

    Args, Raises: as `dropout1d`.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.dropout3d(np.ones((2, 3, 1, 2, 2)), 1.0).any()
    np.False_
    """
    return _of_channels("dropout3d", input, 4, p, training, generator)


@composed
def alpha_dropout(
    input: Any,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    generator: random.Generator | None = None,
) -> Any:
    """Set each element to the lowest value of `selu` with probability `p`, then scale and shift all, so that numbers of
    mean 0 and variance 1 stay so.

    Args, Raises: as `dropout1d`, of any number of dimensions.

    Reference: Klambauer et al., "Self-normalizing neural networks", 2017, section 2.

    >>> import numpy as np, pycnn
    >>> len({float(v) for v in pycnn.functional.alpha_dropout(np.zeros(100), 0.5, True).round(6)})
    2
    """
    return _alpha(input, input.ndim, p, generator) if _active(p, training) else input


@composed
def feature_alpha_dropout(
    input: Any,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    generator: random.Generator | None = None,
) -> Any:
    """`alpha_dropout` of whole channels of (N, C, ...).

    Args, Raises: as `dropout1d`; at least two dimensions in training.

    >>> import numpy as np, pycnn
    >>> y = pycnn.functional.feature_alpha_dropout(np.zeros((2, 50, 3)), 0.5, True)
    >>> bool((y == y[:, :, :1]).all())
    True
    """
    if not _active(p, training):
        return input
    if input.ndim < 2:
        raise ValueError(f"feature_alpha_dropout takes input of at least 2 dimensions, got shape {input.shape}")
    return _alpha(input, 2, p, generator)


def _alpha(x: Any, leading: int, p: float, generator: random.Generator | None) -> Any:
    if p == 1:
        return x * 0.0
    kept = _mask(x, leading, p, generator) != 0
    scale = ((1 - p) * (1 + p * _LOWEST * _LOWEST)) ** -0.5
    return where(kept._data, x, x.dtype.type(_LOWEST)) * scale - scale * _LOWEST * p
