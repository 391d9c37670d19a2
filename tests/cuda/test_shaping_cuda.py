"""kernels/shaping.cu in the simulator and the PTX interpreter: copies, so equal to the oracle bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from simulated import DEVICES, in_every_order, view_off_by_one

from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError, shaping
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.device_trace import TraceDevice, hollow
from pycnn.backends.sim import Simulated
from pycnn.shape import Padding
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

FORWARD = DEVICES["forward"]
PADS: list[Padding] = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 3, 2, 0), (9, 0, 0, 11)]

# Parts of vectors and of single elements, empty ones, along the first, a middle and the last axis; more than a launch
# holds.
JOINS: list[tuple[tuple[int, ...], int, tuple[int, ...]]] = [
    ((2, 1, 5, 7), 1, (3, 1, 4)),
    ((2, 1, 4, 8), 1, (3, 1, 80)),
    ((2, 3, 5, 7), 0, (1, 0, 2)),
    ((2, 3, 5, 7), -1, (1, 2)),
    ((2, 3, 5, 8), -1, (4, 8, 12)),
    ((1, 1, 40, 41), 1, (3, 1, 0, 2)),
    ((3,), 0, (5,)),
    ((2, 4, 3), 1, (0, 0)),
    ((0, 4), 1, (1, 2)),
    ((3, 1, 2), 1, tuple(range(1, 40))),
    # Whole stretches, but rows, offsets or the rows of y that are no multiple of four.
    ((2, 1, 33, 63), 1, (1, 2)),
    ((2, 1), 1, (3, 4097, 4096)),
    ((2, 1), 1, (4096, 4096, 3)),
    ((2, 1), 1, (4096, 4097, 3)),
]


@pytest.fixture(params=["narrow", "wide"])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the instances with 32-bit coordinates run, or those with 64-bit ones."""
    if request.param == "wide":
        monkeypatch.setattr(shaping, "NARROW", 0)
    return str(request.param)


def parts_of(shape: tuple[int, ...], axis: int, sizes: Sequence[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = [tuple(size if i == axis % len(shape) else n for i, n in enumerate(shape)) for size in sizes]
    return [rng.normal(size=one).astype(np.float32) for one in shapes]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (1, 2, 30, 44), (0, 2, 3, 3), (1, 2, 0, 3)], ids=str)
@pytest.mark.parametrize("padding", PADS, ids=str)
def test_pad2d(shape: tuple[int, ...], padding: Padding, width: str) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for value in (0.0, -1.5, -np.inf, np.nan, 1e300):
        (y,) = in_every_order(lambda backend, value=value: backend.pad2d(x, padding, value))
        np.testing.assert_array_equal(y, reference.pad2d(x, padding, value))
    assert {instance.name for instance in FORWARD.host.device.launches[-1:]} == {width}


@pytest.mark.parametrize(("shape", "axis", "sizes"), JOINS, ids=str)
def test_concat(shape: tuple[int, ...], axis: int, sizes: tuple[int, ...], width: str) -> None:
    parts = parts_of(shape, axis, sizes)
    before = len(FORWARD.host.device.launches)
    (y,) = in_every_order(lambda backend: backend.concat(parts, axis))
    np.testing.assert_array_equal(y, reference.concat(parts, axis))
    full = sum(part.size > 0 for part in parts)
    assert len(FORWARD.host.device.launches) - before == -(-full // shaping.PARTS)


@pytest.mark.nvrtc
def test_ptx(width: str) -> None:
    backend = Simulated(Host(PtxDevice()))
    x = np.random.default_rng(2).normal(size=(2, 3, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(backend.pad2d(x, (0, 3, 2, 1), -1.5), reference.pad2d(x, (0, 3, 2, 1), -1.5))
    for shape, axis, sizes in JOINS:
        parts = parts_of(shape, axis, sizes)
        np.testing.assert_array_equal(backend.concat(parts, axis), reference.concat(parts, axis))


def test_operands_that_start_between_vectors_or_have_gaps() -> None:
    device = SimDevice()
    host = Host(device)
    parts = parts_of((2, 1, 32, 32), 1, (2, 4))
    mixed = [view_off_by_one(device, parts[0]), device.alloc(parts[1].shape, np.float32)]
    device.fill(mixed[1], parts[1])
    np.testing.assert_array_equal(host.concat(mixed, 1), reference.concat(parts, 1))
    np.testing.assert_array_equal(host.pad2d(mixed[0], (1, 2, 3, 4), 5.0), reference.pad2d(parts[0], (1, 2, 3, 4), 5.0))
    gaps = [part[..., ::2] for part in parts]
    np.testing.assert_array_equal(FORWARD.concat(gaps, 1), reference.concat(gaps, 1))


def test_nothing_launches_nothing() -> None:
    device = SimDevice()
    backend = Simulated(Host(device))
    assert backend.pad2d(np.ones((0, 1, 2, 2), np.float32), (1, 1, 1, 1), 0.0).shape == (0, 1, 4, 4)
    assert backend.concat([np.ones((2, 0), np.float32)] * 2, 1).shape == (2, 0)
    assert device.launches == []


def test_past_two_to_the_31_elements() -> None:
    device = SimDevice()
    host = Host(device)
    size = 2**31 + 40
    a, b = device.alloc((size,), np.float32), device.alloc((9,), np.float32)
    a[:3], a[-3:], b[...] = (1, 2, 3), (4, 5, 6), 7
    blocks = -(-size // 2048)
    device.blocks = [0, blocks - 1, blocks]
    y = host.concat([a, b], 0)
    assert (y[:3].tolist(), y[size - 3 :].tolist()) == ([1, 2, 3], [4, 5, 6] + [7] * 9)

    x = a.reshape(1, 4, 1, -1)
    pixels = 4 * (x.shape[3] + 3)
    device.blocks = [0, -(-pixels // 2048) - 1]
    y = host.pad2d(x, (0, 0, 1, 2), 8.0)
    assert (y[0, 0, 0, :4].tolist(), y[0, 3, 0, -5:].tolist()) == ([8, 1, 2, 3], [4, 5, 6, 8, 8])
    assert {instance.name for instance in device.launches} == {"wide"}


@pytest.mark.parametrize(("elements", "name"), [(2**31 - 2049, "narrow"), (2**31 - 2048, "wide")])
def test_32_bits_reach_as_far_as_the_last_stretch(elements: int, name: str) -> None:
    device = TraceDevice()
    x = hollow((1, 1, 1, elements), "float32")
    Host(device).pad2d(x[..., 3:], (0, 0, 1, 2), 0.0)
    Host(device).concat([x[..., :5], x], 3)
    assert [instance.name for instance in device.launches] == [name, name]


def test_float64_is_refused() -> None:
    with pytest.raises(UnavailableError, match="no kernel for pad2d in float64"):
        FORWARD.pad2d(np.ones((1, 1, 2, 2)), (0, 0, 0, 0), 0.0)
    with pytest.raises(UnavailableError, match="no kernel for concat in float64"):
        FORWARD.concat([np.ones(2)], 0)
