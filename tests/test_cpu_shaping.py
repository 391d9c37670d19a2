"""The engine's padding, concatenation and scaling of rows: copies, or rounded once, so exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cpu_engine import DTYPES, check

from pycnn import _cpu
from pycnn.backends import cpu, reference


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (1, 2, 100, 130), (0, 2, 3, 3), (1, 2, 0, 3)])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 3, 2, 0), (9, 0, 0, 11)])
def test_pad2d_equals_reference(shape: tuple[int, ...], padding: tuple[int, int, int, int], dtype: type) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    for value in (0.0, -1.5, -np.inf, np.nan):
        (y,) = check(lambda x, value=value: cpu.pad2d(x, padding, value), x)
        np.testing.assert_array_equal(y, reference.pad2d(x, padding, value))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "axis", "sizes"),
    [
        ((2, 1, 5, 7), 1, (3, 1, 4)),
        ((2, 3, 5, 7), 0, (1, 0, 2)),
        ((2, 3, 5, 7), -1, (1, 2)),
        ((1, 1, 40, 41), 1, (60, 1, 0, 33)),
        ((3,), 0, (5,)),
        ((2, 4, 3), 1, (0, 0)),
        ((0, 4), 1, (1, 2)),
    ],
)
def test_concat_equals_reference(shape: tuple[int, ...], axis: int, sizes: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(1)
    parts = []
    for size in sizes:
        part = list(shape)
        part[axis] = size
        parts.append(rng.normal(size=part).astype(dtype))
    (y,) = check(lambda *parts: cpu.concat(parts, axis), *parts)
    np.testing.assert_array_equal(y, reference.concat(parts, axis))


@pytest.mark.parametrize("shape", [(1,), (5,), (0, 3), (3, 0), (7, 1), (33, 5, 3, 3), (3, 40001)])
def test_scaled_rows_are_rounded_once(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    x, scale = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[0])
    x.flat[:3], scale[:2] = [np.inf, np.nan, 3e38][: x.size], [1e300, 1e-45][: shape[0]]
    (y,) = check(lambda x: cpu.scaled_rows(x, scale), x)
    assert y.dtype == np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        products = x.astype(np.float64) * scale.reshape(-1, *(1,) * (x.ndim - 1))
        np.testing.assert_array_equal(y, products.astype(np.float32))


@pytest.mark.parametrize(
    "call",
    [
        lambda: _cpu.pad2d(np.ones((2, 3, 4)), (0, 0, 0, 0), 0.0),
        lambda: _cpu.pad2d(np.ones((1, 1, 2, 2)), (0, -1, 0, 0), 0.0),
        lambda: _cpu.pad2d(np.ones((1, 1, 2, 2)), (2**62, 0, 2**62, 0), 0.0),
        lambda: _cpu.concat([np.ones((2, 3)), np.ones((3, 3))], 1),
        lambda: _cpu.concat([np.ones((2, 3)), np.ones(3)], 0),
        lambda: _cpu.concat([np.ones((2, 3))], 2),
        lambda: _cpu.scaled_rows(np.ones((2, 3), np.float32), np.ones(3)),
    ],
)
def test_bad_shapes_raise(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"pad2d|concat|scaled_rows"):
        call()


def test_concat_of_mixed_dtypes_is_refused() -> None:
    with pytest.raises(TypeError):
        _cpu.concat([np.ones(3, np.float32), np.ones(3, np.float64)], 0)
