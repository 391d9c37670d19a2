"""Conversions between float32, float16 and bfloat16, and how arrays of 16 bits reach the devices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, ORDERS, Ends, view_off_by_one

import pycnn
from pycnn.backends.cuda import Host, UnavailableError
from pycnn.backends.cuda.convert import convert
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.backends.trace import hollow, tracing
from pycnn.ops._arrays import Call
from pycnn.testing import check_conversions, half_dtypes
from pycnn.testing.halves import rounded
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

FLOAT16, FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)
HALVES = half_dtypes()


@pytest.mark.parametrize("order", ORDERS)
def test_every_number_of_16_bits_is_converted_as_numpy_does(order: str) -> None:
    assert check_conversions(DEVICES[order]) == len(HALVES) * (len(HALVES) + 1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, dtype: (x.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32).astype(dtype),  # cut off
        lambda x, dtype: np.nan_to_num(x.astype(np.float32), nan=1.0).astype(dtype),
        lambda x, dtype: x.view(np.uint16).view(np.float16).astype(dtype) if x.dtype.itemsize == 2 else x.astype(dtype),
        lambda x, dtype: np.minimum(x.astype(np.float32), 65504).astype(dtype),
        lambda x, dtype: abs(x.astype(np.float32)).astype(dtype),
    ],
    ids=["cut off", "NaN lost", "bfloat16 read as float16", "saturated", "sign lost"],
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_a_wrong_conversion_is_caught(wrong: Any) -> None:
    if len(HALVES) < 2:
        pytest.skip("needs ml_dtypes")
    with pytest.raises(AssertionError, match="became"):
        check_conversions(SimpleNamespace(convert=wrong))


@pytest.mark.parametrize("order", ORDERS)
def test_odd_sizes_and_views_between_vectors(order: str) -> None:
    device = SimDevice(order=order, seed=3)
    for given, wanted in ((HALVES[-1], FLOAT32), (FLOAT32, FLOAT16)):
        for size in (0, 1, 7, 8, 2048, 2049):
            x = np.arange(size).astype(given)
            found = convert(Host(device), view_off_by_one(device, x), wanted)
            assert found.dtype == wanted
            assert np.array_equal(found, rounded(x, wanted))


def test_gaps_are_closed_and_what_is_there_already_stays() -> None:
    device = SimDevice()
    x = device.alloc((3, 4), FLOAT16)
    x[...] = np.arange(12).reshape(3, 4)
    assert np.array_equal(convert(Host(device), x[:, ::2], FLOAT32), x[:, ::2])
    assert convert(Host(device), x, "float16") is x
    with pytest.raises(UnavailableError, match="no kernel for conversion of float16 to float64"):
        convert(Host(device), x, np.float64)


def test_past_two_to_the_31_elements() -> None:
    device = Ends()
    x = device.alloc((2**31 + 10,), FLOAT16)
    x[:3], x[-3:] = (-1, 2, 3), (4, -5, 6)
    y = convert(Host(device), x, FLOAT32)
    assert (y[:3].tolist(), y[-3:].tolist()) == ([-1, 2, 3], [4, -5, 6])


@pytest.mark.nvrtc
def test_the_very_instructions_convert_as_numpy_does() -> None:
    """Of some numbers across all of them: a whole stretch by vectors, and a tail."""
    backend = Simulated(Host(PtxDevice()))

    def convert(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
        places = np.linspace(0, x.size - 1, 2048 + 11).astype(int)
        y = rounded(x.astype(np.float32), dtype)
        y[places] = backend.convert(x[places], dtype)
        return y

    assert check_conversions(SimpleNamespace(convert=convert)) == len(HALVES) * (len(HALVES) + 1)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
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
