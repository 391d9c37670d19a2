"""kernels/resample.cu, sample.cu and boxes.cu in the simulator, in every order of threads, and the PTX interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, Ends, in_every_order, results, view_off_by_one

import pycnn
from pycnn import functional as F
from pycnn.backends import reference
from pycnn.backends.cuda import Host, resample
from pycnn.backends.cuda.boxes import _float_below
from pycnn.backends.cuda.device_trace import TraceDevice, hollow
from pycnn.backends.sim import Simulated
from pycnn.resampling import interpolation_taps
from pycnn.testing import check_operator, operators
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

FORWARD = DEVICES["forward"]
FUNCTIONS = ("resample", "sample_fwd", "sample_dx", "sample_dw", "roi_max", "nms")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_order_of_threads_changes_no_bit(function: str) -> None:
    """Of atomics too: they add integers."""
    for case in operators(function):
        found = in_every_order(lambda backend, case=case: getattr(backend, function)(*case.arguments()))
        expected = getattr(reference, function)(*case.arguments())
        assert len(found) == (len(expected) if isinstance(expected, tuple) else 1)


@pytest.mark.nvrtc
@pytest.mark.parametrize("function", FUNCTIONS)
def test_ptx(function: str) -> None:
    backend = Simulated(Host(PtxDevice("sm_90a")))
    for case in operators(function):
        if not case.about.startswith("wide"):
            check_operator(backend, case)


def test_coordinates_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "NARROW", 0)
    for case in operators("resample"):
        check_operator("sim", case)
    x = np.ones((1, 1, 3, 3), np.float32)
    FORWARD.resample(x, interpolation_taps("linear", 3, 6), None)
    assert FORWARD.host.device.launches[-1].name == "wide"


def test_past_31_bits_the_last_element_is_right() -> None:
    """First and last blocks of an output of more than 2^31 elements."""
    device = Ends()
    host = Host(device)
    x = device.alloc((2**28 + 64, 4), np.float32)
    x[0], x[-1] = 3.0, 7.0
    y = host.resample(x, None, interpolation_taps("nearest", 4, 8))
    assert (y[0, 0], y[-1, -1]) == (3.0, 7.0)
    assert device.launches[-1].name == "wide"


def test_many_taps_take_two_launches_and_round_once() -> None:
    rows, columns = (interpolation_taps("linear", 64, 8, antialias=True) for _ in range(2))
    x = np.random.default_rng(0).standard_normal((1, 2, 64, 64)).astype(np.float16)
    before = len(FORWARD.host.device.launches)
    y = FORWARD.resample(x, rows, columns)
    assert len(FORWARD.host.device.launches) - before == 4  # to float32, two axes, and back
    exact = reference.resample(x.astype(np.float64), rows, columns)
    # Half a unit of float16, and what its float32 was off by.
    assert np.all(np.abs(y - exact) <= 0.5001 * np.spacing(np.abs(exact).astype(np.float16)))


def test_tables_are_copied_to_the_device_once() -> None:
    device = TraceDevice()
    host = Host(device)
    taps = interpolation_taps("linear", 9, 18)
    x = hollow((1, 1, 9, 9), "float32")
    for _ in range(3):
        host.resample(x, taps, taps)
    assert len(host._tables) == 1
    assert len(device.launches) == 3


def test_operands_that_start_anywhere() -> None:
    device = FORWARD.host.device
    for case in (operators("sample_dx")[0], operators("roi_max")[0]):
        arguments = case.arguments()
        shifted: list[Any] = [view_off_by_one(device, one) if isinstance(one, np.ndarray) else one for one in arguments]
        found = getattr(FORWARD.host, case.function)(*shifted)
        expected = getattr(reference, case.function)(*arguments)
        for one, right in zip(results(found), results(expected), strict=True):
            np.testing.assert_array_equal(one, right)


def test_a_tap_outside_its_image_takes_no_part() -> None:
    """Where the CPU raises, a GPU passes over it."""
    x, image = np.ones((1, 1, 4), np.float32), np.zeros(1, np.int64)
    index, weight = np.array([[[4, -2, 3]]]), np.ones((1, 1, 3), np.float32)
    assert FORWARD.sample_fwd(x, image, index, weight).tolist() == [[[0.0, 0.0, 1.0]]]
    assert FORWARD.sample_dx(weight, image, index, weight, (1, 1, 4)).tolist() == [[[0.0, 0.0, 0.0, 1.0]]]
    assert FORWARD.sample_dw(weight, x, image, index).tolist() == [[[0.0, 0.0, 1.0]]]


@pytest.mark.parametrize("number", [-1, 2, 2**40])
def test_an_image_that_is_not_there_takes_no_part(number: int) -> None:
    """Boxes say which image they lie in, and may say anything: no kernel reads or adds where that one would be."""
    x = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    image, index = np.array([number, 1]), np.zeros((2, 2, 5), np.int64)
    w, dy = np.ones(index.shape, np.float32), np.ones((2, 3, 5), np.float32)
    y = FORWARD.sample_fwd(x, image, index, w)
    assert not y[0].any()
    np.testing.assert_array_equal(y[1], np.repeat(2 * x[1, :, :1], 5, 1))
    dx = FORWARD.sample_dx(dy, image, index, w, x.shape)
    assert dx[1, :, 0].tolist() == [10.0] * 3
    assert dx.sum() == 30.0
    dw = FORWARD.sample_dw(dy, x, image, index)
    assert not dw[0].any()
    assert (dw[1] == x[1, :, 0].sum()).all()
    best, where = FORWARD.roi_max(x[:, :, None], image, np.array([[[0, 1]]] * 2), np.array([[[1, 3]]] * 2))
    assert best.ravel().tolist() == [0.0] * 3 + x[1, :, 2].tolist()
    assert where.ravel().tolist() == [-1] * 3 + [2] * 3


def test_windows_of_regions_end_with_the_image() -> None:
    x = np.arange(12.0, dtype=np.float32).reshape(1, 1, 3, 4)
    rows, columns = np.array([[[-(2**40), 2], [1, 2**40]]]), np.array([[[-3, 1], [3, 99]]])
    best, where = FORWARD.roi_max(x, np.array([0]), rows, columns)
    assert where.ravel().tolist() == best.ravel().tolist() == [4, 7, 8, 11]


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 0.7, 1.0])
def test_a_threshold_in_float32_divides_alike(threshold: float) -> None:
    found = np.float32(_float_below(threshold))
    assert float(found) <= threshold < float(np.nextafter(found, np.float32(2)))


def test_public_functions_run_on_the_simulator() -> None:
    rng = np.random.default_rng(0)
    x, grid = rng.standard_normal((1, 3, 6, 7)), rng.uniform(-1.2, 1.2, (1, 4, 5, 2))
    w, offset = rng.standard_normal((2, 3, 3, 3)), rng.standard_normal((1, 18, 4, 5))
    box = np.array([[0, 0.5, 0.5, 5.0, 4.0]])
    calls = [
        lambda x: F.interpolate(x, scale_factor=1.7, mode="bicubic"),
        lambda x: F.grid_sample(x, grid.astype(x.dtype)),
        lambda x: F.deform_conv2d(x, offset.astype(x.dtype), w.astype(x.dtype)),
        lambda x: F.roi_align(x, box, 2),
        lambda x: F.roi_pool(x, box, 2),
    ]
    for call in calls:
        found = []
        for backend, dtype in (("sim", np.float32), ("reference", np.float64)):
            with pycnn.use_backend(backend):
                image = pycnn.Tensor(x.astype(dtype), requires_grad=True)
                y = call(image)
                y.backward(pycnn.Tensor(np.ones(y.shape, dtype)))
                found.append((y.detach().numpy(), image.grad.numpy()))
        for one, right in zip(*found, strict=True):
            # Positions in float32, off by some units of 2^-24 of 7; sums of some tens of terms.
            np.testing.assert_allclose(one, right, rtol=0, atol=1e-4)
