"""Scaling of images, by the tables of `pycnn.resampling`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.arithmetic import where
from pycnn.onnx.operators._common import Value, axes_of, is_tensor, like
from pycnn.onnx.registry import operator
from pycnn.resampling import resize_taps
from pycnn.tensor import Tensor

Floats = tuple[float, ...]


@operator("Upsample")
def upsample_of_images(x: Value, *, height_scale: float, width_scale: float, mode: str = "nearest") -> Value:
    return _scaled(x, (1.0, 1.0, height_scale, width_scale), mode)


@operator("Upsample", since=7)
def upsample_by_attribute(x: Value, *, scales: Floats, mode: str = "nearest") -> Value:
    return _scaled(x, scales, mode)


@operator("Upsample", "Resize", since=9, host=(1,))
def upsample(x: Value, scales: np.ndarray, *, mode: str = "nearest") -> Value:
    """Also what Resize was in opset 10."""
    return _scaled(x, _floats(scales), mode)


def _scaled(x: Value, scales: Floats, mode: str) -> Value:
    """With the corner of the first pixel as the origin, as all was before opset 11.

    The nearest pixel was the one before, or, of an axis that shrinks, the one behind: the standard did not say so, but
    its cases and onnxruntime do.
    """
    kind = "linear" if mode in ("linear", "bilinear") else mode
    for axis, (scale, out) in enumerate(zip(scales, _outputs(x.shape, scales), strict=True)):
        nearest = "ceil" if scale < 1 else "floor"
        how: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": nearest}
        x = _resized(x, (axis,), (scale,), (out,), kind, **how)
    return x


def _floats(array: np.ndarray) -> Floats:
    return tuple(float(one) for one in array.reshape(-1))


def _outputs(shape: Sequence[int], scales: Sequence[float]) -> tuple[int, ...]:
    """Rounded to float32 before they are cut: 10 times 0.7 is 7, though float32's 0.7 lies below it."""
    return tuple(math.floor(np.float32(size * scale)) for size, scale in zip(shape, scales, strict=True))


@operator("Resize", since=11, host=(1, 2, 3))
def resize(
    x: Value,
    roi: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    *,
    antialias: int = 0,
    axes: tuple[int, ...] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Value:
    places = range(x.ndim) if axes is None else axes_of(axes, x.ndim)
    shape = [x.shape[axis] for axis in places]
    if sizes is not None and sizes.size:
        factors, outputs = _of_sizes(shape, [int(size) for size in sizes], keep_aspect_ratio_policy)
    elif scales is not None and scales.size:
        factors = _floats(scales)
        outputs = _outputs(shape, factors)
    else:
        raise ValueError("neither scales nor sizes are given")
    regions = None
    if coordinate_transformation_mode == "tf_crop_and_resize":
        if roi is None:
            raise ValueError("tf_crop_and_resize needs a region")
        ends = _floats(roi)
        regions = list(zip(ends[: len(shape)], ends[len(shape) :], strict=True))
    return _resized(
        x,
        places,
        factors,
        outputs,
        mode,
        regions,
        extrapolation_value,
        coordinate_transformation_mode=coordinate_transformation_mode,
        nearest_mode=nearest_mode,
        cubic_coeff_a=cubic_coeff_a,
        exclude_outside=bool(exclude_outside),
        antialias=bool(antialias),
    )


def _of_sizes(shape: Sequence[int], sizes: Sequence[int], policy: str) -> tuple[Floats, tuple[int, ...]]:
    """The scales that lead to `sizes`, or near to them in one scale for all."""
    each = tuple(wanted / size for wanted, size in zip(sizes, shape, strict=True))
    if policy == "stretch":
        return each, tuple(sizes)
    if policy not in ("not_larger", "not_smaller"):
        raise ValueError(f"keep_aspect_ratio_policy must be stretch, not_larger or not_smaller, got {policy!r}")
    scale = min(each) if policy == "not_larger" else max(each)
    return (scale,) * len(shape), tuple(math.floor(scale * size + 0.5) for size in shape)


def _resized(
    x: Value,
    places: Sequence[int],
    scales: Sequence[float],
    outputs: Sequence[int],
    mode: str,
    regions: Sequence[tuple[float, float]] | None = None,
    extrapolation: float = 0.0,
    **how: Any,
) -> Value:
    if not is_tensor(x):  # bytes; between them lies what they are rounded to
        wide = _resized(Tensor(x.astype(np.float32)), places, scales, outputs, mode, regions, extrapolation, **how)
        array = wide.data
        if x.dtype.kind in "iu":
            info = np.iinfo(x.dtype)
            array = np.clip(np.rint(array), info.min, info.max)
        return array.astype(x.dtype)
    taps, outside = {}, []
    for i, axis in enumerate(places):
        region = None if regions is None else regions[i]
        if outputs[i] == x.shape[axis] and scales[i] == 1 and region in (None, (0.0, 1.0)):
            continue  # whatever the coordinates, each pixel is itself
        table, beyond = resize_taps(mode, x.shape[axis], outputs[i], scales[i], roi=region, **how)
        taps[axis] = table
        if beyond.any():
            outside.append((axis, beyond))
    y = F.resample(x, taps) if taps else x
    for axis, beyond in outside:
        mask = np.broadcast_to(beyond.reshape((-1, *(1,) * (y.ndim - 1 - axis))), y.shape)
        y = where(like(mask, y).data, y.dtype.type(extrapolation), y)
    return y
