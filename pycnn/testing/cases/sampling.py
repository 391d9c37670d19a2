"""Interpolation and sampling."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from pycnn.resampling import Taps, interpolation_taps
from pycnn.testing.cases.operands import SUM, Arguments, Case, gap, last, normal, special, whole

__all__ = ["CASES"]


def _nearest(size: int, out: int) -> Taps:
    return interpolation_taps("nearest", size, out)


def _double(size: int) -> Taps:
    """Every other element between its neighbours: weights of whole quarters, exact."""
    return interpolation_taps("linear", size, 2 * size)


def _resamplings() -> Iterator[Case]:
    """Copies and sums of dyadic products are exact; other weights are themselves rounded to float32."""
    x = (2, 3, 7, 11)
    yield Case("resample", "nearest, grown", lambda: (special(*x), _nearest(7, 15), _nearest(11, 30)))
    yield Case("resample", "nearest, shrunk", lambda: (special(*x), _nearest(7, 3), _nearest(11, 4)))
    yield Case("resample", "rows alone, gaps", lambda: (gap(whole(*x)), _double(7), None))
    yield Case("resample", "columns alone", lambda: (whole(5, 11), None, _double(11)))
    yield Case("resample", "doubled", lambda: (whole(*x), _double(7), _double(11)))
    yield Case("resample", "gradient of doubled", lambda: (whole(*x, most=4), _halved(7), _halved(11)))
    yield Case("resample", "doubled, channels-last", lambda: (last(whole(*x)), _double(7), _double(11)))
    yield Case("resample", "rows alone, channels-last", lambda: (last(whole(*x)), _double(7), None))
    yield Case("resample", "no images", lambda: (whole(0, 3, 7, 11), _double(7), _double(11)))
    yield Case("resample", "wide plane", lambda: (whole(1, 1, 3, 9001), _nearest(3, 40), _double(9001)))
    yield Case("resample", "many rows, shrunk", lambda: (special(1, 2, 90, 30), _nearest(90, 37), _nearest(30, 7)))
    yield Case(
        "resample", "wide rows, shrunk", lambda: (whole(1, 1, 4, 20_000), _nearest(4, 3), _nearest(20_000, 9_000))
    )
    yield Case("resample", "outputs of nothing", lambda: (normal(2, 5, 6), _nearest(9, 5).transposed, None))
    for kind, grown in (("cubic", True), ("cubic", False), ("area", False), ("linear", False)):
        p, q = (19, 40) if grown else (4, 5)
        tables = interpolation_taps(kind, 7, p), interpolation_taps(kind, 11, q)
        about = f"{kind}, {'grown' if grown else 'shrunk'}"
        yield Case("resample", about, partial(_resample, *tables, *x), SUM)
        turned = [table.transposed for table in tables]
        yield Case("resample", f"gradient of {about}", partial(_resample, turned[0], turned[1], 2, 3, p, q), SUM)
    smooth = [interpolation_taps("cubic", size, out, antialias=True) for size, out in ((40, 6), (61, 7))]
    yield Case("resample", "antialiased, many taps", lambda: (normal(2, 2, 40, 61), *smooth), SUM)
    yield Case("resample", "antialiased, rows shrink less", lambda: (normal(2, 2, 61, 40), *smooth[::-1]), SUM)


def _resample(rows: Taps, columns: Taps, *shape: int) -> Arguments:
    return normal(*shape), rows, columns


def _halved(size: int) -> Taps:
    """The gradient of doubling `size // 2` elements, and of one more that nothing looks at."""
    half = interpolation_taps("linear", (size + 1) // 2, size + 1).transposed
    return Taps.of(
        np.minimum(half.start[:, None] + np.arange(half.most), size - 1),
        np.where(half.start[:, None] + np.arange(half.most) < size, half.weight.T, 0.0),
        size,
    )


_POINTS = {
    "many taps": (2, 3, 40, 2, 9, 1100),
    "no pixels": (1, 2, 0, 2, 3, 5),
    "no taps": (1, 2, 4, 2, 0, 5),
    "few": (2, 5, 30, 3, 4, 20),
    "tails": (3, 9, 61, 2, 3, 131),
    "one channel": (2, 1, 8, 5, 1, 7),
}


def _places(n: int, size: int, rows: int, taps: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    index = np.where(rng.random((rows, taps, points)) < 0.2, -1, rng.integers(0, max(size, 1), (rows, taps, points)))
    if size == 0:
        index[...] = -1
    return (n - 1 - np.arange(rows)) % n, index


def _sample_fwd(n: int, c: int, size: int, *index: int) -> Arguments:
    return (whole(n, c, size), *_places(n, size, *index), whole(*index, seed=1) / 8)


def _sample_dx(n: int, c: int, size: int, *index: int) -> Arguments:
    dy = whole(index[0], c, index[2], seed=2)
    return (dy, *_places(n, size, *index), whole(*index, seed=1) / 8, (n, c, size))


def _sample_dw(n: int, c: int, size: int, *index: int) -> Arguments:
    return (whole(index[0], c, index[2], seed=2), whole(n, c, size), *_places(n, size, *index))


def _specials() -> Arguments:
    """NaN and infinities, some of them added to one another."""
    dy, image, index, weight, x_shape = _sample_dx(2, 3, 6, 2, 2, 30)
    dy = dy + 0
    dy[0, 0, 3], dy[1, 1, 5:9], dy[1, 2, ::2] = np.nan, [np.inf, -np.inf, np.inf, -np.inf], np.inf
    return dy, image, index, abs(weight) + 1, x_shape


def _samples() -> Iterator[Case]:
    for about, sizes in _POINTS.items():
        yield Case("sample_fwd", about, partial(_sample_fwd, *sizes))
        yield Case("sample_dx", about, partial(_sample_dx, *sizes))
        yield Case("sample_dw", about, partial(_sample_dw, *sizes))
    yield Case("sample_dx", "NaN and infinities", _specials)
    yield Case("sample_dx", "nothing to add", lambda: _sample_dx(1, 2, 5, 0, 3, 4))
    yield Case("sample_dx", "small", lambda: _times(_sample_dx(2, 5, 30, 3, 4, 20), np.float32(1e-10)), _ROUNDED)
    yield Case("sample_dx", "large", lambda: _times(_sample_dx(2, 5, 30, 3, 4, 20), np.float32(1e20)), _ROUNDED)


# Some ten terms an element, which the CPU engine adds in float32.
_ROUNDED = 8.0


def _times(arguments: Arguments, factor: np.float32) -> Arguments:
    """Gradient and weights times a number."""
    dy, image, index, weight, x_shape = arguments
    return dy * factor, image, index, weight * np.float32(0.125 if factor > 1 else factor), x_shape


CASES: tuple[Case, ...] = (*_resamplings(), *_samples())
