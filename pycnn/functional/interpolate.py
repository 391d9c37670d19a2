"""Interpolation: images of another size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pycnn.functional._arrays import expect_arrays
from pycnn.functional.sampling import Resample
from pycnn.ops._checks import flag, number
from pycnn.resampling import interpolation_taps
from pycnn.shape import whole

__all__ = ["interpolate", "upsample"]

# By name, the mode of each axis and the numbers of spatial dimensions it is for.
_MODES: dict[str, tuple[str, tuple[int, ...]]] = {
    "nearest": ("nearest", (1, 2, 3)),
    "nearest-exact": ("nearest-exact", (1, 2, 3)),
    "area": ("area", (1, 2, 3)),
    "linear": ("linear", (1,)),
    "bilinear": ("linear", (2,)),
    "trilinear": ("linear", (3,)),
    "bicubic": ("cubic", (2,)),
}

Size = int | Sequence[int]
Factor = float | Sequence[float]


def interpolate(
    x: Any,
    size: Size | None = None,
    scale_factor: Factor | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Images of another size, made by interpolation along each axis by itself.

        y[..., i, ...] = sum over t of weight[t, i] * x[..., start[i] + t, ...]

    with position (i + 0.5) * H/P - 0.5 of x for element i of P, or i * (H - 1)/(P - 1) with `align_corners`, and
    weights by the distance from there: "linear", "bilinear" and "trilinear" of two neighbours an axis, "bicubic" of
    four (Keys, a = -0.75), "nearest" of x[floor(i * H/P)], "nearest-exact" of x[floor((i + 0.5) * H/P)], "area" the
    mean of the pixels from floor(i * H/P) to ceil((i + 1) * H/P) - 1.

    Args:
        x: (N, C, W), (N, C, H, W) or (N, C, D, H, W); a Tensor or an array.
        size: the new size, an int or one for each dimension.
        scale_factor: instead of `size`: a number or one for each dimension; the size is rounded down.
        mode: see above; "linear" is for one dimension, "bilinear" and "bicubic" for two, "trilinear" for three.
        align_corners: the centres of the corner pixels stay where they are; for the linear and cubic modes.
        recompute_scale_factor: positions follow the sizes, H/P, and not the factor given.
        antialias: widen the weights where the image shrinks; "bilinear" and "bicubic" (then a = -0.5, as Pillow's).

    Returns:
        y, (N, C, ...) of the new size.

    Raises:
        TypeError: not an array, an unsupported dtype, or a parameter of a wrong type.
        ValueError: not exactly one of `size` and `scale_factor`, a mode that is unknown or for another number of
            dimensions, an option that the mode does not have, or a size smaller than 1.

    Reference: torch.nn.functional.interpolate; Keys, "Cubic convolution interpolation for digital image processing",
    1981.

    >>> import numpy as np, pycnn
    >>> pycnn.interpolate(np.array([[[0.0, 4.0]]]), scale_factor=2, mode="linear")
    array([[[0., 1., 3., 4.]]])
    """
    expect_arrays(x=x)
    sizes = tuple(x.shape[2:])
    if not 1 <= len(sizes) <= 3:
        raise ValueError(f"x must have 3 to 5 dimensions (N, C, [D,] [H,] W), got shape {tuple(x.shape)}")
    kind = _kind(mode, len(sizes))
    if align_corners is not None and kind not in ("linear", "cubic"):
        raise ValueError(f"align_corners must be None for mode {mode!r}, which has no positions, got {align_corners!r}")
    if flag("antialias", antialias) and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"antialias must be False for mode {mode!r}, it is for bilinear and bicubic, got True")
    corners = align_corners is not None and flag("align_corners", align_corners)
    recompute = recompute_scale_factor is not None and flag("recompute_scale_factor", recompute_scale_factor)
    if (size is None) == (scale_factor is None):
        raise ValueError(f"one of size and scale_factor must be given, got {size!r} and {scale_factor!r}")
    if 0 in x.shape[1:]:
        raise ValueError(f"x must have at least one channel and one element a dimension, got shape {tuple(x.shape)}")
    factors: list[float | None] = [None] * len(sizes)
    if size is not None:
        if recompute:
            raise ValueError("recompute_scale_factor must not be True where size is given, got True")
        out = [whole(f"size[{i}]", one, 1) for i, one in enumerate(_each("size", size, len(sizes)))]
    else:
        given = _each("scale_factor", scale_factor, len(sizes))
        scales = [number(f"scale_factor[{i}]", one, 0) for i, one in enumerate(given)]
        out = [math.floor(size * scale) for size, scale in zip(sizes, scales, strict=True)]
        if min(out) < 1:
            raise ValueError(
                f"scale_factor must leave at least one element a dimension, got {scale_factor!r} of {sizes}"
            )
        if not recompute:
            factors = list(scales)
    precision = "float64" if str(x.dtype).endswith("float64") else "float32"
    options = corners, bool(antialias), precision
    taps = {
        2 + i: interpolation_taps(kind, sizes[i], out[i], None if kind == "area" else factors[i], *options)
        for i in range(len(sizes))
    }
    return Resample.apply(x, taps)


def upsample(
    x: Any,
    size: Size | None = None,
    scale_factor: Factor | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Any:
    """`interpolate` by its older name.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.upsample(np.array([[[1.0, 2.0]]]), 4)
    array([[[1., 1., 2., 2.]]])
    """
    return interpolate(x, size, scale_factor, mode, align_corners)


def _kind(mode: Any, dimensions: int) -> str:
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
    kind, fitting = _MODES[mode]
    if dimensions not in fitting:
        expected = " or ".join(str(2 + one) for one in fitting)
        raise ValueError(f"mode {mode!r} is for {expected} dimensions, got x with {2 + dimensions}")
    return kind


def _each(name: str, given: Any, count: int) -> list[Any]:
    """One value a dimension, of a number for all or a sequence."""
    if not isinstance(given, (tuple, list)):
        return [given] * count
    if len(given) != count:
        raise ValueError(f"{name} must have {count} entries, one a dimension, got {tuple(given)}")
    return list(given)
