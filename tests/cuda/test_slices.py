"""Sums of partial results: in order, whatever the size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated import ORDERS

from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.slices import sum_slices
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator


def summed(device: SimDevice | PtxDevice, slices: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    given, out = device.alloc(slices.shape, np.float32), device.alloc(slices.shape[1:], dtype)
    device.fill(given, slices)
    sum_slices(Host(device), given, out)
    return np.array(out)


def in_order(slices: np.ndarray) -> np.ndarray:
    total = np.zeros(slices.shape[1:], np.float32)
    for one in slices:
        total += one
    return total


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 256), (5, 7, 123), (17, 1000), (4, 0)])
def test_sum_is_that_of_a_loop_bit_for_bit(shape: tuple[int, ...], order: str) -> None:
    slices = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert np.array_equal(summed(SimDevice(order=order, seed=1), slices), in_order(slices))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_a_sum_in_16_bits_is_that_of_float32_rounded_once(name: str) -> None:
    """Four ones beside 2048 would be lost one by one in float16, and in bfloat16 beside 256."""
    dtype = np.dtype(name) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    slices = np.ones((5, 700), np.float32)
    slices[0] = 2048 if name == "float16" else 256
    slices[:, :300] = 100 * np.random.default_rng(0).standard_normal((5, 300))
    slices[0, :3] = np.nan, np.inf, 3.4e38
    for order in ORDERS:
        found = summed(SimDevice(order=order, seed=1), slices, dtype)
        with np.errstate(over="ignore"):
            expected = in_order(slices).astype(dtype)
        assert found.dtype == dtype
        assert np.array_equal(found.astype(np.float32), expected.astype(np.float32), equal_nan=True)


@pytest.mark.nvrtc
def test_ptx_gives_the_same() -> None:
    slices = np.random.default_rng(0).standard_normal((3, 300)).astype(np.float32)
    assert np.array_equal(summed(PtxDevice(), slices), in_order(slices))


def test_past_two_to_the_31_elements() -> None:
    device = SimDevice()
    slices, out = device.alloc((2, 2**31 + 10), np.float32), device.alloc((2**31 + 10,), np.float32)
    slices[0, :3], slices[1, :3], slices[0, -3:], slices[1, -3:] = 1, 2, 3, 4
    device.blocks = [0, -(-out.size // 256) - 1]
    sum_slices(Host(device), slices, out)
    assert out[:3].tolist() == [3, 3, 3]
    assert out[-3:].tolist() == [7, 7, 7]
