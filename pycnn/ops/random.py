"""Raw operators on the random stream, Philox4x32-10: the same numbers on every backend, whatever the threads.

A place in the stream is a 64-bit seed and an offset, counted in blocks of four words.  Whoever draws keeps count:
n words take ceil(n/4) blocks.

Reference: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import numpy as np

from pycnn import backends
from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import number, word64
from pycnn.shape import whole


def philox_uint32(count: int, seed: int, offset: int = 0) -> np.ndarray:
    """`count` words of the stream: block i is the counter offset + i, encrypted with the seed.

    Args:
        count: at least 0.
        seed, offset: 0 .. 2^64 - 1.

    Returns:
        uint32, (count,).

    Raises:
        TypeError: not ints.  ValueError: out of range.

    >>> [hex(word) for word in philox_uint32(2, seed=0)]
    ['0x6627e8d5', '0xe169c58d']
    """
    chosen = backends.selected()
    backend = backends.get("cpu" if chosen in (None, "cuda") else chosen)  # the words are the host's on every backend
    return backend.philox_uint32(whole("count", count, 0), word64("seed", seed), word64("offset", offset))


def dropout(x: Array, p: float, seed: int, offset: int = 0, counter: Array | None = None) -> Array:
    """Each element set to 0 with probability `p`, the others divided by 1 - p.

        y[i] = x[i] / (1 - p) if word i of the stream >= p * 2^32, else 0          (i counts in C order)

    The same call on dy is the gradient: the stream gives the same mask again, so none is stored.

    Args:
        x: any shape; float16, bfloat16, float32 or float64.
        p: probability of 0, from 0 to 1.
        seed, offset: the place in the stream, 0 .. 2^64 - 1; the call uses ceil(size/4) blocks.
        counter: on a GPU, an array of one int64 to add to `offset` when the kernel runs; None for 0.

    Returns:
        An array of x's shape.

    Raises:
        TypeError: not an array, an unsupported dtype, or parameters of a wrong type.
        ValueError: a parameter out of range.

    Reference: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014 (the
    "inverted" form, scaled in training).

    >>> import numpy as np
    >>> dropout(np.ones(4), 0.5, seed=0)
    array([0., 2., 2., 2.])
    """
    call = Call(x=x)
    (x,) = call.arrays
    place = number("p", p, 0.0, 1.0), word64("seed", seed), word64("offset", offset)
    if counter is None:
        return call.back(call.backend.dropout(x, *place))
    return call.back(call.backend.dropout(x, *place, counter=counter))
