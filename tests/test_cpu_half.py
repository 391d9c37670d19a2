"""float16 and bfloat16 to float32 and back: every number of 16 bits, and float32 of every exponent."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_engine import instruction_sets

from pycnn import _cpu
from pycnn.backends.cpu import half

NAMES = ["float16", "bfloat16"]


def dtype_of(name: str) -> np.dtype:
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return np.dtype(name)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """The same numbers and signs; of NaN only that it is one."""
    assert found.dtype == expected.dtype
    found, expected = found.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(expected[number]))


@pytest.mark.parametrize("name", NAMES)
def test_every_half_widens_exactly_and_comes_back(name: str) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(dtype_of(name))
    for _ in instruction_sets():
        wide = half.widen(every)
        same(wide, every.astype(np.float32))
        same(half.narrow(wide, every.dtype), every)


@pytest.mark.parametrize("name", NAMES)
def test_narrowing_rounds_to_nearest_even(name: str) -> None:
    dtype = dtype_of(name)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32)  # every exponent, subnormal, infinite and NaN among them
    # Half way between neighbours of either format, and one bit beside: the ties.
    halves = np.arange(2**16, dtype=np.uint16).view(dtype)[: 2**15 - 1].astype(np.float32)
    with np.errstate(all="ignore"):
        middle = ((halves[:-1].astype(np.float64) + halves[1:]) / 2).astype(np.float32)
    beside = [np.nextafter(middle, np.float32(way)) for way in (0, np.inf)]
    x = np.concatenate([bits.view(np.float32), middle, -middle, *beside, np.float32([65519.9, 65520, 3.4e38])])
    with np.errstate(all="ignore"):
        expected = x.astype(dtype)
    for _ in instruction_sets():
        same(half.narrow(x, dtype), expected)


def test_any_length_and_stride() -> None:
    for length in (0, 1, 15, 16, 17, 16384, 16401):
        x = np.arange(2 * length, dtype=np.float16)[::-2]
        for _ in instruction_sets():
            same(half.widen(x), x.astype(np.float32))
            same(half.narrow(half.widen(x), x.dtype), x)
    assert half.widen(np.float16(3) * np.ones((), np.float16)).shape == ()


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError):
        _cpu.widen(np.ones(3, np.float16), False)
    with pytest.raises(TypeError, match="narrow takes float32, got float64"):
        half.narrow(np.ones(3), np.dtype(np.float16))
