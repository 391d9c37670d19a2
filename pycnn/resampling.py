"""Interpolation as tables: what each element of an output axis is made of.

Every way to resize an image is the same along each axis by itself (it is separable):

    y[i] = sum over t < count[i] of weight[t, i] * x[start[i] + t]

so a mode is a function from sizes to such a table, and one kernel computes them all.  Its gradient is the same sum with
the transposed table: a gather again, whose order of addition is fixed.

    interpolation_taps    torch.nn.functional.interpolate's modes
    resize_taps           those of ONNX's Resize: other coordinates, other roundings

Tables are made in float64, once for each question; they are compared and remembered by identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Taps", "cubic_weights", "interpolation_taps", "output_positions", "resize_taps"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_REMEMBERED = 256  # tables; a network has some few
_SHORT = 4096  # elements of an axis; 256 tables of such take less than 128 MiB
_FEW, _LONG = 4, 1 << 18  # tables of longer axes, such as sound's, which take a hundred times as long as their use


@dataclass(frozen=True, eq=False)
class Taps:
    """A linear map between axes: y[i] = sum over t < count[i] of weight[t, i] * x[start[i] + t].

    Attributes:
        size: elements of the input axis.
        start: (out,), the first element that counts.
        count: (out,), how many do; 0 gives 0.
        weight: (most, out) in float64, 0 beyond `count`.
    """

    size: int
    start: Integers
    count: Integers
    weight: Floats

    @property
    def out(self) -> int:
        """Elements of the output axis."""
        return len(self.start)

    @property
    def most(self) -> int:
        """The most elements that one is made of."""
        return len(self.weight)

    @staticmethod
    def of(index: Any, weight: Any, size: int) -> Taps:
        """The map with y[i] = sum over k of weight[i, k] * x[index[i, k]].

        Args:
            index: (out, k) integers from 0 below `size`; those of an i may repeat, whose weights are then added.
            weight: (out, k).  A weight of 0 takes no part, so that 0 times infinity does not occur.
            size: elements of the input axis.

        >>> taps = Taps.of([[0, 0], [0, 1]], [[0.5, 0.5], [0.25, 0.75]], 2)
        >>> taps.count.tolist(), taps.weight.T.tolist()
        ([1, 2], [[1.0, 0.0], [0.25, 0.75]])
        """
        index, weight = np.asarray(index, np.int64), np.asarray(weight, np.float64)
        rows = np.broadcast_to(np.arange(len(index))[:, None], index.shape)
        counts = weight != 0
        return _of_entries(rows[counts], index[counts], weight[counts], len(index), size)

    @cached_property
    def transposed(self) -> Taps:
        """The map of gradients, from the output axis to the input axis."""
        number, i = np.nonzero(np.arange(self.most)[:, None] < self.count)
        return _of_entries(self.start[i] + number, i, self.weight[number, i], self.size, self.out)

    @cached_property
    def single(self) -> NDArray[np.float32]:
        """`weight` in float32."""
        return self.weight.astype(np.float32)

    @cached_property
    def is_identity(self) -> bool:
        """Whether y is x."""
        ones = self.size == self.out and self.most == 1 and bool((self.count == 1).all())
        return ones and bool((self.weight == 1).all()) and bool((self.start == np.arange(self.size)).all())


def _of_entries(row: Integers, column: Integers, weight: Floats, out: int, size: int) -> Taps:
    start, end = np.full(out, size), np.zeros(out, np.int64)
    np.minimum.at(start, row, column)
    np.maximum.at(end, row, column + 1)
    count = np.maximum(end - start, 0)
    start = np.where(count > 0, start, 0)
    dense = np.zeros((int(count.max(initial=0)), out))
    np.add.at(dense, (column - start[row], row), weight)
    for array in (start, count, dense):
        array.setflags(write=False)
    return Taps(size, start, count, dense)


def cubic_weights(fraction: Any, a: float = -0.75) -> Floats:
    """Keys's cubic kernel at the four neighbours of a position: at distances 1 + f, f, 1 - f and 2 - f.

    Returns:
        (..., 4)

    Reference: Keys, "Cubic convolution interpolation for digital image processing", 1981; a = -0.75 is PyTorch's.

    >>> cubic_weights(0.5).tolist()
    [-0.09375, 0.59375, 0.59375, -0.09375]
    """
    fraction = np.asarray(fraction, np.float64)
    return _cubic(np.stack([1 + fraction, fraction, 1 - fraction, 2 - fraction], -1), a)


def _cubic(distance: Any, a: float) -> Floats:
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _triangle(distance: Any, a: float) -> Floats:
    return np.maximum(1 - np.abs(distance), 0.0)


_KERNELS = {"linear": (_triangle, 1), "cubic": (_cubic, 2)}  # and how far they reach


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `lru_cache`, but only the last few tables of long axes, and none of still longer ones: they fill memory."""
    short, long = lru_cache(maxsize=_REMEMBERED)(function), lru_cache(maxsize=_FEW)(function)

    @wraps(function)
    def table(mode: str, size: int, out: int, *given: Any, **how: Any) -> Any:
        longest = max(size, out)
        made = short if longest <= _SHORT else long if longest <= _LONG else function
        return made(mode, size, out, *given, **how)

    return table


@_remembered
def interpolation_taps(
    mode: str,
    size: int,
    out: int,
    scale_factor: float | None = None,
    align_corners: bool = False,
    antialias: bool = False,
    precision: str = "float64",
) -> Taps:
    """The table of one axis for a mode of torch.nn.functional.interpolate, named without its number of dimensions.

    Args:
        mode: "nearest", "nearest-exact", "linear", "cubic" or "area".
        size, out: elements before and after, at least 1.
        scale_factor: out / size as the caller put it, where positions are to follow it and not the sizes.
        align_corners: the outermost pixels' centres stay where they are ("linear" and "cubic").
        antialias: widen the kernel where the axis shrinks ("linear" and "cubic").
        precision: "float32" or "float64", in which "nearest" and "nearest-exact" compute positions.  It is the arrays'
            own: a position that is an integer but for its rounding is another pixel in the other precision.

    >>> interpolation_taps("linear", 2, 4).weight.T.tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [1.0, 0.0]]
    """
    place = np.arange(out)
    if mode == "area":
        begin, end = place * size // out, -(-(place + 1) * size // out)
        number = np.arange(int((end - begin).max()))
        inside = number < (end - begin)[:, None]
        weight = np.where(inside, 1 / (end - begin)[:, None], 0.0)
        return Taps.of(np.minimum(begin[:, None] + number, size - 1), weight, size)
    if mode in ("nearest", "nearest-exact"):
        kind = np.dtype(precision).type
        step = kind(1 / scale_factor) if scale_factor is not None else kind(size) / kind(out)
        if mode == "nearest":
            position = place.astype(kind) * step
        else:  # as PyTorch's compiler has it: one multiply-add, rounded once
            position = np.maximum((np.float64(step) * (place + 0.5) - 0.5).astype(kind), 0) + np.float64(0.5)
        # PyTorch floors in float32 whatever the arrays are.
        index = np.minimum(np.floor(position.astype(np.float32)).astype(np.int64), size - 1)
        return Taps.of(index[:, None], np.ones((out, 1)), size)
    if align_corners:
        step = (size - 1) / (out - 1) if out > 1 else 0.0
    else:
        step = 1 / scale_factor if scale_factor is not None else size / out
    if antialias:
        return _antialiased(mode, size, np.float64(step) * (place + 0.5), max(step, 1.0))
    position = step * place if align_corners else step * (place + 0.5) - 0.5
    if mode == "linear":
        if size == out:
            position = place.astype(np.float64)
        position = np.maximum(position, 0.0)
    low = np.minimum(np.floor(position).astype(np.int64), size - 1)
    fraction = np.clip(position - low, 0.0, 1.0)
    if mode == "linear":
        return Taps.of(np.minimum(low[:, None] + [0, 1], size - 1), np.stack([1 - fraction, fraction], 1), size)
    return Taps.of(np.clip(low[:, None] + [-1, 0, 1, 2], 0, size - 1), cubic_weights(fraction), size)


def _antialiased(mode: str, size: int, center: Floats, stretch: float) -> Taps:
    """The kernel `stretch` times as wide about each centre, over the pixels inside, scaled to a sum of 1.

    The cubic one has a = -0.5 here, as Pillow's and so PyTorch's.
    """
    kernel, reach = _KERNELS[mode]
    support = reach * stretch
    begin = np.maximum((center - support + 0.5).astype(np.int64), 0)
    end = np.minimum((center + support + 0.5).astype(np.int64), size)
    number = np.arange(int((end - begin).max(initial=1)))
    pixel = begin[:, None] + number
    weight = np.where(pixel < end[:, None], kernel((pixel - center[:, None] + 0.5) / stretch, -0.5), 0.0)
    total = weight.sum(1, keepdims=True)
    return Taps.of(np.clip(pixel, 0, size - 1), weight / np.where(total == 0, 1.0, total), size)


def output_positions(
    mode: str,
    size: int,
    out: int,
    scale: float,
    roi: tuple[float, float] | None = None,
    precision: str = "float64",
) -> tuple[Floats, NDArray[np.bool_]]:
    """Where ONNX's Resize looks along one axis, and which of these places count as outside ("tf_crop_and_resize").

    Args:
        mode: coordinate_transformation_mode: "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",
            "align_corners", "asymmetric", "tf_half_pixel_for_nn" or "tf_crop_and_resize".
        size, out: elements before and after.
        scale: what `size` was multiplied by; size * scale need not be whole.
        roi: begin and end of the region in normalised coordinates, for "tf_crop_and_resize".
        precision: "float32" where the places are to be rounded to pixels: a file's scale of 0.6 is float32's, and
            only in float32 does the third pixel come from 3 / 0.6 = 5 and not from just below.

    Raises:
        ValueError: an unknown mode, or no region where one is needed.

    >>> output_positions("asymmetric", 4, 2, 0.5)[0].tolist()
    [0.0, 2.0]
    """
    y, length = np.arange(out, dtype=precision), scale * size
    single = np.float32(length) == 1  # ten pixels times float32's 0.1 are one
    inside = np.zeros(out, bool)
    match mode:
        case "align_corners":
            return (0 * y if single else y * (size - 1) / (length - 1)), inside
        case "asymmetric":
            return y / scale, inside
        case "half_pixel":
            return (y + 0.5) / scale - 0.5, inside
        case "pytorch_half_pixel":
            return (0 * y - 0.5 if single else (y + 0.5) / scale - 0.5), inside
        case "half_pixel_symmetric":
            return size / 2 * (1 - out / length) + (y + 0.5) / scale - 0.5, inside
        case "tf_half_pixel_for_nn":
            return (y + 0.5) / scale, inside
        case "tf_crop_and_resize":
            if roi is None:
                raise ValueError("roi must be given for tf_crop_and_resize, got None")
            begin, end = roi
            across = (end - begin) * (size - 1)
            position = begin * (size - 1) + (0 * y + across / 2 if single else y * across / (length - 1))
            return position, (position < 0) | (position > size - 1)
    raise ValueError(f"coordinate_transformation_mode must be one that ONNX's Resize has, got {mode!r}")


_ROUNDINGS: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@_remembered
def resize_taps(
    mode: str,
    size: int,
    out: int,
    scale: float,
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
    roi: tuple[float, float] | None = None,
) -> tuple[Taps, NDArray[np.bool_]]:
    """The table of one axis for ONNX's Resize, whose attributes these are, and which outputs are extrapolated.

    Args:
        mode: "nearest", "linear" or "cubic".
        size, out: elements before and after.
        scale: of this axis.
        roi: begin and end of this axis, for "tf_crop_and_resize".

    Returns:
        The table, and a bool for each output: it is `extrapolation_value` there.

    Raises:
        ValueError: an unknown mode, coordinate_transformation_mode or nearest_mode.

    >>> resize_taps("nearest", 2, 4, 2.0)[0].start.tolist()
    [0, 0, 1, 1]
    """
    precision = "float32" if mode == "nearest" else "float64"
    position, outside = output_positions(coordinate_transformation_mode, size, out, scale, roi, precision)
    if mode == "nearest":
        if nearest_mode not in _ROUNDINGS:
            raise ValueError(f"nearest_mode must be one of {', '.join(_ROUNDINGS)}, got {nearest_mode!r}")
        index = np.clip(_ROUNDINGS[nearest_mode](position.astype(np.float64)), 0, size - 1).astype(np.int64)
        return Taps.of(index[:, None], np.ones((out, 1)), size), outside
    if mode not in _KERNELS:
        raise ValueError(f"mode must be nearest, linear or cubic, got {mode!r}")
    kernel, reach = _KERNELS[mode]
    shrink = min(scale, 1.0) if antialias else 1.0
    # The pixel to the left of a position is the one strictly before it.
    low = np.ceil(position) - 1
    first = int(np.floor(-reach / shrink)) + 1
    pixel = low[:, None] + np.arange(first, 2 - first)
    weight = kernel((pixel - position[:, None]) * shrink, cubic_coeff_a)
    if antialias:
        weight /= weight.sum(1, keepdims=True)
    if exclude_outside:
        weight = np.where((pixel < 0) | (pixel >= size), 0.0, weight)
        total = weight.sum(1, keepdims=True)
        weight /= np.where(total == 0, 1.0, total)
    return Taps.of(np.clip(pixel, 0, size - 1).astype(np.int64), weight, size), outside
