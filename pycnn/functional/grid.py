"""Images looked at in places that a grid names, differentiable in both."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.arrays import is_half, module_of
from pycnn.functional._arrays import composed, tensors
from pycnn.functional.sampling import Sample
from pycnn.functional.shaping import stack, where
from pycnn.ops._checks import flag
from pycnn.shape import whole
from pycnn.tensor import Tensor

__all__ = ["affine_grid", "grid_sample"]

Array = Any
Tap = tuple[Array, Tensor]  # along one axis: the pixels, -1 outside, and their weights

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")
_A = -0.75  # of the cubic kernel


@composed
def grid_sample(
    x: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Any:
    """Each output pixel interpolated at a place of its own: `grid` says where to look.

        y[n, c, p, q] = sum over pixels (h, w) of weight(v - h) * weight(u - w) * x[n, c, h, w]
        u = ((grid[n, p, q, 0] + 1) * W - 1) / 2        v = ((grid[n, p, q, 1] + 1) * H - 1) / 2

    or, with `align_corners`, u = (grid + 1) * (W - 1) / 2: -1 and 1 are the edges of the image, or the centres of its
    corner pixels.

    Args:
        x: (N, C, H, W) or (N, C, D, H, W); a Tensor or an array.
        grid: (N, P, Q, 2) as (x, y), or (N, O, P, Q, 3) as (x, y, z).
        mode: "bilinear" (of volumes trilinear), "nearest", or "bicubic" (of images; a = -0.75).
        padding_mode: outside of the image are "zeros", the nearest pixel of the "border", or its "reflection".
        align_corners: see above; None is False.

    Returns:
        y, (N, C, P, Q) or (N, C, O, P, Q), in the grid's dtype where x has 16 bits.  The grid's
        gradient is 0 where the place was moved to the border.

    Raises:
        TypeError: not arrays, dtypes that differ or are unsupported, or a parameter of a wrong type.
        ValueError: shapes that do not fit, an unknown mode or padding_mode, "bicubic" for volumes.

    Reference: Jaderberg et al., "Spatial transformer networks", 2015; torch.nn.functional.grid_sample.

    >>> import numpy as np, pycnn
    >>> x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> pycnn.functional.grid_sample(x, np.array([[[[0.0, 0.0], [1.0, -1.0]]]]), align_corners=True)
    array([[[[2.5, 2. ]]]])
    """
    x, grid = tensors(x=x, grid=grid)
    if x.ndim not in (4, 5):
        raise ValueError(f"x must have 4 or 5 dimensions (N, C, [D,] H, W), got shape {tuple(x.shape)}")
    n, c, *sizes = x.shape
    if grid.ndim != x.ndim or grid.shape[0] != n or grid.shape[-1] != len(sizes):
        expected = f"({n}, {'O, ' * (len(sizes) - 2)}P, Q, {len(sizes)})"
        raise ValueError(f"grid must have the shape {expected}, got {tuple(grid.shape)}")
    if 0 in sizes:
        raise ValueError(f"x must have at least one element a dimension, got shape {tuple(x.shape)}")
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
    if padding_mode not in _PADDINGS:
        raise ValueError(f"padding_mode must be one of {', '.join(_PADDINGS)}, got {padding_mode!r}")
    if mode == "bicubic" and len(sizes) == 3:
        raise ValueError("mode 'bicubic' is for x of 4 dimensions, got 5")
    corners = align_corners is not None and flag("align_corners", align_corners)
    if is_half(x._data) and grid.dtype in (x.dtype, np.float32):  # positions need more
        wide = grid_sample(x.to(np.float32), grid.to(np.float32), mode, padding_mode, corners)
        return wide.to(grid.dtype)
    if x.dtype != grid.dtype:
        raise TypeError(f"x and grid must have one dtype, got {x.dtype} and {grid.dtype}")
    out = tuple(grid.shape[1:-1])
    flat = grid.reshape(n, -1, len(sizes)) if grid.numel() else grid.reshape(n, 0, len(sizes))
    along = []
    for axis, size in enumerate(sizes):
        place = flat[:, :, len(sizes) - 1 - axis] + 1.0
        position = place * ((size - 1) / 2) if corners else place * (size / 2) - 0.5
        along.append(_taps(position, size, mode, padding_mode, corners))
    index, weight = combined(along, sizes)
    images = module_of(x._data).arange(n)
    pixels = x.reshape(n, c, int(np.prod(sizes)))
    return Sample.apply(pixels, weight, images, index).reshape(n, c, *out)


def _taps(position: Tensor, size: int, mode: str, padding: str, corners: bool) -> list[Tap]:
    """What an axis contributes at positions in pixels."""
    if mode == "bicubic":
        low = _floor(position)
        moved = [_moved(low + float(k), size, padding, corners)[0] for k in (-1, 0, 1, 2)]
        weights = _cubic(position - low)
        return [(_inside(place, size), weight) for place, weight in zip(moved, weights, strict=True)]
    data = position._data
    if padding != "zeros":
        place, slope = _moved(data, size, padding, corners)
        with np.errstate(invalid="ignore"):  # from infinity, which is moved to the border
            rest = place - data * slope
        position = where(slope != 0, position * slope + rest, place)
        data = position._data
    if mode == "nearest":  # depends on the position, but nowhere so that a derivative shows it
        ones = module_of(data).ones_like(data)
        never = module_of(data).zeros(data.shape, bool)
        with np.errstate(invalid="ignore"):
            return [(_inside(module_of(data).rint(data), size), where(never, position, ones))]
    return linear_taps(position, size)


def linear_taps(position: Tensor, size: int) -> list[Tap]:
    """The pixels before and after positions along an axis, with their weights; outside of it there is nothing."""
    low = _floor(position)
    with np.errstate(invalid="ignore"):
        fraction = position - low
    return [(_inside(low, size), 1.0 - fraction), (_inside(low + 1.0, size), fraction)]


def combined(along: Sequence[list[Tap]], sizes: Sequence[int]) -> tuple[Array, Tensor]:
    """The taps of several axes at once: (..., K, points) flat pixels, -1 outside, and the products of the weights."""
    indices, weights = [], []
    for taps in itertools.product(*along):
        index, weight = taps[0]
        for (pixel, factor), size in zip(taps[1:], sizes[1:], strict=True):
            index = module_of(index).where((index < 0) | (pixel < 0), -1, index * size + pixel)
            weight = weight * factor
        indices.append(index)
        weights.append(weight)
    return module_of(indices[0]).stack(indices, 1), stack(weights, 1)


def _floor(position: Tensor) -> Array:
    with np.errstate(invalid="ignore"):
        return module_of(position._data).floor(position._data)


def _inside(place: Array, size: int) -> Array:
    """Whole numbers as pixels, -1 for those outside; NaN is outside."""
    with np.errstate(invalid="ignore"):
        return module_of(place).where((place >= 0) & (place < size), place, -1.0).astype(np.int64)


def _moved(position: Array, size: int, padding: str, corners: bool) -> tuple[Array, Array]:
    """Positions moved into the image, and their derivatives: 1, -1, or 0 at the border and beyond."""
    xp = module_of(position)
    slope = xp.ones_like(position)
    if padding == "zeros":
        return position, slope
    with np.errstate(invalid="ignore"):
        if padding == "reflection":
            low, span = (0.0, float(size - 1)) if corners else (-0.5, float(size))
            if span == 0:
                return xp.zeros_like(position), xp.zeros_like(position)
            distance = xp.abs(position - low)
            turns = xp.floor(distance / span)
            even = turns % 2 == 0
            rest = xp.fmod(distance, span)
            slope = xp.where(position < low, -slope, slope) * xp.where(even, 1.0, -1.0).astype(position.dtype)
            position = xp.where(even, rest + low, span - rest + low)
        slope = xp.where((position > 0) & (position < size - 1), slope, xp.zeros_like(slope))
        return xp.clip(position, 0, size - 1), slope


def _cubic(t: Tensor) -> list[Tensor]:
    """Keys's kernel at the distances 1 + t, t, 1 - t and 2 - t, as products: sums of powers of 1 + t would cancel."""
    rest = 1.0 - t

    def near(d: Tensor) -> Tensor:
        return 1.0 - d * d * ((_A + 3) - (_A + 2) * d)

    return [_A * t * (rest * rest), near(t), near(rest), _A * rest * (t * t)]


@composed
def affine_grid(theta: Any, size: Sequence[int], align_corners: bool | None = None) -> Any:
    """The grid of an affine map, for `grid_sample`.

        grid[n, p, q] = theta[n] @ (x, y, 1)

    with x and y the centre of output pixel (p, q), from -1 to 1 across the image; or, with `align_corners`, across the
    centres of its corner pixels.

    Args:
        theta: (N, 2, 3), or (N, 3, 4) for volumes; a Tensor or an array.
        size: of the output, (N, C, P, Q) or (N, C, O, P, Q).
        align_corners: None is False.

    Returns:
        (N, P, Q, 2) as (x, y), or (N, O, P, Q, 3) as (x, y, z).

    Raises:
        TypeError: not an array, or a parameter of a wrong type.
        ValueError: a theta or a size of other shapes.

    Reference: torch.nn.functional.affine_grid.

    >>> import numpy as np, pycnn
    >>> theta = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> pycnn.functional.affine_grid(theta, (1, 1, 1, 2))
    array([[[[-0.5,  0. ],
             [ 0.5,  0. ]]]])
    """
    if not isinstance(size, (tuple, list)) or len(size) not in (4, 5):
        raise ValueError(f"size must be (N, C, [D,] H, W), got {size!r}")
    n, _, *out = (whole(f"size[{i}]", one, 1) for i, one in enumerate(size))
    dimensions = len(out)
    if tuple(theta.shape) != (n, dimensions, dimensions + 1):
        expected = (n, dimensions, dimensions + 1)
        raise ValueError(f"theta must have the shape {expected} for size {tuple(size)}, got {tuple(theta.shape)}")
    corners = align_corners is not None and flag("align_corners", align_corners)
    xp, dtype = module_of(theta._data), theta.dtype
    grid = theta[:, :, dimensions].reshape(n, *(1,) * dimensions, dimensions)
    for j in range(dimensions):
        axis = dimensions - 1 - j  # x runs along the last one
        length = out[axis]
        line = np.linspace(-1, 1, length) if length > 1 else np.zeros(1)
        center = xp.asarray((line if corners else line * ((length - 1) / length)).astype(dtype))
        shape = [length if i == axis else 1 for i in range(dimensions)]
        grid = grid + theta[:, :, j].reshape(n, *(1,) * dimensions, dimensions) * center.reshape(1, *shape, 1)
    return grid
