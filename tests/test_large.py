"""Sums and concatenations of Tensors: the same bits whoever computes them, and the engine for those that are large."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cpu_engine import DTYPES

import pycnn
from pycnn import large
from pycnn.backends import cpu
from pycnn.tensor import Tensor

SIZE = 40001  # above what the engine is asked for, and no multiple of a vector or a task


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the engine's functions as they are called."""
    calls: list[str] = []

    def counted(name: str, function: Any) -> Any:
        return lambda *args: (calls.append(name), function(*args))[1]

    for name in ("add", "add_to", "concat"):
        monkeypatch.setattr(cpu, name, counted(name, getattr(cpu, name)))
    return calls


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_engine_adds_what_is_large(dtype: type, engine: list[str]) -> None:
    a, b = normal(SIZE, dtype=dtype), normal(SIZE, dtype=dtype, seed=1)
    a[:3], b[:3] = [np.inf, np.nan, -0.0], [-np.inf, 1, -0.0]
    with np.errstate(invalid="ignore"):
        expected = a + b
    np.testing.assert_array_equal(large.plus(a, b), expected)
    large.add_to(a, b)
    np.testing.assert_array_equal(a, expected)
    np.testing.assert_array_equal((Tensor(a) + Tensor(b)).data, a + b)
    assert engine == ["add", "add_to", "add"]


@pytest.mark.parametrize("size", [100, SIZE])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_16_bits_are_added_and_converted_alike_large_and_small(name: str, size: int, engine: list[str]) -> None:
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    dtype = np.dtype(name)
    a, b = (5e3 * normal(size)).astype(dtype), (9e3 * normal(size, seed=1)).astype(dtype)
    a[:4], b[:4] = [np.inf, np.nan, -0.0, 6e4], [-np.inf, 1, -0.0, 6e4]  # of which the last is too large for float16
    with np.errstate(invalid="ignore", over="ignore"):
        expected = a + b
        found = large.plus(a, b)
        large.add_to(a, b)
    for one in (found, a):
        assert one.dtype == dtype
        np.testing.assert_array_equal(one.astype(np.float32), expected.astype(np.float32))
    assert engine == ([] if size == 100 else ["add_to", "add_to"])
    wide = np.append(np.float32([1e30, -1e30, np.nan, 2.0**-26]), 5e3 * normal(size))
    with np.errstate(over="ignore"):
        rounded = wide.astype(dtype)
    found = large.cast(wide, dtype)  # silent
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(np.float32), rounded.astype(np.float32))
    back = large.cast(found, np.float32)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, rounded.astype(np.float32))
    if name == "float16":
        foreign = rounded.astype(">f2")
        np.testing.assert_array_equal(large.cast(foreign, np.float32), back)
        np.testing.assert_array_equal(large.plus(foreign[4:], foreign[4:]), 2 * foreign[4:])


def test_a_conversion_is_a_copy() -> None:
    for array in (normal(7), normal(SIZE), normal(SIZE).astype(np.float16)):
        assert not np.may_share_memory(large.cast(array, array.dtype), array)


ELSEWHERE = {
    "small": (normal(7), normal(7, seed=1)),
    "of two dtypes": (normal(SIZE), normal(SIZE, dtype=np.float64)),
    "integers": (np.arange(SIZE), np.arange(SIZE)),
    "of two shapes": (normal(3, SIZE), normal(SIZE, seed=1)),
    "turned": (normal(200, 300), normal(300, 200, seed=1).T),
    "of foreign bytes": (normal(SIZE).astype(">f4"), normal(SIZE, seed=1).astype(">f4")),
    "a number": (normal(SIZE), np.float32(2)),
}


@pytest.mark.parametrize(("a", "b"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_numpy_adds_everything_else(a: np.ndarray, b: Any, engine: list[str]) -> None:
    found = large.plus(a, b)
    np.testing.assert_array_equal(found, a + b)
    assert found.dtype == (a + b).dtype
    into = a.copy()
    large.add_to(into, b)
    np.testing.assert_array_equal(into, (a + b).astype(a.dtype))
    assert engine == []


def test_another_backend_is_respected(engine: list[str]) -> None:
    a = normal(SIZE)
    with pycnn.use_backend("reference"):
        np.testing.assert_array_equal(large.plus(a, a), 2 * a)
        large.concatenate([a, a], 0)
    assert engine == []


def test_concatenations(engine: list[str]) -> None:
    wide, narrow = normal(3, 5, 7000), normal(3, 2, 7000, seed=1)
    parts = [wide, narrow, narrow]
    np.testing.assert_array_equal(large.concatenate(parts, 1), np.concatenate(parts, 1))
    np.testing.assert_array_equal(pycnn.cat([Tensor(part) for part in parts], -2).data, np.concatenate(parts, 1))
    assert engine == ["concat"] * 2
    for others in ([narrow.astype(np.float64), wide], [wide, narrow[:, ::-1]], [narrow[:, :1], narrow[:, 1:]]):
        found = large.concatenate(others, 1)
        np.testing.assert_array_equal(found, np.concatenate(others, 1))
        assert found.dtype == np.concatenate(others, 1).dtype
    assert engine == ["concat"] * 2


def test_gradients_through_large_arrays_are_those_of_the_reference(engine: list[str]) -> None:
    def gradient() -> np.ndarray:
        x = Tensor(np.arange(SIZE, dtype=np.float32) % 64 - 32, requires_grad=True)
        y = x * 2.0
        z = pycnn.cat([pycnn.functional.relu(y) + y, y + y * 3.0])
        z.backward(Tensor(np.arange(2 * SIZE, dtype=np.float32) % 16))
        assert x.grad is not None
        return x.grad.data

    found = gradient()
    assert {"add", "add_to", "concat"} <= set(engine)
    with pycnn.use_backend("reference"):
        np.testing.assert_array_equal(found, gradient())  # integers below 2^24: exact in any order


@pytest.mark.parametrize("size", [1000, 1 << 18])
def test_arrays_that_overlap_are_added_as_they_were(size: int) -> None:
    buffer = np.arange(size + 16.0)
    before = buffer.copy()
    large.add_to(buffer[16:], buffer[:size])
    np.testing.assert_array_equal(buffer[16:], before[16:] + before[:size])


@pytest.mark.filterwarnings("error")
def test_what_is_too_large_for_16_bits_is_infinite_without_a_word() -> None:
    for size in (2, SIZE):
        y = large.cast(np.full(size, -1e6, np.float32), np.float16)
        assert y.dtype == np.float16
        assert np.isneginf(y).all()
