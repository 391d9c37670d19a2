"""Conversions between float32, float16 and bfloat16, and how arrays of 16 bits reach the devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated import ORDERS, Ends, in_every_order, view_off_by_one

import pycnn
from pycnn import ops
from pycnn.backends.cuda import Host, UnavailableError
from pycnn.backends.cuda.convert import convert
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.trace import hollow, tracing
from pycnn.ops._arrays import Call

pytestmark = pytest.mark.simulator

BFLOAT16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
FLOAT16, FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)
PAIRS = [
    (given, wanted)
    for given in (FLOAT32, FLOAT16, BFLOAT16)
    for wanted in (FLOAT32, FLOAT16, BFLOAT16)
    if given != wanted
]


def every(dtype: np.dtype) -> np.ndarray:
    """All numbers of 16 bits; of float32 those, their neighbours, and what lies halfway between two of them."""
    if dtype != FLOAT32:
        return np.arange(2**16, dtype=np.uint16).view(dtype)
    halves = [every(half).astype(np.float32) for half in (FLOAT16, BFLOAT16)]
    places = np.concatenate([half.view(np.uint32) for half in halves])
    ties = np.concatenate([places[: 2**16] + (1 << 12), places[2**16 :] + (1 << 15)])
    return np.concatenate([places, ties, ties - 1, ties + 1]).view(np.float32)


@np.errstate(all="ignore")
def rounded(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """NumPy's own, by way of float32, which holds every number of 16 bits."""
    return x.astype(np.float32).astype(dtype)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Bit for bit, but for what a NaN carries."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(found), nan)
    assert found[~nan].tobytes() == expected[~nan].tobytes()


@pytest.mark.parametrize(("given", "wanted"), PAIRS, ids=str)
def test_every_number_of_16_bits_is_converted_as_numpy_does(given: np.dtype, wanted: np.dtype) -> None:
    x = every(given)
    for part in (x, x[: 8 * 256 * 3 + 5]):  # whole stretches alone, and a tail
        (found,) = in_every_order(lambda backend, part=part: backend.convert(part, wanted))
        same(found, rounded(part, wanted))


@pytest.mark.parametrize("order", ORDERS)
def test_odd_sizes_and_views_between_vectors(order: str) -> None:
    device = SimDevice(order=order, seed=3)
    for given, wanted in ((FLOAT16, FLOAT32), (FLOAT32, BFLOAT16)):
        for size in (0, 1, 7, 8, 2048, 2049):
            x = np.arange(size, dtype=given)
            same(np.array(convert(Host(device), view_off_by_one(device, x), wanted)), rounded(x, wanted))


def test_gaps_are_closed_and_what_is_there_already_stays() -> None:
    device = SimDevice()
    x = device.alloc((3, 4), FLOAT16)
    x[...] = np.arange(12).reshape(3, 4)
    same(np.array(convert(Host(device), x[:, ::2], FLOAT32)), np.array(x[:, ::2], FLOAT32))
    assert convert(Host(device), x, "float16") is x
    with pytest.raises(UnavailableError, match="no kernel for conversion of float16 to float64"):
        convert(Host(device), x, np.float64)


def test_past_two_to_the_31_elements() -> None:
    device = Ends()
    x = device.alloc((2**31 + 10,), FLOAT16)
    x[:3], x[-3:] = (-1, 2, 3), (4, -5, 6)
    y = convert(Host(device), x, FLOAT32)
    assert (y[:3].tolist(), y[-3:].tolist()) == ([-1, 2, 3], [4, -5, 6])


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_the_devices_are_given_16_bits_and_the_others_float32(dtype: np.dtype) -> None:
    x = np.ones((2, 3), dtype)
    for backend, reaches in (("sim", dtype), ("cpu", FLOAT32), ("reference", FLOAT32), ("shapes", FLOAT32)):
        with pycnn.use_backend(backend):
            call = Call("w", x=x, w=None)
            assert call.arrays[0].dtype == reaches
            assert call.arrays[1] is None
            assert call.back(np.ones(1, reaches)).dtype == dtype
            call.widen()
            assert call.arrays[0].dtype == np.float32
            assert call.back(np.ones(1, np.float32)).dtype == dtype
    with tracing("sm_90a"):
        assert Call(x=hollow((2, 3), dtype)).arrays[0].dtype == dtype


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_what_has_no_kernel_of_16_bits_says_so(name: str) -> None:
    x: Any = np.ones((4, 4), {"float16": FLOAT16, "bfloat16": BFLOAT16}[name])
    with pycnn.use_backend("sim"), pytest.raises(UnavailableError, match=f"no kernel for gemm in {name}"):
        ops.gemm(x, x)
