"""What every test of the native engine needs: all instruction sets, several thread counts, the promises of any call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pycnn import _cpu

ISAS = [isa for isa in ("baseline", "avx2", "avx512") if _cpu.isa_supported(isa)]
DTYPES = (np.float32, np.float64)
Function = Callable[..., Any]


def instruction_sets() -> Iterator[str]:
    """Each instruction set of this machine, in force until the next one is asked for; the best one afterwards."""
    try:
        for isa in ISAS:
            assert _cpu.set_isa(isa)
            yield isa
    finally:
        _cpu.set_isa("auto")


def scattered(array: np.ndarray) -> np.ndarray:
    """The same values, every axis backwards in memory and with gaps on the last."""
    room = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan if array.dtype.kind == "f" else -7, array.dtype)
    view = room[(*(slice(None, None, -1) for _ in array.shape[:-1]), slice(None, None, -2))]
    view[...] = array
    return view


def results(value: Any) -> tuple[np.ndarray, ...]:
    return value if isinstance(value, tuple) else (value,)


def check(function: Function, *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """`function(*arrays)`, after asserting what every call promises.

    Fresh C-contiguous results; inputs keep their bytes; the same bits from one, two and three threads, and from
    operands that are not contiguous.
    """
    given = [array for array in arrays if array is not None]
    before = [array.tobytes() for array in given]
    threads = _cpu.num_threads()
    try:
        _cpu.set_num_threads(1)
        first = results(function(*arrays))
        bits = [result.tobytes() for result in first]
        for count in (2, 3):
            _cpu.set_num_threads(count)
            again = results(function(*arrays))
            assert [result.tobytes() for result in again] == bits, f"{count} threads give other bits than one"
    finally:
        _cpu.set_num_threads(threads)
    strided = results(function(*[a if a is None or a.ndim == 0 else scattered(a) for a in arrays]))
    assert [result.tobytes() for result in strided] == bits, "operands that are not contiguous give other bits"
    assert [array.tobytes() for array in given] == before, "an input was modified"
    for result in first:
        assert result.flags.c_contiguous
        assert not any(np.shares_memory(result, array) for array in given)
    return first


def close(found: np.ndarray, expected: np.ndarray, roundings: float, scale: float | None = None) -> None:
    """|found - expected| is at most `roundings` of found's dtype at `scale` (by default the largest magnitude)."""
    assert found.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    if scale is None:
        scale = float(np.abs(expected[finite]).max(initial=0.0))
    limit = roundings * float(np.finfo(found.dtype).eps) / 2 * scale
    np.testing.assert_allclose(found[finite], expected[finite], rtol=0, atol=limit)
