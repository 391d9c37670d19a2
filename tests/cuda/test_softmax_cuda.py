"""kernels/softmax.cu in the simulator and the PTX interpreter, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import DEVICES, Ends, close, in_every_order, wide

from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.layout import Rows
from pycnn.backends.sim import Simulated
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

FORWARD = DEVICES["forward"]

# Rows of one thread, of part of a warp, of a warp, of several warps; lanes from one to a warp, with tails; axes of size
# one; more rows than a block has, and elements of a row more than threads.
CASES: list[tuple[tuple[int, ...], int]] = [
    ((1,), 0),
    ((10,), 0),
    ((3, 1), 1),
    ((1, 3), 0),
    ((130, 10), 1),
    ((5, 17), -1),
    ((2, 1000), 1),
    ((2, 2053), 1),
    ((2, 21, 9, 11), 1),
    ((2, 3, 67), 1),
    ((3, 40, 5), 1),
    ((700, 3), 0),
    ((7, 300), 0),
    ((3, 2, 33), 2),
]


def bound(name: str, found: np.ndarray, expected: np.ndarray, length: int) -> None:
    # An exponential of 2 ulp of an argument rounded once (at most 20 here: 20 more roundings), a sum in parts of at
    # most length/256 + 9, a logarithm or a quotient.  A gradient's sum of `length` normal numbers is some sqrt(length).
    backward = name.endswith("bwd")
    scale = float(np.abs(expected).max(initial=0)) + (length**0.5 if backward else 0)
    close(found, expected, 48 if backward else 32, scale)


@pytest.mark.parametrize(("shape", "axis"), CASES, ids=str)
@pytest.mark.parametrize("prefix", ["softmax", "log_softmax"])
def test_equals_reference(prefix: str, shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(scale=4, size=shape).astype(np.float32)
    dy = rng.normal(size=shape).astype(np.float32)
    name = f"{prefix}_fwd"
    (y,) = in_every_order(lambda backend: getattr(backend, name)(x, axis))
    bound(name, y, getattr(reference, name)(*wide(x), axis), shape[axis])
    name = f"{prefix}_bwd"
    (dx,) = in_every_order(lambda backend: getattr(backend, name)(dy, y, axis))
    bound(name, dx, getattr(reference, name)(*wide(dy, y), axis), shape[axis])


@pytest.mark.nvrtc
@pytest.mark.parametrize(("shape", "axis"), [((3, 10), 1), ((2, 300), 1), ((2, 7, 9), 1), ((40, 3), 0)], ids=str)
@pytest.mark.parametrize("prefix", ["softmax", "log_softmax"])
def test_ptx(prefix: str, shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(1)
    x, dy = rng.normal(scale=4, size=(2, *shape)).astype(np.float32)
    backend = Simulated(Host(PtxDevice()))
    y = getattr(backend, f"{prefix}_fwd")(x, axis)
    bound(f"{prefix}_fwd", y, getattr(reference, f"{prefix}_fwd")(*wide(x), axis), shape[axis])
    dx = getattr(backend, f"{prefix}_bwd")(dy, y, axis)
    bound(f"{prefix}_bwd", dx, getattr(reference, f"{prefix}_bwd")(*wide(dy, y), axis), shape[axis])


@pytest.mark.parametrize("inner", [(), (3,)])
@pytest.mark.parametrize("name", ["softmax_fwd", "log_softmax_fwd"])
def test_special_values(name: str, inner: tuple[int, ...]) -> None:
    nan, inf = np.nan, np.inf
    rows = [[1e4, 0, 0], [-1e4] * 3, [1e30, 1e30, -1e30], [3e38, -3e38, 3e38], [nan, 0, 1], [0, nan, 1]]
    rows += [[inf, 0, 0], [-inf, 0, 1], [0, -inf, -inf], [-inf] * 3, [inf, -inf, 0], [inf, inf, nan]]
    spread = np.array(rows).reshape(len(rows), 3, *(1,) * len(inner))
    x = np.ascontiguousarray(np.broadcast_to(spread, (len(rows), 3, *inner)), np.float32)
    # The exponential and the quotient: three roundings.
    np.testing.assert_allclose(getattr(FORWARD, name)(x, 1), getattr(reference, name)(x, 1), rtol=4e-7)


def test_a_nan_in_any_part_of_a_long_row_is_everywhere() -> None:
    for place in (0, 31, 255, 256, 999):
        x = np.zeros((2, 1000), np.float32)
        x[1, place] = np.nan
        y = FORWARD.softmax_fwd(x, 1)
        assert np.isfinite(y[0]).all()
        assert np.isnan(y[1]).all()


def test_strided_operands_and_empty_ones() -> None:
    x = np.random.default_rng(2).normal(size=(4, 22)).astype(np.float32)
    close(FORWARD.softmax_fwd(x[:, ::2], 1), reference.softmax_fwd(*wide(x[:, ::2]), 1), 32)
    device = SimDevice()
    backend = Simulated(Host(device))
    for shape, axis in (((0, 4), 1), ((2, 3, 0), 1), ((2, 0), 1)):
        empty = np.ones(shape, np.float32)
        assert backend.softmax_fwd(empty, axis).shape == shape
        assert backend.log_softmax_bwd(empty, empty, axis).shape == shape
    assert device.launches == []


@pytest.mark.parametrize("threads", [256])
def test_layout_covers_every_element_with_powers_of_two(threads: int) -> None:
    for shape, axis in CASES:
        rows = Rows.of(shape, axis, threads)
        for count in (rows.lanes, rows.rows, threads // (rows.lanes * rows.rows)):
            assert count >= 1
            assert count & (count - 1) == 0
        assert rows.lanes <= 32
        assert rows.blocks(threads) * threads // (rows.lanes * rows.rows) * rows.lanes >= rows.outer * rows.inner


def test_past_two_to_the_31_elements() -> None:
    device = Ends()
    host = Host(device)
    shape = (2, 4, 2**28 + 33)
    x = device.alloc(shape, np.float32)
    x[0, :, 0], x[1, :, -1] = (0, 1, 2, 3), (3, 2, 1, 0)
    expected = reference.softmax_fwd(np.arange(4.0), 0)
    y = host.softmax_fwd(x, 1)
    np.testing.assert_allclose(y[0, :, 0], expected, rtol=4e-7)
    np.testing.assert_allclose(y[1, :, -1], expected[::-1], rtol=4e-7)
    dx = host.softmax_bwd(y, y, 1)
    wanted = reference.softmax_bwd(expected, expected, 0)
    np.testing.assert_allclose(dx[1, :, -1], wanted[::-1], atol=1e-6)


def test_float64_is_refused() -> None:
    with pytest.raises(UnavailableError, match="no kernel for log_softmax_bwd in float64"):
        FORWARD.log_softmax_bwd(np.ones((2, 2)), np.ones((2, 2)), 1)
