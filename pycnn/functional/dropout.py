"""Dropout without a stored mask: which elements stay is a function of (seed, offset), computed again in backward."""

from __future__ import annotations

from typing import Any

from pycnn import ops, random
from pycnn.arrays import is_host
from pycnn.backends.replay import active
from pycnn.functional._arrays import expect_arrays
from pycnn.graph import Function, Variable
from pycnn.ops._checks import flag, real

__all__ = ["dropout"]

Array = Any


class Dropout(Function):
    """y = x * m / (1 - p); linear in x and diagonal, so the same call is its backward, and the backward of that.

    `counter` is None or a device's own offset into the stream, to which `offset` is added.
    """

    @staticmethod
    def forward(ctx: Any, x: Array, p: float, seed: int, offset: int, counter: Array | None) -> Array:
        ctx.how = p, seed, offset, counter
        return ops.dropout(x, p, seed, offset, counter)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Dropout.apply(dy, *ctx.how), None, None, None, None


def dropout(x: Any, p: float = 0.5, training: bool = True, generator: random.Generator | None = None) -> Any:
    """Set each element to 0 with probability `p` and scale the others by 1 / (1 - p).

    Args:
        x: a Tensor or an array.
        p: probability of a zero, 0 to 1.
        training: False returns `x` as it is.
        generator: where the random numbers come from; pycnn's own by default (see `pycnn.manual_seed`).

    Raises:
        ValueError: `p` outside [0, 1].

    Reference: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.

    >>> import numpy as np, pycnn
    >>> sorted({float(v) for v in pycnn.functional.dropout(np.ones(100), 0.5)})
    [0.0, 2.0]
    """
    expect_arrays(x=x)
    p = real("p", p)
    if not 0 <= p <= 1:
        raise ValueError(f"p must be a probability, between 0 and 1, got {p}")
    if not flag("training", training) or p == 0:
        return x
    words = 1
    for size in x.shape:
        words *= size
    stream = generator or random.default_generator
    replay = active()
    if replay is not None and not is_host(x._data if isinstance(x, Variable) else x):
        return Dropout.apply(x, p, *replay.reserve(stream, words))
    return Dropout.apply(x, p, *stream.reserve(words), None)
