"""Raw interpolation and sampling on arrays: validate, call the backend.  No autograd here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import axis_of, expect_rank, expect_shape
from pycnn.resampling import Taps
from pycnn.shape import whole

Shape3 = tuple[int, int, int]


def resample(x: Array, taps: Mapping[int, Taps]) -> Array:
    """Axes made anew, each element a weighted sum of neighbours: interpolation of any kind, and its gradient.

        y[..., i, ...] = sum over t < count[i] of weight[t, i] * x[..., start[i] + t, ...]    for each axis in turn

    Args:
        x: any shape.
        taps: by axis, its table; other axes stay as they are.

    Returns:
        y, with as many elements along each axis as its table says.

    Raises:
        TypeError: not an array, an unsupported dtype, or no tables.
        ValueError: an axis that x does not have, or a table for an axis of another size.

    >>> import numpy as np
    >>> from pycnn.resampling import interpolation_taps
    >>> resample(np.array([[0.0, 4.0]]), {1: interpolation_taps("linear", 2, 4)})
    array([[0., 1., 3., 4.]])
    """
    call = Call(x=x)
    rank = len(call.arrays[0].shape)
    if not isinstance(taps, Mapping) or not all(isinstance(one, Taps) for one in taps.values()) or not taps:
        raise TypeError(f"taps must be a dict of one or more pycnn.resampling.Taps by axis, got {taps!r:.60}")
    wanted = {axis_of("an axis of taps", axis, rank): table for axis, table in taps.items()}
    shape = call.arrays[0].shape
    for axis, table in wanted.items():
        if table.size != shape[axis]:
            raise ValueError(f"taps of axis {axis} are for a size of {table.size}, and x has shape {tuple(shape)}")
    needed = {axis: table for axis, table in wanted.items() if not table.is_identity} or wanted
    outer = sorted(axis for axis in needed if axis < rank - 2)
    inner = [needed.get(rank - 2) if rank > 1 else None, needed.get(rank - 1)]
    if len(outer) + any(inner) > 1:
        call.widen()  # rounded once, at the end
    (y,) = call.arrays
    for axis in outer:
        before, after = y.shape[:axis], y.shape[axis + 1 :]
        rows = y.reshape(math.prod(before), y.shape[axis], math.prod(after))
        y = call.backend.resample(rows, needed[axis], None).reshape(*before, needed[axis].out, *after)
    if any(inner):
        given = y.reshape(1, *y.shape) if rank == 1 else y
        y = call.backend.resample(given, *inner)
        y = y.reshape(y.shape[1:]) if rank == 1 else y
    return call.back(y)


def sample(x: Array, image: Array, index: Array, weight: Array) -> Array:
    """Points that are weighted sums of an image's elements, the same ones in each of its channels.

        y[r, c, p] = sum over k of weight[r, k, p] * x[image[r], c, index[r, k, p]]

    Args:
        x: (N, C, S): N images, whose pixels lie one after another.
        image: (R,) integers, the image that each row of points looks at.
        index: (R, K, P) integers, the pixels; -1 takes no part.
        weight: (R, K, P).

    Returns:
        y, (R, C, P).

    Raises:
        TypeError: not arrays, dtypes that differ or are unsupported, indices that are no integers.
        ValueError: shapes that do not fit.
        IndexError: a number of no image, or a pixel outside of it (on the CPU; a GPU passes over such ones).

    >>> import numpy as np
    >>> x = np.arange(6.0).reshape(1, 1, 6)
    >>> sample(x, np.array([0]), np.array([[[0, 4], [1, -1]]]), np.full((1, 2, 2), 0.5))
    array([[[0.5, 2. ]]])
    """
    call = Call(x=x, weight=weight)
    call.widen()
    x, weight = call.arrays
    expect_rank("x", x.shape, 3, "(N, C, S)")
    image, index = _places(call, image, index)
    expect_shape("weight", weight.shape, index.shape, "index's shape")
    return call.back(call.backend.sample_fwd(x, image, index, weight))


def sample_backward_input(dy: Array, image: Array, index: Array, weight: Array, x_shape: Sequence[int]) -> Array:
    """Gradient of `sample` with respect to x: each point's goes to its pixels, summed in a fixed order.

        dx[n, c, s] = sum of weight[r, k, p] * dy[r, c, p] over the r, k, p with image[r] = n and index[r, k, p] = s

    Args:
        dy: (R, C, P).
        image, index, weight: as in `sample`.
        x_shape: (N, C, S).

    Returns:
        dx, of shape `x_shape`.

    Raises:
        TypeError, ValueError, IndexError: as `sample`.

    >>> import numpy as np
    >>> sample_backward_input(np.ones((1, 1, 1)), np.array([0]), np.array([[[2]]]), np.full((1, 1, 1), 3.0), (1, 1, 4))
    array([[[0., 0., 3., 0.]]])
    """
    call = Call(dy=dy, weight=weight)
    call.widen()
    dy, weight = call.arrays
    expect_rank("dy", dy.shape, 3, "(R, C, P)")
    image, index = _places(call, image, index)
    expect_shape("weight", weight.shape, index.shape, "index's shape")
    if not isinstance(x_shape, (tuple, list)) or len(x_shape) != 3:
        raise ValueError(f"x_shape must be (N, C, S), got {x_shape!r}")
    n, c, s = (whole(f"x_shape[{i}]", size, 0) for i, size in enumerate(x_shape))
    expect_shape("dy", dy.shape, (index.shape[0], c, index.shape[2]))
    return call.back(call.backend.sample_dx(dy, image, index, weight, (n, c, s)))


def sample_backward_weight(dy: Array, x: Array, image: Array, index: Array) -> Array:
    """Gradient of `sample` with respect to its weights; 0 where the index is -1.

        dw[r, k, p] = sum over c of dy[r, c, p] * x[image[r], c, index[r, k, p]]

    Args:
        dy: (R, C, P).
        x, image, index: as in `sample`.

    Returns:
        dw, of index's shape.

    Raises:
        TypeError, ValueError, IndexError: as `sample`.

    >>> import numpy as np
    >>> x = np.arange(6.0).reshape(1, 2, 3)
    >>> sample_backward_weight(np.ones((1, 2, 1)), x, np.array([0]), np.array([[[1]]]))
    array([[[5.]]])
    """
    call = Call(dy=dy, x=x)
    call.widen()
    dy, x = call.arrays
    expect_rank("dy", dy.shape, 3, "(R, C, P)")
    expect_rank("x", x.shape, 3, "(N, C, S)")
    image, index = _places(call, image, index)
    expect_shape("dy", dy.shape, (index.shape[0], x.shape[1], index.shape[2]))
    return call.back(call.backend.sample_dw(dy, x, image, index))


def _places(call: Call, image: Array, index: Array) -> tuple[Any, Any]:
    image, index = call.index("image", image), call.index("index", index)
    expect_rank("index", index.shape, 3, "(R, K, P)")
    expect_shape("image", image.shape, index.shape[:1], "a number for each row of index,")
    return image, index
