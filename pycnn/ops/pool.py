"""Raw pooling operators on arrays: validate, build the shape, call the backend.  No autograd here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.arrays import module_of
from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import expect_image, expect_rank, expect_shape, flag, integer, shape_of
from pycnn.ops.conv import IntPair
from pycnn.shape import Padding, Pair, Pool2dShape, check_elements, normalize_padding, pair, whole

NumericPadding = int | Sequence[int] | Sequence[Sequence[int]]
OutSize = int | Sequence[int | None] | None


def max_pool2d(
    x: Array,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: NumericPadding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: bool = True,
) -> tuple[Array, Array | None]:
    """The largest value of each window, and where it is.

        y[n, c, p, q] = max over r, s of
            x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w]

    Args:
        x: input, (N, C, H, W).  Padding counts as -inf.  NaN is larger than everything, the last NaN of a window wins.
        kernel_size: window, an int or a pair (height, width).
        stride: an int or a pair; the window's size if None.
        padding: an int, (h, w), ((top, bottom), (left, right)) or (top, bottom, left, right); at most half the window.
        dilation: distance between a window's elements; 1 means none.
        ceil_mode: also keep the last window that hangs over the edge, unless it would begin in the padding there.
        return_indices: without them the backend need not keep track of where the maxima are.

    Returns:
        y, (N, C, P, Q) with P = (H + top + bottom - dilation_h*(R - 1) - 1) // stride_h + 1, the division rounded up in
        ceil_mode; and indices, int64 of the same shape: h*W + w of the first maximum, -1 for a window without pixels.
        None in their place without `return_indices`.

    Raises:
        TypeError: not an array, an unsupported dtype, or a parameter of a wrong type.
        ValueError: a wrong rank, a parameter out of range, padding over half the window, or an output smaller than 1.

    >>> import numpy as np
    >>> y, indices = max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    >>> y[0, 0], indices[0, 0]
    (array([[ 5.,  7.],
           [13., 15.]]), array([[ 5,  7],
           [13, 15]]))
    """
    call = Call(x=x)
    (x,) = call.arrays
    shape = _shape("x", x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    y, indices = call.backend.max_pool2d_fwd(
        x,
        shape.kernel,
        shape.stride,
        shape.padding,
        shape.dilation,
        shape.ceil_mode,
        flag("return_indices", return_indices),
    )
    return call.back(y), None if indices is None else call.back(indices)


def max_pool2d_backward(
    dy: Array,
    indices: Array,
    x_shape: Sequence[int],
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: NumericPadding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Gradient of `max_pool2d`: each window's goes to its maximum, summed in a fixed order.

        dx[n, c].flat[i] = sum of dy[n, c, p, q] over the p, q with indices[n, c, p, q] == i

    Args:
        dy: gradient of y, (N, C, P, Q).
        indices: integers, of dy's shape, as `max_pool2d` gave them.
        x_shape: (N, C, H, W) of the input.
        kernel_size, stride, padding, dilation, ceil_mode: as in `max_pool2d`.

    Returns:
        dx of shape `x_shape`.

    Raises:
        TypeError, ValueError: as `max_pool2d`; also a dy or indices of another shape, or an index outside the plane.

    >>> import numpy as np
    >>> max_pool2d_backward(np.full((1, 1, 1, 1), 5.0), np.full((1, 1, 1, 1), 2), (1, 1, 2, 2), 2)[0, 0]
    array([[0., 0.],
           [5., 0.]])
    """
    call = Call(dy=dy)
    (dy,) = call.arrays
    sizes = shape_of("x_shape", x_shape)
    shape = _shape("x_shape", sizes, kernel_size, stride, padding, dilation, ceil_mode)
    expect_shape("dy", dy.shape, shape.y_shape)
    found = _indices(call, indices, shape.y_shape, sizes)
    try:
        dx = call.backend.max_pool2d_bwd(dy, found, sizes, shape.kernel, shape.stride, shape.padding, shape.dilation)
    except IndexError:
        raise _outside(found, sizes) from None
    return call.back(dx)


def plane_take(x: Array, indices: Array) -> Array:
    """Elements of each (n, c) plane by flat index: y[n, c, p, q] = x[n, c].flat[indices[n, c, p, q]], 0 where it is -1.

    Args:
        x: (N, C, H, W).
        indices: integers, (N, C, P, Q), each h*W + w or -1.

    Returns:
        y of the shape of `indices`.

    Raises:
        TypeError: not arrays, or indices that are no integers.
        ValueError: a wrong rank, another N or C, or an index outside the plane.

    >>> import numpy as np
    >>> plane_take(np.arange(4.0).reshape(1, 1, 2, 2), np.array([[[[3, -1]]]]))
    array([[[[3., 0.]]]])
    """
    call = Call(x=x)
    (x,) = call.arrays
    expect_image("x", x.shape)
    found = _indices(call, indices, None, x.shape)
    try:
        y = call.backend.plane_take(x, found)
    except IndexError:
        raise _outside(found, x.shape) from None
    return call.back(y)


def plane_put(x: Array, indices: Array, size: IntPair) -> Array:
    """Elements of each (n, c) plane at their flat index: y[n, c].flat[indices[n, c, p, q]] = x[n, c, p, q], else 0.

    Args:
        x: (N, C, P, Q).
        indices: integers of x's shape, each h*W + w, or -1 for nowhere.  Of several for one place the last stays.
        size: (H, W) of the planes.

    Returns:
        y, (N, C, H, W).  On a GPU, where looking at every index would mean waiting for it, one outside the plane counts
        as -1.

    Raises:
        TypeError: not arrays, or indices that are no integers.
        ValueError: a wrong rank, indices of another shape, or an index outside the plane.

    >>> import numpy as np
    >>> plane_put(np.array([[[[5.0, 6.0, 7.0]]]]), np.array([[[[3, -1, 0]]]]), 2)[0, 0]
    array([[7., 0.],
           [0., 5.]])
    """
    call = Call(x=x)
    call.widen()
    (x,) = call.arrays
    expect_image("x", x.shape)
    height, width = pair("size", size, 1)
    n, c = x.shape[:2]
    check_elements("the output", (n, c, height, width))
    found = _indices(call, indices, x.shape, x.shape)
    module, pixels = module_of(x), height * width
    if module is np and found.size and not (found.min() >= -1 and found.max() < pixels):
        raise _outside(found, (n, c, height, width))
    planes = module.arange(n * c).reshape(n, c, 1, 1) * pixels
    places = module.where((found < 0) | (found >= pixels), n * c * pixels, planes + found)
    put = _put if module is np else _put_sorted
    y = put(places.reshape(-1), x.reshape(-1), n * c * pixels)
    return call.back(y.reshape(n, c, height, width))


def _put(places: Array, values: Array, size: int) -> Array:
    """Zeros of `size` with values[i] at places[i]; NumPy assigns in order, so the last one stays."""
    y = np.zeros(size + 1, values.dtype)
    y[places] = values
    return y[:size]


def _put_sorted(places: Array, values: Array, size: int) -> Array:
    """The same where many threads assign in any order: each place looks for the last value that is sorted to it."""
    module = module_of(values)
    if not values.size:
        return module.zeros(size, values.dtype)
    order = module.argsort(places, kind="stable")
    ordered, wanted = places[order], module.arange(size)
    last = (module.searchsorted(ordered, wanted, side="right") - 1).clip(0)
    return module.where(ordered[last] == wanted, values[order[last]], values.dtype.type(0))


def avg_pool2d(
    x: Array,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: NumericPadding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """The mean of each window.

        y[n, c, p, q] = 1/divisor * sum over r, s of x[n, c, p*stride_h - pad_top + r, q*stride_w - pad_left + s]

    Args:
        x: input, (N, C, H, W).  Padding counts as 0.
        kernel_size, stride, padding, ceil_mode: as in `max_pool2d`.
        count_include_pad: whether the divisor counts padding.  What ceil_mode adds beyond the padding never counts.
        divisor_override: the divisor, instead of a count; any int but 0.

    Returns:
        (N, C, P, Q), sizes as in `max_pool2d` without dilation.

    Raises:
        TypeError, ValueError: as `max_pool2d`; also a divisor_override of 0.

    >>> import numpy as np
    >>> avg_pool2d(np.ones((1, 1, 2, 2)), 2, padding=1)[0, 0]
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    call = Call(x=x)
    (x,) = call.arrays
    shape = _shape("x", x.shape, kernel_size, stride, padding, 1, ceil_mode)
    divisor = _divisor(divisor_override)
    include = flag("count_include_pad", count_include_pad)
    return call.back(
        call.backend.avg_pool2d_fwd(x, shape.kernel, shape.stride, shape.padding, shape.ceil_mode, include, divisor)
    )


def avg_pool2d_backward(
    dy: Array,
    x_shape: Sequence[int],
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: NumericPadding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Gradient of `avg_pool2d`: each window's, over its divisor, goes to all its pixels.

    Args:
        dy: gradient of y, (N, C, P, Q).
        x_shape: (N, C, H, W) of the input.
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: as in `avg_pool2d`.

    Returns:
        dx of shape `x_shape`.

    Raises:
        TypeError, ValueError: as `avg_pool2d`; also a dy of another shape than the output's.

    >>> import numpy as np
    >>> avg_pool2d_backward(np.full((1, 1, 1, 1), 4.0), (1, 1, 2, 2), 2)[0, 0]
    array([[1., 1.],
           [1., 1.]])
    """
    call = Call(dy=dy)
    (dy,) = call.arrays
    sizes = shape_of("x_shape", x_shape)
    shape = _shape("x_shape", sizes, kernel_size, stride, padding, 1, ceil_mode)
    divisor = _divisor(divisor_override)
    include = flag("count_include_pad", count_include_pad)
    expect_shape("dy", dy.shape, shape.y_shape)
    return call.back(
        call.backend.avg_pool2d_bwd(
            dy, sizes, shape.kernel, shape.stride, shape.padding, shape.ceil_mode, include, divisor
        )
    )


def adaptive_avg_pool2d(x: Array, output_size: OutSize) -> Array:
    """The mean of each of `output_size` windows spread evenly over the image; size 1 is global average pooling.

        y[n, c, p, q] = mean of x[n, c, floor(p*H/P) : ceil((p + 1)*H/P), floor(q*W/Q) : ceil((q + 1)*W/Q)]

    Args:
        x: input, (N, C, H, W).
        output_size: P and Q: an int or a pair (height, width); None keeps the input's size.

    Returns:
        (N, C, P, Q).

    Raises:
        TypeError, ValueError: not an array, an unsupported dtype, a wrong rank, or an output size under 1.

    >>> import numpy as np
    >>> adaptive_avg_pool2d(np.arange(3.0).reshape(1, 1, 1, 3), (1, 2))
    array([[[[0.5, 1.5]]]])
    """
    call = Call(x=x)
    (x,) = call.arrays
    expect_image("x", x.shape)
    return call.back(call.backend.adaptive_avg_pool2d_fwd(x, _out_size(output_size, x.shape)))


def adaptive_avg_pool2d_backward(dy: Array, x_shape: Sequence[int]) -> Array:
    """Gradient of `adaptive_avg_pool2d`: each window's, over its size, goes to all its pixels.

    Args:
        dy: gradient of y, (N, C, P, Q).
        x_shape: (N, C, H, W) of the input.

    Returns:
        dx of shape `x_shape`.

    Raises:
        TypeError, ValueError: as `adaptive_avg_pool2d`; also a dy whose N or C is not x_shape's.

    >>> import numpy as np
    >>> adaptive_avg_pool2d_backward(np.array([[[[2.0, 4.0]]]]), (1, 1, 1, 3))
    array([[[[1., 3., 2.]]]])
    """
    call = Call(dy=dy)
    (dy,) = call.arrays
    sizes = shape_of("x_shape", x_shape)
    _expect_planes("dy", dy.shape, sizes)
    return call.back(call.backend.adaptive_avg_pool2d_bwd(dy, sizes))


def adaptive_max_pool2d(x: Array, output_size: OutSize, *, return_indices: bool = True) -> tuple[Array, Array | None]:
    """The largest value of each of `output_size` windows spread evenly over the image, and where it is.

    Args:
        x, output_size: as in `adaptive_avg_pool2d`.
        return_indices: as in `max_pool2d`.

    Returns:
        y, (N, C, P, Q), and indices as in `max_pool2d`.

    Raises:
        TypeError, ValueError: as `adaptive_avg_pool2d`.

    >>> import numpy as np
    >>> y, indices = adaptive_max_pool2d(np.array([[[[1.0, 3.0, 2.0]]]]), (1, 2))
    >>> y[0, 0], indices[0, 0]
    (array([[3., 3.]]), array([[1, 1]]))
    """
    call = Call(x=x)
    (x,) = call.arrays
    expect_image("x", x.shape)
    wanted = flag("return_indices", return_indices)
    y, indices = call.backend.adaptive_max_pool2d_fwd(x, _out_size(output_size, x.shape), wanted)
    return call.back(y), None if indices is None else call.back(indices)


def adaptive_max_pool2d_backward(dy: Array, indices: Array, x_shape: Sequence[int]) -> Array:
    """Gradient of `adaptive_max_pool2d`: each window's goes to its maximum, summed in a fixed order.

    Args:
        dy: gradient of y, (N, C, P, Q).
        indices: integers, of dy's shape, as `adaptive_max_pool2d` gave them.
        x_shape: (N, C, H, W) of the input.

    Returns:
        dx of shape `x_shape`.

    Raises:
        TypeError, ValueError: as `adaptive_avg_pool2d_backward`; also an index outside the plane.

    >>> import numpy as np
    >>> adaptive_max_pool2d_backward(np.array([[[[2.0, 4.0]]]]), np.array([[[[1, 1]]]]), (1, 1, 1, 3))
    array([[[[0., 6., 0.]]]])
    """
    call = Call(dy=dy)
    (dy,) = call.arrays
    sizes = shape_of("x_shape", x_shape)
    _expect_planes("dy", dy.shape, sizes)
    found = _indices(call, indices, dy.shape, sizes)
    try:
        dx = call.backend.adaptive_max_pool2d_bwd(dy, found, sizes)
    except IndexError:
        raise _outside(found, sizes) from None
    return call.back(dx)


def _shape(
    name: str,
    x_shape: tuple[int, ...],
    kernel_size: IntPair,
    stride: IntPair | None,
    padding: NumericPadding,
    dilation: IntPair,
    ceil_mode: bool,
) -> Pool2dShape:
    expect_image(name, x_shape)
    kernel = pair("kernel_size", kernel_size, 1)
    steps = kernel if stride is None else pair("stride", stride, 1)
    reach = pair("dilation", dilation, 1)
    return Pool2dShape.of(x_shape, kernel, steps, _padding(padding, kernel), reach, flag("ceil_mode", ceil_mode))


def _padding(padding: NumericPadding, kernel: Pair) -> Padding:
    if isinstance(padding, str):
        raise ValueError(f"padding of a pooling must be numbers, got {padding!r}")
    return normalize_padding(padding, kernel)


def _divisor(divisor: int | None) -> int | None:
    if divisor is None:
        return None
    found = integer("divisor_override", divisor)
    if found == 0 or abs(found) >= 2**53:
        raise ValueError(f"divisor_override must not be 0 and must be below 2**53 in size, got {found}")
    return found


def _out_size(size: OutSize, x_shape: tuple[int, ...]) -> Pair:
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sizes) != 2:
        raise ValueError(f"output_size must be an int, a pair of ints or None, got {size!r}")
    found = [x_shape[2 + i] if one is None else whole("output_size", one, 1) for i, one in enumerate(sizes)]
    check_elements("the output", (*x_shape[:2], *found))
    return found[0], found[1]


def _expect_planes(name: str, shape: tuple[int, ...], x_shape: tuple[int, ...]) -> None:
    expect_image("x_shape", x_shape)
    expect_image(name, shape)
    if shape[:2] != x_shape[:2]:
        raise ValueError(f"{name} must have x_shape's N and C {x_shape[:2]}, got shape {shape}")


def _indices(call: Call, indices: Array, shape: tuple[int, ...] | None, x_shape: tuple[int, ...]) -> Any:
    found = call.index("indices", indices)
    if shape is not None:
        expect_shape("indices", found.shape, shape)
    expect_rank("indices", found.shape, 4, "(N, C, P, Q)")
    if found.shape[:2] != x_shape[:2]:
        raise ValueError(f"indices must have x's N and C {x_shape[:2]}, got shape {found.shape}")
    return found


def _outside(indices: Any, x_shape: tuple[int, ...]) -> ValueError:
    """What to raise when a backend, which looks at every index anyway, met one that is not in its plane."""
    return ValueError(
        f"indices must be between -1 and {x_shape[2] * x_shape[3] - 1} for planes of {x_shape[2]}x{x_shape[3]}, "
        f"got {int(indices.min())} to {int(indices.max())}"
    )
