"""Raw 3-D convolution operators on arrays, by the 2-D ones: depth becomes images and channels.  No autograd here.

For each output slice o the T input slices that its windows meet are laid behind one another as channels, (c, t), beside
the filters' own (c, t); then all slices of all images are images of one 2-D convolution over C*T channels.  So each
output is one sum, rounded once, by whatever 2-D algorithm suits H x W, Winograd's too, and groups stay together:

    x (N, C, D, H, W)  --unfold depth-->  (N*O, C*T, H, W)  --conv2d, w as (K, C/g*T, R, S)-->  (N*O, K, P, Q)

wgrad takes the same windows.  dgrad unfolds dy: input slice d meets the output slices (d + front - t*dilation)/stride,
of the taps t for which that is whole; these are the same for every stride-th d, so there is one 2-D dgrad over K*T'
filters for each remainder, and none multiplies zeros.

Nothing is laid out anew where depth is a whole window, where filters are T x 1 x 1 or 1 x 1 x S in unpadded planes of
stride 1 (then two of the three axes are one), 1 x 1 x 1 among them.  Else slices are taken in parts, whose copies fit
half of `pycnn.use_workspace_limit`, or 64 MiB where that says nothing; at least one slice at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from pycnn.algorithms import of_call, use_workspace_limit, workspace_limit
from pycnn.arrays import copied, module_of
from pycnn.backends.reference import volume
from pycnn.custom.dispatch import answering, place_of
from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import check_algo, expect_rank, expect_shape
from pycnn.shape import Conv2dShape, whole
from pycnn.spatial import Conv3dShape, each, sides_of

Ints = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]

_PART = 2**26  # bytes


def conv3d_fprop(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Array:
    """Convolve the volumes `x` with the filters `w`.

        y[n, k, o, p, q] = b[k] + sum over c, t, r, s of w[k, c, t, r, s] * x[n, c, d, h, v] with
            d = o*stride_d - front + t*dilation_d, h = p*stride_h - top + r*dilation_h, v = q*stride_w - left + ...

    Args:
        x: input, (N, C, D, H, W); float16, bfloat16, float32 or float64.
        w: filters, (K, C // groups, T, R, S), of the same dtype.
        b: bias, (K,), or None; of x's dtype, or float32 beside 16 bits.
        stride, dilation: an int or three (depth, height, width), at least 1.
        padding: an int, three, a pair for each axis, six, "same" or "valid".
        groups: number of independent groups of channels.
        algo, accuracy, precision: of the 2-D convolutions, as in `conv2d_fprop`.

    Returns:
        (N, K, O, P, Q) with O = (D + front + back - dilation_d*(T - 1) - 1) // stride_d + 1.

    Raises:
        TypeError, ValueError: as `conv2d_fprop`.

    >>> import numpy as np
    >>> conv3d_fprop(np.ones((1, 1, 3, 2, 2)), np.ones((1, 1, 2, 2, 2))).ravel()
    array([8., 8.])
    """
    check_algo(algo)
    if accuracy is not None or precision is not None:
        with of_call(accuracy, precision):
            return conv3d_fprop(x, w, b, stride, padding, dilation, groups, algo=algo)
    call = Call("b", per_channel=("b",), x=x, w=w, b=b)
    x, w, b = call.arrays
    s = _shape(x.shape, w.shape, stride, padding, dilation, groups)
    if b is not None:
        expect_shape("b", b.shape, (s.K,), "one value a filter, shape")
    if _is_oracle(call, algo):
        return call.back(volume.conv3d_fprop(x, w, b, s.stride, s.padding, s.dilation, s.groups))
    conv, flat = answering(call.backend, algo), _flat(s)
    if flat is not None:
        left, right = x.reshape(flat.x_shape), w.reshape(flat.w_shape)
        return call.back(conv.conv2d_fprop(left, right, b, *_how(flat), algo=algo).reshape(s.y_shape))
    planes = _planes(s)
    filters = w.reshape(s.K, s.C // s.groups * s.window[0], *s.window[1:])
    y = module_of(x).empty(s.y_shape, x.dtype)
    for images, slices, rest in _parts(s.N, s.out[0], _bytes(s, s.C * s.window[0], s.K, x)):
        windows = _windows(call, x[images], s, slices)
        with use_workspace_limit(rest):
            part = conv.conv2d_fprop(windows, filters, b, *planes, algo=algo)
        y[images, :, slices] = _by_channel(part, y[images, :, slices].shape)
    return call.back(y)


def conv3d_dgrad(
    dy: Array,
    w: Array,
    x_shape: Sequence[int],
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Array:
    """Gradient of a 3-D convolution with respect to its input.

    Args:
        dy: gradient of the output, (N, K, O, P, Q).
        w: filters, (K, C // groups, T, R, S).
        x_shape: (N, C, D, H, W) of the input.
        stride, padding, dilation, groups, algo, accuracy, precision: as in `conv3d_fprop`.

    Returns:
        dx of shape `x_shape`.

    Raises:
        TypeError, ValueError: as `conv3d_fprop`; also a `dy` whose shape is not the convolution's output.

    >>> import numpy as np
    >>> conv3d_dgrad(np.ones((1, 1, 2, 1, 1)), np.ones((1, 1, 2, 1, 1)), (1, 1, 3, 1, 1)).ravel()
    array([1., 2., 1.])
    """
    check_algo(algo)
    if accuracy is not None or precision is not None:
        with of_call(accuracy, precision):
            return conv3d_dgrad(dy, w, x_shape, stride, padding, dilation, groups, algo=algo)
    call = Call(dy=dy, w=w)
    dy, w = call.arrays
    s = _shape(_five("x_shape", x_shape), w.shape, stride, padding, dilation, groups)
    expect_shape("dy", dy.shape, s.y_shape)
    if _is_oracle(call, algo):
        return call.back(volume.conv3d_dgrad(dy, w, s.x_shape, s.stride, s.padding, s.dilation, s.groups))
    conv, flat = answering(call.backend, algo), _flat(s)
    if flat is not None:
        left, right = dy.reshape(flat.y_shape), w.reshape(flat.w_shape)
        return call.back(conv.conv2d_dgrad(left, right, flat.x_shape, *_how(flat), algo=algo).reshape(s.x_shape))
    pixels, planes = s.out[1] * s.out[2], _planes(s)
    dx = module_of(dy).empty(s.x_shape, dy.dtype)
    for first in range(min(s.stride[0], s.size[0])):  # these and every stride-th slice from each on meet the same taps
        mine = dx[:, :, first :: s.stride[0]]
        taps = [t for t in range(s.window[0]) if (first + s.padding[0] - t * s.dilation[0]) % s.stride[0] == 0]
        if not taps:
            mine[...] = 0
            continue
        step = taps[1] - taps[0] if len(taps) > 1 else 1
        filters = copied(w[:, :, taps[0] : taps[-1] + 1 : step][:, :, ::-1].transpose(0, 2, 1, 3, 4), False)
        filters = filters.reshape(s.K * len(taps), s.C // s.groups, *s.window[1:])
        ahead = (first + s.padding[0] - taps[-1] * s.dilation[0]) // s.stride[0]  # where the last tap meets dy
        apart = step * s.dilation[0] // s.stride[0] if len(taps) > 1 else 1
        for images, slices, rest in _parts(s.N, mine.shape[2], _bytes(s, s.C, s.K * len(taps), dy)):
            n, count = images.stop - images.start, slices.stop - slices.start
            flat_dy = dy[images].reshape(n, s.K, s.out[0], pixels)
            how = (len(taps), 1), (1, 1), (-ahead - slices.start, 0), (apart, 1), (count, pixels), True
            met = call.backend.unfold2d(flat_dy, *how).reshape(n * count, s.K * len(taps), *s.out[1:])
            with use_workspace_limit(rest):
                part = conv.conv2d_dgrad(met, filters, (n * count, s.C, *s.size[1:]), *planes, algo=algo)
            mine[images, :, slices] = _by_channel(part, (n, s.C, count, *s.size[1:]))
    return call.back(dx)


def conv3d_wgrad(
    dy: Array,
    x: Array,
    w_shape: Sequence[int],
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Array:
    """Gradient of a 3-D convolution with respect to its filters.

    Args:
        dy: gradient of the output, (N, K, O, P, Q).
        x: the input, (N, C, D, H, W).
        w_shape: (K, C // groups, T, R, S) of the filters.
        stride, padding, dilation, groups, algo, accuracy, precision: as in `conv3d_fprop`.

    Returns:
        dw of shape `w_shape`.  What is computed in parts is added in their order, in float32 where arrays have 16 bits.

    Raises:
        TypeError, ValueError: as `conv3d_dgrad`.

    >>> import numpy as np
    >>> conv3d_wgrad(np.ones((1, 1, 2, 1, 1)), np.arange(3.0).reshape(1, 1, 3, 1, 1), (1, 1, 2, 1, 1)).ravel()
    array([1., 3.])
    """
    check_algo(algo)
    if accuracy is not None or precision is not None:
        with of_call(accuracy, precision):
            return conv3d_wgrad(dy, x, w_shape, stride, padding, dilation, groups, algo=algo)
    call = Call(dy=dy, x=x)
    dy, x = call.arrays
    s = _shape(x.shape, _five("w_shape", w_shape), stride, padding, dilation, groups)
    expect_shape("dy", dy.shape, s.y_shape)
    if _is_oracle(call, algo):
        return call.back(volume.conv3d_wgrad(dy, x, s.w_shape, s.stride, s.padding, s.dilation, s.groups))
    conv, flat = answering(call.backend, algo), _flat(s)
    if flat is not None:
        left, right = dy.reshape(flat.y_shape), x.reshape(flat.x_shape)
        return call.back(conv.conv2d_wgrad(left, right, flat.w_shape, *_how(flat), algo=algo).reshape(s.w_shape))
    parts = list(_parts(s.N, s.out[0], _bytes(s, s.C * s.window[0], s.K, x)))
    if len(parts) > 1:
        call.widen()
        dy, x = call.arrays
    dw = None
    for images, slices, rest in parts:
        windows = _windows(call, x[images], s, slices)
        gradient = copied(dy[images, :, slices].transpose(0, 2, 1, 3, 4), False)
        gradient = gradient.reshape(windows.shape[0], s.K, *s.out[1:])
        filters = (s.K, s.C // s.groups * s.window[0], *s.window[1:])
        with use_workspace_limit(rest):
            part = conv.conv2d_wgrad(gradient, windows, filters, *_planes(s), algo=algo)
        dw = part if dw is None else call.backend.add(dw, part)
    return call.back(module_of(x).zeros(s.w_shape, x.dtype) if dw is None else dw.reshape(s.w_shape))


def _shape(
    x_shape: Sequence[int], w_shape: Sequence[int], stride: Ints, padding: Padding, dilation: Ints, groups: int
) -> Conv3dShape:
    expect_rank("w", w_shape, 5, "(K, C/groups, T, R, S)")
    steps, reach = each("stride", stride, 1, 3), each("dilation", dilation, 1, 3)
    sides = sides_of(padding, tuple(w_shape[2:]), steps, reach)
    return Conv3dShape.of(tuple(x_shape), tuple(w_shape), steps, sides, reach, whole("groups", groups, 1))


def _five(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 5:
        raise ValueError(f"{name} must be five ints, got {shape!r}")
    return tuple([whole(f"{name}[{i}]", size, 0) for i, size in enumerate(shape)])


def _is_oracle(call: Call, algo: str) -> bool:
    """Whether the reference computes it, in its one way."""
    return place_of(call.backend) == "reference" and algo in ("auto", "direct")


def _flat(s: Conv3dShape) -> Conv2dShape | None:
    """The 2-D convolution of the same arrays, seen with four axes, if there is one."""
    (d, h, w), (t, r, _), group = s.size, s.window, s.C // s.groups
    plain = [s.stride[i] == 1 and s.padding[2 * i : 2 * i + 2] == (0, 0) for i in range(3)]
    if s.out[0] == 1 and t == d and s.dilation[0] == 1 and s.padding[:2] == (0, 0):
        return Conv2dShape.of((s.N, s.C * d, h, w), (s.K, group * t, *s.window[1:]), *_planes(s))
    if s.window[1:] == (1, 1) and plain[1] and plain[2]:
        how = (s.stride[0], 1), (*s.padding[:2], 0, 0), (s.dilation[0], 1), s.groups
        return Conv2dShape.of((s.N, s.C, d, h * w), (s.K, group, t, 1), *how)
    if (t, r) == (1, 1) and plain[0] and plain[1]:
        how = (1, s.stride[2]), (0, 0, *s.padding[4:]), (1, s.dilation[2]), s.groups
        return Conv2dShape.of((s.N, s.C, d * h, w), (s.K, group, 1, s.window[2]), *how)
    return None


def _how(flat: Conv2dShape) -> tuple[Any, ...]:
    return flat.stride, flat.padding, flat.dilation, flat.groups


def _planes(s: Conv3dShape) -> tuple[Any, ...]:
    """Stride, padding, dilation and groups of the 2-D convolutions of slices."""
    return s.stride[1:], s.padding[2:], s.dilation[1:], s.groups


def _bytes(s: Conv3dShape, inputs: int, outputs: int, like: Array) -> int:
    """What one slice of a part takes: `inputs` channels of H x W and `outputs` of P x Q."""
    itemsize: int = like.dtype.itemsize
    return (inputs * math.prod(s.size[1:]) + outputs * math.prod(s.out[1:])) * itemsize


def _parts(images: int, depth: int, slice_bytes: int) -> Iterator[tuple[slice, slice, int | None]]:
    """Whole images, or slices of one, whose copies fit; and the workspace that is left to a convolution of them."""
    limit = workspace_limit()
    fitting = max(1, (_PART if limit is None else limit // 2) // slice_bytes)
    together, deep = max(1, fitting // depth), min(fitting, depth)
    for n in range(0, images, together):
        for d in range(0, depth, deep):
            part = slice(n, min(images, n + together)), slice(d, min(depth, d + deep))
            taken = (part[0].stop - n) * (part[1].stop - d) * slice_bytes
            yield *part, None if limit is None else max(0, limit - taken)


def _windows(call: Call, x: Array, s: Conv3dShape, slices: slice) -> Array:
    """What the windows of these output slices meet, (n*slices, C*T, H, W)."""
    n, count, pixels = x.shape[0], slices.stop - slices.start, s.size[1] * s.size[2]
    before = s.padding[0] - slices.start * s.stride[0]
    how = (s.window[0], 1), (s.stride[0], 1), (before, 0), (s.dilation[0], 1), (count, pixels), True
    windows = call.backend.unfold2d(x.reshape(n, s.C, s.size[0], pixels), *how)
    return windows.reshape(n * count, s.C * s.window[0], *s.size[1:])


def _by_channel(part: Array, shape: tuple[int, ...]) -> Array:
    """(n*slices, K, P, Q) as (n, K, slices, P, Q), a view."""
    n, k, count, p, q = shape
    return part.reshape(n, count, k, p, q).transpose(0, 2, 1, 3, 4)
