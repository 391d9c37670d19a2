"""Regions of images brought to one size, and overlapping boxes; torchvision's semantics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import ops
from pycnn.arrays import beside, is_half, module_of, to_host
from pycnn.functional._arrays import composed, tensors
from pycnn.functional.sampling import Resample, Sample, SampleScatter
from pycnn.functional.shaping import cat, where
from pycnn.graph import Function, Variable
from pycnn.ops._checks import flag, real
from pycnn.resampling import Taps
from pycnn.shape import check_elements, pair, whole
from pycnn.tensor import Tensor

__all__ = ["batched_nms", "box_iou", "nms", "roi_align", "roi_pool"]

Array = Any

_LARGEST = 2**40  # samples along a bin: more than any machine can hold

# Taps that are prepared at one time; regions with more go one part after another.
_TAPS = 1 << 22

# Taps of a region beyond which its mean is computed one axis after the other, and its maximum not at all.
_MEAN, _MAXIMUM = 1 << 22, 1 << 25


@composed
def roi_align(
    x: Any,
    boxes: Any,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    mode: str = "avg",
) -> Any:
    """Regions of images, each as P x Q bins whose value is the mean of bilinear samples; no corner is ever rounded.

        y[r, c, p, q] = mean over i, j of x[image[r], c](y1 + (p + (i + 1/2)/gy) * (y2 - y1)/P,
                                                         x1 + (q + (j + 1/2)/gx) * (x2 - x1)/Q)

    with a box's corners times `spatial_scale`, and less 1/2 if `aligned`; a sample more than a pixel outside is 0.

    Args:
        x: (N, C, H, W); a Tensor or an array.
        boxes: (R, 5) as (image, x1, y1, x2, y2), or a list of N arrays (L, 4) as (x1, y1, x2, y2), one an image.
        output_size: P and Q, an int or a pair.
        spatial_scale: pixels of x for one unit of the boxes.
        sampling_ratio: gy and gx; 0 or less for ceil((y2 - y1)/P) and ceil((x2 - x1)/Q), a count for each box (which
            a GPU is waited for).
        aligned: pixel centres are at halves, so that boxes meet pixels exactly; else boxes are at least a pixel large.
        mode: "avg", or "max": the largest of the samples' weighted pixels, as ONNX's RoiAlign has it.

    Returns:
        y, (R, C, P, Q).  Boxes get no gradient.  One that is not finite gives 0.

    Raises:
        TypeError: not arrays, an unsupported dtype, or a parameter of a wrong type.
        ValueError: shapes that do not fit, an unknown mode, or more than 2**40 samples of a region (2**23, if the
            mode is "max").
        IndexError: an image that x does not have (on the CPU).

    Reference: He et al., "Mask R-CNN", 2017, section 3; torchvision.ops.roi_align.

    >>> import numpy as np, pycnn
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> pycnn.functional.roi_align(x, np.array([[0.0, 0, 0, 4, 4]]), 2, aligned=True)
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """
    (x,) = tensors(x=x)
    image, corners = _regions(x, boxes)
    out = pair("output_size", output_size, 1)
    scale, ratio = real("spatial_scale", spatial_scale), whole("sampling_ratio", sampling_ratio, -(2**40))
    aligned = flag("aligned", aligned)
    if mode not in ("avg", "max"):
        raise ValueError(f"mode must be avg or max, got {mode!r}")
    if is_half(x._data):
        wide = x.to(np.float32)
        return roi_align(wide, _rows(image, corners), out, scale, ratio, aligned, mode).to(x.dtype)
    n, c, h, w = x.shape
    bins = []
    for (begin, end), size, length in zip(((1, 3), (0, 2)), out, (h, w), strict=True):
        with np.errstate(invalid="ignore"):  # of boxes that are not finite
            bins.append(_Bins(corners[:, begin] * scale, corners[:, end] * scale, size, length, ratio, aligned))
    rows, columns = bins
    check_elements("samples", (rows.samples, columns.samples, *out))
    taps = 4 * max(rows.samples * columns.samples, 1) * out[0] * out[1]
    if mode == "avg" and taps > _MEAN:
        return _by_axes(x, image, rows, columns)
    if taps > _MAXIMUM:
        raise ValueError(
            f'a region has {taps // 4} samples, which are too many for mode="max": at most {_MAXIMUM // 4}'
        )
    together = max(1, _TAPS // taps)
    pixels, parts = x.reshape(n, c, h * w), []
    for first in range(0, max(len(image), 1), together):
        some = slice(first, first + together)
        with np.errstate(invalid="ignore"):
            index, weight, there = _taps(rows, columns, some)
        if mode == "max":
            parts.append(_largest(pixels, image[some], index, weight, there))
            continue
        count = module_of(index).maximum(there.sum(1) // 4, 1).astype(weight.dtype)
        parts.append(Sample.apply(pixels, weight / count[:, None, None], image[some], index))
    y = parts[0] if len(parts) == 1 else cat(parts)
    return y.reshape(len(image), c, *out)


class _Bins:
    """One axis of regions cut into bins: where each region begins, its bins' length, and its samples a bin.

    Attributes:
        samples: of a bin, the most of any region.
    """

    def __init__(self, begin: Array, end: Array, bins: int, size: int, ratio: int, aligned: bool) -> None:
        xp = module_of(begin)
        self.bins, self.size = bins, size
        self.begin = begin - begin.dtype.type(0.5 if aligned else 0)
        length = (end - begin.dtype.type(0.5 if aligned else 0)) - self.begin
        if not aligned:
            length = xp.maximum(length, begin.dtype.type(1))
        self.step = length / begin.dtype.type(bins)
        if ratio > 0:
            self.count = xp.full(len(begin), ratio)
        else:
            finite = xp.where(xp.isfinite(self.step), self.step, begin.dtype.type(0))
            self.count = xp.clip(xp.ceil(finite), 0, _LARGEST).astype(np.int64)
        self.samples = ratio if ratio > 0 else int(self.count.max()) if len(begin) else 0

    def mean(self, region: int) -> Taps:
        """Each bin of a region as the mean of its samples."""
        begin, step, count = (array[region] for array in (self.begin, self.step, self.count))
        xp, kind, count = module_of(begin), begin.dtype.type, max(int(count), 1)
        # Only these samples can lie in the image; the others need not be looked at.  Places are rounded.
        spacing = max(abs(float(step)) / count, 2.0**-20)
        first = (-1 - float(begin) - np.arange(self.bins) * float(step)) / spacing
        slack = 2 + 8 * np.finfo(kind).eps * (abs(float(begin)) + self.bins * abs(float(step))) / spacing
        within = int(min(count, (self.size + 1) / spacing + 2 * slack + 1))
        number = np.clip(np.floor(first - slack), 0, count - within).astype(np.int64)[:, None] + np.arange(within)
        index, weight, _ = self.taps(slice(region, region + 1), xp.asarray(number))
        index, weight = (to_host(array)[0].reshape(self.bins, -1) for array in (index, weight))
        return Taps.of(np.maximum(index, 0), np.where(index < 0, 0.0, weight.astype(np.float64) / count), self.size)

    def taps(self, some: slice, number: Array | None = None) -> tuple[Array, Array, Array]:
        """(R, bins, samples, 2) pixels, -1 outside, and weights; and (R, samples) which samples there are.

        Args:
            some: the regions.
            number: (bins, samples), which samples of each bin; None for all.
        """
        begin, step, count = (array[some, None, None] for array in (self.begin, self.step, self.count))
        xp, kind, size = module_of(begin), begin.dtype.type, self.size
        if number is None:
            number = xp.arange(self.samples)
        there = number < count
        place = begin + xp.arange(self.bins).astype(kind)[:, None] * step
        place = place + (number.astype(kind) + kind(0.5)) * step / xp.maximum(count, 1).astype(kind)
        inside = there & (place >= -1) & (place <= size)
        place = xp.minimum(xp.maximum(xp.where(inside, place, kind(0)), kind(0)), kind(size - 1))
        low = xp.floor(place)
        fraction = place - low
        low = low.astype(np.int64)
        index = xp.stack([low, xp.minimum(low + 1, size - 1)], -1)
        return xp.where(inside[..., None], index, -1), xp.stack([1 - fraction, fraction], -1), there[:, 0]


def _by_axes(x: Tensor, image: Array, rows: _Bins, columns: _Bins) -> Tensor:
    """Means of regions whose samples are too many to be listed: of the rows' samples, then of the columns'."""
    parts = []
    for region, number in enumerate(to_host(image).tolist()):
        if not 0 <= number < x.shape[0]:
            raise IndexError(f"image must hold numbers of images, from 0 below {x.shape[0]}, got {number}")
        tables = {2: rows.mean(region), 3: columns.mean(region)}
        parts.append(Resample.apply(x[number : number + 1], tables))
    return cat(parts)


def _taps(rows: _Bins, columns: _Bins, some: slice) -> tuple[Array, Array, Array]:
    """(R, K, P*Q) pixels of a bin's samples, -1 outside, and weights; and (R, K) which of them there are."""
    (row, row_weight, row_there), (column, column_weight, column_there) = (axis.taps(some) for axis in (rows, columns))
    xp = module_of(row)
    row, row_weight = (array[:, :, None, :, None, :, None] for array in (row, row_weight))
    column, column_weight = (array[:, None, :, None, :, None, :] for array in (column, column_weight))
    index = xp.where((row < 0) | (column < 0), -1, row * columns.size + column)
    there = row_there[:, :, None, None] & column_there[:, None, :, None] & xp.ones(4, bool)
    regions, taps = len(index), 4 * rows.samples * columns.samples
    order = (0, 3, 4, 5, 6, 1, 2)  # region, samples, taps, bins
    shape = (regions, taps, rows.bins * columns.bins)
    weight = (row_weight * column_weight).transpose(order).reshape(shape)
    return index.transpose(order).reshape(shape), weight, there.reshape(regions, taps)


def _largest(pixels: Tensor, image: Array, index: Array, weight: Array, there: Array) -> Tensor:
    """The largest weighted pixel of the samples of each bin, those outside being 0; 0 of a bin without any."""
    xp, (regions, taps, bins), channels = module_of(index), index.shape, pixels.shape[1]
    flat = (regions, 1, taps * bins)
    terms = Sample.apply(pixels, weight.reshape(flat), image, index.reshape(flat))
    if not taps:
        return terms.sum(2, keepdim=True).expand(regions, channels, bins)
    there = there.reshape(regions, 1, taps, 1)
    best = where(there, terms.reshape(regions, channels, taps, bins), xp.full((), -np.inf, weight.dtype)).amax(2)
    return where(there.any(2), best, xp.zeros((), weight.dtype))


@composed
def roi_pool(x: Any, boxes: Any, output_size: int | Sequence[int], spatial_scale: float = 1.0) -> Any:
    """Regions of images, each as P x Q windows of whole pixels whose value is their maximum.

        y[r, c, p, q] = max of x[image[r], c, h, w] over y1 + floor(p*(y2 - y1 + 1)/P) <= h < y1 + ceil((p + 1)*(...)/P)

    with a box's corners times `spatial_scale` and rounded, halves away from 0; w alike; 0 where no pixel is inside.

    Args:
        x: (N, C, H, W); a Tensor or an array.  A NaN is the maximum of its window.
        boxes: (R, 5) as (image, x1, y1, x2, y2), or a list of N arrays (L, 4) as (x1, y1, x2, y2), one an image.
        output_size: P and Q, an int or a pair.
        spatial_scale: pixels of x for one unit of the boxes.

    Returns:
        y, (R, C, P, Q).  Boxes get no gradient.

    Raises:
        TypeError, ValueError, IndexError: as `roi_align`.

    Reference: Girshick, "Fast R-CNN", 2015, section 2.1; torchvision.ops.roi_pool.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.roi_pool(np.arange(16.0).reshape(1, 1, 4, 4), np.array([[0.0, 0, 0, 3, 3]]), 2)
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    (x,) = tensors(x=x)
    image, corners = _regions(x, boxes)
    out = pair("output_size", output_size, 1)
    xp, kind = module_of(corners), corners.dtype.type
    scaled = corners * kind(real("spatial_scale", spatial_scale))
    whole_corners = (xp.sign(scaled) * xp.floor(xp.abs(scaled) + kind(0.5))).astype(np.int64)
    windows = []
    for (begin, end), bins, size in zip(((1, 3), (0, 2)), out, x.shape[2:], strict=True):
        first = whole_corners[:, begin, None]
        step = xp.maximum(whole_corners[:, end, None] - first + 1, 1).astype(corners.dtype) / kind(bins)
        number = xp.arange(bins + 1).astype(corners.dtype)
        low = first + xp.floor(number[:-1] * step).astype(np.int64)
        high = first + xp.ceil(number[1:] * step).astype(np.int64)
        windows.append(xp.clip(xp.stack([low, high], -1), 0, size))
    return RoiMax.apply(x, image, *windows)


class RoiMax(Function):
    """The maximum of each window of each region; the gradient goes to the chosen pixels."""

    @staticmethod
    def forward(ctx: Any, x: Array, image: Array, rows: Array, columns: Array) -> Array:
        y, indices = ops.roi_max(x, image, rows, columns)
        ctx.x_shape = tuple(x.shape)
        regions, c, p, q = indices.shape
        # The places differ from channel to channel: each is an image of its own, with one tap a window.
        planes = (image[:, None] * c + module_of(indices).arange(c)).reshape(-1)
        ctx.save(planes, indices.reshape(regions * c, 1, p * q))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        planes, places = ctx.saved
        n, c, h, w = ctx.x_shape
        gradient = dy.reshape(*places.shape)
        wide = gradient.to(np.float32) if is_half(gradient._data) else gradient
        ones = module_of(wide._data).ones(tuple(places.shape), wide.dtype)
        dx = SampleScatter.apply(wide, ones, planes, places, (n * c, 1, h * w))
        return dx.reshape(n, c, h, w).to(dy.dtype), None, None, None


def nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """Non-maximum suppression: the boxes that no better one overlaps too much.

    Boxes are taken by falling score, equal scores in the order given; one goes if one before it that stays overlaps it
    by more than `iou_threshold`, the area of their intersection over that of their union.

    Args:
        boxes: (K, 4) as (x1, y1, x2, y2); a Tensor or an array.
        scores: (K,).
        iou_threshold: between 0 and 1 to be of use.

    Returns:
        The indices of those that stay, by falling score, int64.

    Raises:
        TypeError, ValueError: as `pycnn.ops.nms`.

    >>> import numpy as np, pycnn
    >>> boxes = np.array([[0.0, 0, 2, 2], [0, 0, 2, 3], [5, 5, 6, 6]])
    >>> pycnn.functional.nms(boxes, np.array([0.5, 0.9, 0.1]), 0.5)
    array([1, 2])
    """
    return _opened(ops.nms, boxes, scores, iou_threshold)


def batched_nms(boxes: Any, scores: Any, idxs: Any, iou_threshold: float) -> Any:
    """`nms` for each group of boxes by itself, all at once.

    Args:
        boxes, scores, iou_threshold: as in `nms`.
        idxs: (K,) integers, the group of each box: only boxes of one group suppress each other.

    Returns:
        The indices of those that stay, by falling score, int64.

    Raises:
        TypeError, ValueError: as `pycnn.ops.nms`.

    >>> import numpy as np, pycnn
    >>> boxes = np.array([[0.0, 0, 2, 2], [0, 0, 2, 3], [0, 0, 2, 2]])
    >>> pycnn.functional.batched_nms(boxes, np.array([0.5, 0.9, 0.1]), np.array([0, 1, 0]), 0.5)
    array([1, 0])
    """
    return _opened(ops.nms, boxes, scores, iou_threshold, idxs)


def _opened(function: Callable[..., Any], *given: Any) -> Any:
    """`function` of arrays, of Tensors too; what it gives has no gradient."""
    result = function(*[one._data if isinstance(one, Variable) else one for one in given])
    return Tensor(result) if any(isinstance(one, Variable) for one in given) else result


@composed
def box_iou(boxes1: Any, boxes2: Any) -> Any:
    """How much boxes overlap: the area of each pair's intersection over that of its union.

    Args:
        boxes1: (K, 4) as (x1, y1, x2, y2); a Tensor or an array.
        boxes2: (L, 4).

    Returns:
        (K, L).

    Raises:
        TypeError: not arrays, or dtypes that differ.
        ValueError: other shapes.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.box_iou(np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 2, 1], [1.0, 1, 3, 3]]))
    array([[0.5       , 0.14285714]])
    """
    boxes1, boxes2 = tensors(boxes1=boxes1, boxes2=boxes2)
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name} must have the shape (K, 4), got {tuple(boxes.shape)}")
    a, b = boxes1[:, None], boxes2[None]
    sides = (a[..., 2:].minimum(b[..., 2:]) - a[..., :2].maximum(b[..., :2])).clamp(min=0)
    common = sides[..., 0] * sides[..., 1]
    areas = [(one[..., 2] - one[..., 0]) * (one[..., 3] - one[..., 1]) for one in (a, b)]
    return common / (areas[0] + areas[1] - common)


def _regions(x: Any, boxes: Any) -> tuple[Array, Array]:
    """(R,) which image, and (R, 4) corners, where x lives and in its dtype (float32 for 16 bits)."""
    if x.ndim != 4:
        raise ValueError(f"x must have 4 dimensions (N, C, H, W), got shape {tuple(x.shape)}")
    if 0 in x.shape[1:]:
        raise ValueError(f"x must have at least one channel, row and column, got shape {tuple(x.shape)}")
    dtype = np.float32 if is_half(x._data) else x.dtype
    if isinstance(boxes, (list, tuple)):
        if len(boxes) != x.shape[0]:
            raise ValueError(f"boxes must be a list with one array an image, {x.shape[0]}, got {len(boxes)}")
        found = [_plain(f"boxes[{i}]", one, x, dtype, 4) for i, one in enumerate(boxes)]
        xp = module_of(x._data)
        image = xp.asarray(np.repeat(np.arange(len(found)), [len(one) for one in found]))
        return image, xp.concatenate(found) if found else xp.zeros((0, 4), dtype)
    rows = _plain("boxes", boxes, x, dtype, 5)
    return rows[:, 0].astype(np.int64), rows[:, 1:]


def _plain(name: str, boxes: Any, x: Tensor, dtype: Any, width: int) -> Array:
    array = boxes._data if isinstance(boxes, Variable) else boxes
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        raise TypeError(f"{name} must be a Tensor or an array, got {type(boxes).__name__}")
    if len(array.shape) != 2 or array.shape[1] != width:
        raise ValueError(f"{name} must have the shape (R, {width}), got {tuple(array.shape)}")
    if not isinstance(boxes, Variable):
        array = Tensor(array)._data
    return beside(array, x._data).astype(dtype)


def _rows(image: Array, corners: Array) -> Array:
    return module_of(corners).concatenate([image[:, None].astype(corners.dtype), corners], 1)
