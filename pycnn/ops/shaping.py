"""Raw operators that move elements, and the sum of two arrays."""

from __future__ import annotations

from collections.abc import Sequence

from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import axis_of, expect_image, expect_shape, real
from pycnn.ops.pool import NumericPadding
from pycnn.shape import check_elements, normalize_padding


def pad(x: Array, padding: NumericPadding, value: float = 0.0) -> Array:
    """`x` with `value` around its rows and columns.

    Args:
        x: (N, C, H, W); float16, bfloat16, float32 or float64.
        padding: an int, (h, w), ((top, bottom), (left, right)) or (top, bottom, left, right).
        value: any number, NaN and infinities included.

    Returns:
        (N, C, top + H + bottom, left + W + right).

    Raises:
        TypeError: not an array, an unsupported dtype, or a value that is no number.
        ValueError: a wrong rank, or negative padding.

    >>> import numpy as np
    >>> pad(np.ones((1, 1, 1, 1)), (0, 1, 0, 2))[0, 0]
    array([[1., 0., 0.],
           [0., 0., 0.]])
    """
    call = Call(x=x)
    (x,) = call.arrays
    expect_image("x", x.shape)
    if isinstance(padding, str):
        raise ValueError(f"padding must be numbers, got {padding!r}")
    top, bottom, left, right = normalize_padding(padding, (1, 1))
    n, c, h, w = x.shape
    check_elements("the output", (n, c, top + h + bottom, left + w + right))
    return call.back(call.backend.pad2d(x, (top, bottom, left, right), real("value", value)))


def concat(arrays: Sequence[Array], axis: int = 1) -> Array:
    """The arrays one after another along `axis` (channels, if not said).

    Args:
        arrays: at least one; of one library and dtype, and of one shape but for `axis`.
        axis: negative counts from the end.

    Returns:
        An array whose size along `axis` is the sum of theirs.

    Raises:
        TypeError: not arrays, or arrays that do not go together.
        ValueError: no arrays, shapes that disagree, or an axis that they do not have.

    >>> import numpy as np
    >>> concat([np.zeros((1, 1)), np.ones((1, 2))])
    array([[0., 1., 1.]])
    """
    if not isinstance(arrays, (tuple, list)) or not arrays:
        raise ValueError(f"arrays must be a list or tuple of at least one array, got {arrays!r:.60}")
    call = Call(**{f"arrays[{i}]": array for i, array in enumerate(arrays)})
    first = call.arrays[0].shape
    place = axis_of("axis", axis, len(first))
    for i, array in enumerate(call.arrays):
        if len(array.shape) != len(first) or any(size != first[d] for d, size in enumerate(array.shape) if d != place):
            raise ValueError(f"arrays[{i}] must have the shape {first} but for axis {place}, got {array.shape}")
    return call.back(call.backend.concat(call.arrays, place))


def add(a: Array, b: Array) -> Array:
    """a + b, of one shape.

    Args:
        a, b: any shape, of one library and dtype.

    Returns:
        An array of that shape.

    Raises:
        TypeError: not arrays, or arrays that do not go together.  ValueError: different shapes.

    >>> import numpy as np
    >>> add(np.array([1.0]), np.array([2.0]))
    array([3.])
    """
    call = Call(a=a, b=b)
    expect_shape("b", call.arrays[1].shape, call.arrays[0].shape, "a's shape")
    return call.back(call.backend.add(*call.arrays))
