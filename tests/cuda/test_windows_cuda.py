"""kernels/windows.cu in the simulator and the PTX interpreter: copies and sums of integers, equal to the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, Ends, in_every_order, view_off_by_one

from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError, windows
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.testing import check_operator, half_dtypes, operators
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

CASES = operators("unfold2d", "fold2d")


@pytest.fixture(params=["narrow", "wide"])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the instances with 32-bit coordinates run, or those with 64-bit ones."""
    if request.param == "wide":
        monkeypatch.setattr(windows, "NARROW", 0)
    return str(request.param)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases_agree_with_the_oracle_in_every_order(case: Any, width: str) -> None:
    arguments = case.arguments()
    (found,) = in_every_order(lambda backend: getattr(backend, case.function)(*arguments))
    np.testing.assert_array_equal(found, getattr(reference, case.function)(*arguments))
    if found.size:
        assert DEVICES["forward"].host.device.launches[-1].name == width


@pytest.mark.parametrize("dtype", half_dtypes(), ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_16_bits_are_moved_as_they_are_and_added_up_in_float32(case: Any, dtype: Any) -> None:
    check_operator(DEVICES["random"], case, dtype)


def test_random_windows() -> None:
    """Settings that nobody thought of; the transposes agree: <unfold(x), y> = <x, fold(y)>."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, c, h, w = (int(v) for v in rng.integers(1, [3, 4, 12, 14]))
        kernel, stride, dilation, out = ([int(v) for v in rng.integers(1, most, 2)] for most in (4, 4, 4, 9))
        before = [int(v) for v in rng.integers(-3, 5, 2)]
        how = (*map(tuple, (kernel, stride, before, dilation)), tuple(out))
        x = rng.integers(-9, 10, (n, c, h, w)).astype(np.float32)
        for rows_first in (False, True):
            found = DEVICES["random"].unfold2d(x, *how, rows_first)
            np.testing.assert_array_equal(found, reference.unfold2d(x, *how, rows_first), str((x.shape, how)))
        side_by_side = reference.unfold2d(x, *how, False)
        y = rng.integers(-9, 10, side_by_side.shape).astype(np.float32)
        found = DEVICES["random"].fold2d(y, (h, w), *how[:4])
        np.testing.assert_array_equal(found, reference.fold2d(y, (h, w), *how[:4]), str((x.shape, how)))
        assert (side_by_side * y).sum() == (x * found).sum()


@pytest.mark.nvrtc
@pytest.mark.parametrize("about", ["uneven", "uneven, rows first", "starts inside"])
def test_ptx(about: str, width: str) -> None:
    backend = Simulated(Host(PtxDevice()))
    for case in CASES:
        if case.name.endswith(f": {about}"):
            arguments = case.arguments()
            expected = getattr(reference, case.function)(*arguments)
            np.testing.assert_array_equal(getattr(backend, case.function)(*arguments), expected)


def test_operands_that_start_between_vectors() -> None:
    device = SimDevice()
    x = np.arange(2 * 40 * 50, dtype=np.float32).reshape(1, 2, 40, 50)
    how = ((3, 3), (1, 1), (1, 1), (1, 1), (40, 50))
    y = Host(device).unfold2d(view_off_by_one(device, x), *how, False)
    np.testing.assert_array_equal(y, reference.unfold2d(x, *how, False))
    dx = Host(device).fold2d(view_off_by_one(device, np.array(y)), (40, 50), *how[:4])
    np.testing.assert_array_equal(dx, reference.fold2d(np.array(y), (40, 50), *how[:4]))


def test_past_two_to_the_31_elements() -> None:
    """The first and the last block of arrays of more than 2^31 elements, in mappings that nobody else touches."""
    device = Ends()
    host = Host(device)
    size, ones = (1, 1, 2, 2**30 + 40), ((1, 1), (1, 1), (0, 0), (1, 1))
    x = device.alloc(size, np.float32)
    x[0, 0, 0, :3], x[0, 0, 1, -3:] = (1, 2, 3), (6, 7, 8)
    for found in (host.unfold2d(x, *ones, size[2:], False), host.fold2d(x, size[2:], *ones)):
        assert found[0, 0, 0, :3].tolist() == [1, 2, 3]
        assert found[0, 0, 1, -3:].tolist() == [6, 7, 8]
    assert {instance.name for instance in device.launches} == {"wide"}


def test_float64_is_refused() -> None:
    x = np.ones((1, 1, 2, 2))
    ones = ((1, 1), (1, 1), (0, 0), (1, 1))
    with pytest.raises(UnavailableError, match="no kernel for unfold2d in float64"):
        DEVICES["forward"].unfold2d(x, *ones, (2, 2), False)
    with pytest.raises(UnavailableError, match="no kernel for fold2d in float64"):
        DEVICES["forward"].fold2d(x, (2, 2), *ones)
