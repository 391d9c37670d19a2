"""Channels-last arrays on the CUDA backend: read as they lie, by every operator on images, with results that lie so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from simulated import ORDERS, Ends, results, view_off_by_one

from pycnn.backends import reference
from pycnn.backends.cuda import Host, norm
from pycnn.backends.cuda.device_sim import SimArray, SimDevice
from pycnn.backends.cuda.reduce import LastSlices
from pycnn.backends.sim import Simulated
from pycnn.memory_format import is_channels_last, new_array, wants_channels_last
from pycnn.testing import ADAPTIVE_POOLS, check_adaptive_pool2d, check_pool2d, pools, random_pools
from pycnn.testing.halves import half_unit
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

DTYPES = [np.dtype(each) for each in (np.float32, np.float16, ml_dtypes.bfloat16)]
EPS = 1e-5

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)

# Sums whose order is that of memory, so that their last bits are not those of NCHW: over images, and over classes.
SUMS = ("channel_sum", "batch_norm_fwd", "batch_norm_bwd")
SHARES = ("softmax_fwd", "softmax_bwd", "log_softmax_fwd")
# Across channels or by class: they work on copies in C order.
COPYING = ("lrn_fwd", "lrn_bwd", "nll_fwd", "nll_bwd")


def last(value: Any) -> Any:
    """A copy of an array of four axes that lies channels-last; of a list, of each; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(last, value))
    if not isinstance(value, np.ndarray) or value.ndim != 4:
        return value
    placed = new_array(np.empty, value.shape, value.dtype, True)
    placed[...] = value
    return placed


class Watched(SimDevice):
    """Counts the copies between arrays of four axes on the device."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.copies = 0

    def fill(self, array: Any, value: Any) -> None:
        self.copies += array.ndim == 4 and isinstance(value, SimArray)
        super().fill(array, value)


class Last:
    """The simulated backend, given channels-last what it is given: holds it to what it gives for NCHW, bit for bit."""

    def __init__(self, order: str = "random") -> None:
        self._device = Watched(order=order, seed=7)
        self._backend = Simulated(Host(self._device))
        self.__name__ = "channels-last"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._device.copies = 0
            found = getattr(self._backend, name)(*map(last, arguments), **options)
            images = [y for y in results(found) if isinstance(y, np.ndarray) and y.ndim == 4]
            if name not in COPYING and any(isinstance(one, np.ndarray) and one.ndim == 4 for one in arguments):
                assert self._device.copies == 0, f"{name} copies"
                assert all(map(is_channels_last, images)), f"{name} gives {[y.strides for y in images]}"
            dense = [y if y is None else np.ascontiguousarray(y).reshape(y.shape) for y in results(found)]
            if name not in (*SUMS, *SHARES):
                plain = results(getattr(self._backend, name)(*arguments, **options))
                for y, expected in zip(dense, plain, strict=True):
                    assert y is expected is None or y.tobytes() == expected.tobytes(), f"{name} has other bits in NCHW"
            return tuple(dense) if isinstance(found, tuple) else dense[0]

        return call


LAST = Last()

# Channels that are whole vectors of 16 bytes in float32, in 16 bits too, and in neither; one tile of them, several and
# a part of one; one pixel, one channel, one image; slices of several threads' rows and a rest.
SHAPES = [
    (2, 5, 3, 7),
    (3, 12, 9, 5),
    (1, 8, 1, 3),
    (2, 24, 7, 7),
    (2, 328, 3, 2),
    (4, 64, 30, 41),
    (5, 16, 1, 1),
    (3, 1, 4, 5),
    (1, 1, 1, 1),
    (0, 8, 2, 2),
]


def normal(*shape: int, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, shape).astype(np.float32)


WINDOW = ((2, 2), (2, 1), (1, 0, 1, 1))


def _pooled(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A gradient of the maximum pooling of x, and the indices."""
    y, indices = reference.max_pool2d_fwd(x.astype(np.float32), *WINDOW, (1, 1), False)
    return y.astype(x.dtype), indices


# name: what it makes of a backend, two images (N, C, H, W) and a vector (C,)
CALLS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "relu_fwd": lambda b, x, z, c: b.relu_fwd(x),
    "relu_bwd": lambda b, x, z, c: b.relu_bwd(x, z),
    "tanh_fwd": lambda b, x, z, c: b.tanh_fwd(x),
    "sigmoid_bwd": lambda b, x, z, c: b.sigmoid_bwd(x, z),
    "add": lambda b, x, z, c: b.add(x, z),
    "dropout": lambda b, x, z, c: b.dropout(x, 0.5, 7, 3),
    "softmax_fwd": lambda b, x, z, c: b.softmax_fwd(x, 1),
    "log_softmax_fwd of rows": lambda b, x, z, c: b.log_softmax_fwd(x, 2),
    "softmax_bwd": lambda b, x, z, c: b.softmax_bwd(x, z, 1),
    "pad2d": lambda b, x, z, c: b.pad2d(x, (1, 0, 2, 3), -1.5),
    "concat of channels": lambda b, x, z, c: b.concat([x, z, x], 1),
    "concat of columns": lambda b, x, z, c: b.concat([x, z], 3),
    "concat of images": lambda b, x, z, c: b.concat([x, z], 0),
    "channel_sum": lambda b, x, z, c: b.channel_sum(x),
    "channel_affine": lambda b, x, z, c: b.channel_affine(x, c, c),
    "batch_norm_eval": lambda b, x, z, c: b.batch_norm_eval(x, c, abs(c) + 1, c, None, EPS),
    "batch_norm_fwd": lambda b, x, z, c: b.batch_norm_fwd(x, c, c, EPS, z, True),
    "batch_norm_bwd": lambda b, x, z, c: b.batch_norm_bwd(z, x, c, c, abs(c) + 1, EPS, x),
    "max_pool2d_fwd": lambda b, x, z, c: b.max_pool2d_fwd(x, *WINDOW, (1, 1), False),
    "max_pool2d_bwd": lambda b, x, z, c: b.max_pool2d_bwd(*_pooled(x), x.shape, *WINDOW, (1, 1)),
    "avg_pool2d_fwd": lambda b, x, z, c: b.avg_pool2d_fwd(x, *WINDOW, False, True, None),
    "avg_pool2d_bwd": lambda b, x, z, c: b.avg_pool2d_bwd(_pooled(x)[0], x.shape, *WINDOW, False, False, None),
    "adaptive_avg_pool2d_fwd": lambda b, x, z, c: b.adaptive_avg_pool2d_fwd(x, (1, 1)),
    "adaptive_avg_pool2d_bwd": lambda b, x, z, c: b.adaptive_avg_pool2d_bwd(x, (*x.shape[:2], 5, 9)),
    "adaptive_max_pool2d_fwd": lambda b, x, z, c: b.adaptive_max_pool2d_fwd(x, (1, 1)),
    "plane_take": lambda b, x, z, c: b.plane_take(x, _pooled(x)[1]),
    "lrn_fwd": lambda b, x, z, c: b.lrn_fwd(x, 3, 0.1, 0.75, 1.0),
}


def operands(shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return normal(*shape).astype(dtype), normal(*shape, seed=1).astype(dtype), normal(shape[1], seed=2)


def near(found: Any, expected: Any, count: int, dtype: np.dtype) -> None:
    """Sums of `count` terms and what is computed from them, against those in float64.

    Terms are of some 5 in size and their sums grow as sqrt(count); a thread adds count / 256 of them at most one after
    the other, each with a rounding, and what comes of that meets in a tree.  16 bits are rounded once more.
    """
    for y, right in zip(results(found), results(expected), strict=True):
        scale = np.abs(right).max(initial=0.0) + 5 * count**0.5
        unit = half_unit(right, dtype) if y.dtype == dtype else 0.0
        assert np.all(np.abs(y.astype(np.float64) - right) <= (64 + count / 128) * 2.0**-24 * scale + unit)


@each_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_results_are_those_of_nchw(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """No copy is made, results are channels-last, and all but sums have the very bits that they have in NCHW."""
    if 0 in shape and "max" in name:
        pytest.skip("the indices come from the oracle, which has none")
    x, z, c = operands(shape, dtype)
    found = CALLS[name](LAST, x, z, c)
    if name.split()[0] in (*SUMS, *SHARES) and x.size:
        # Of one element the mean is the element, and dx is divided by the root of eps alone.
        expected = CALLS[name](reference, *(each.astype(np.float64) for each in (x, z, c)))
        near(found, expected, x.size // shape[1] if name in SUMS else 0, dtype)


@each_dtype
@pytest.mark.parametrize("name", ["batch_norm_fwd", "batch_norm_bwd", "channel_sum", "dropout", "max_pool2d_bwd"])
def test_every_order_of_threads(name: str, dtype: np.dtype) -> None:
    x, z, c = operands((3, 40, 9, 10), dtype)
    found = [results(CALLS[name](Last(order), x, z, c)) for order in ORDERS]
    for other in found[1:]:
        assert [y.tobytes() for y in other] == [y.tobytes() for y in found[0]]


@each_dtype
def test_sums_of_integers_are_exact(dtype: np.dtype) -> None:
    x = np.random.default_rng(0).integers(-9, 10, (7, 72, 23, 29)).astype(dtype)
    np.testing.assert_array_equal(LAST.channel_sum(x), x.astype(np.float64).sum((0, 2, 3)))


@each_dtype
def test_statistics_far_from_zero(dtype: np.dtype) -> None:
    """All of x - x[0, c, 0, 0] is exact, so the variance is as near as around zero."""
    spread = np.random.default_rng(0).integers(-3, 4, (4, 16, 30, 31))
    x = (spread + (2**20 if dtype == np.float32 else 2**6)).astype(dtype)
    _, mean, var = LAST.batch_norm_fwd(x, None, None, EPS)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean((0, 2, 3)), rtol=2.0**-23)
    np.testing.assert_allclose(var, wide.var((0, 2, 3)), rtol=32 * 2.0**-24)  # some ten merges, each of a few roundings


@each_dtype
@pytest.mark.parametrize("shape", [*pools(), *random_pools(10)], ids=str)
def test_pooling_list(shape: Any, dtype: np.dtype) -> None:
    check_pool2d(LAST, shape, dtype)


@each_dtype
@pytest.mark.parametrize(("x_shape", "out"), ADAPTIVE_POOLS, ids=str)
def test_adaptive_pooling_list(x_shape: Any, out: Any, dtype: np.dtype) -> None:
    check_adaptive_pool2d(LAST, x_shape, out, dtype)


def test_which_kernels_run() -> None:
    """By 16 bytes where channels are whole vectors and begin at one; else as a matrix, a channel a lane."""
    device = SimDevice()
    host = Host(device)

    def launched(x: np.ndarray, shifted: bool = False) -> set[str]:
        device.launches.clear()
        rows = x.transpose(0, 2, 3, 1)
        placed = view_off_by_one(device, np.ascontiguousarray(rows)) if shifted else device.alloc(rows.shape, x.dtype)
        device.fill(placed, rows)
        image = placed.transpose(0, 3, 1, 2)
        _, mean, var = host.batch_norm_fwd(image, None, None, EPS, image, True)
        host.batch_norm_bwd(image, image, None, mean, var, EPS)
        host.channel_sum(image)
        np.testing.assert_array_equal(np.array(mean), np.array(host.batch_norm_fwd(image, None, None, EPS)[1]))
        return {f"{each.kernel}[{each.name}]" for each in device.launches}

    vectors = {f"{name}_last[w8]" for name in ("batch_norm_moments", "channel_map", "batch_norm_slopes", "channel_sum")}
    assert launched(normal(2, 8, 3, 5)) >= {*vectors, "batch_norm_dx_last[w8]"}
    for found in (launched(normal(2, 6, 3, 5)), launched(normal(2, 8, 3, 5), shifted=True)):
        assert found >= {"batch_norm_moments[columns]", "channel_map[narrow]", "channel_sum[columns]"}
        assert not any("_last" in each for each in found)


def test_layouts_that_meet() -> None:
    """The first that lies in one way only decides; where all lie in both, strides do; slices are copied as they lie."""
    host = Host(Watched())
    device: Any = host.device

    def place(x: np.ndarray) -> Any:
        placed = new_array(device.alloc, x.shape, x.dtype, wants_channels_last(x))
        placed[...] = x
        return placed

    x = normal(2, 6, 4, 5)
    first, images = place(x), place(last(x))
    assert is_channels_last(host.add(images, first))
    assert host.add(first, images).flags.c_contiguous
    assert device.copies == 2
    np.testing.assert_array_equal(host.add(images, first), x + x)
    pixel = normal(3, 6, 1, 1)
    for given in (pixel, last(pixel)):
        found = host.relu_fwd(place(given))
        assert wants_channels_last(found) == wants_channels_last(given)
        assert wants_channels_last(host.pad2d(found, (1, 1, 1, 1), 0.0)) == wants_channels_last(given)
    slices = images[:, 1:4]
    assert is_channels_last(host.relu_fwd(slices))
    np.testing.assert_array_equal(host.relu_fwd(slices), np.maximum(x[:, 1:4], 0))
    everywhere = np.broadcast_to(x[:, :, :1, :1], x.shape)
    spread = np.lib.stride_tricks.as_strided(first, first.shape, (*first.strides[:2], 0, 0), subok=True)
    found = host.relu_bwd(spread, images)  # as the gradient of a mean comes
    assert is_channels_last(found)
    np.testing.assert_array_equal(found, np.where(x <= 0, 0, everywhere))


def test_dropout_keeps_the_same_elements() -> None:
    x = np.ones((2, 10, 7, 9), np.float32)
    masks = [Simulated(Host(SimDevice())).dropout(each, 0.5, 7, 2**64 - 9) for each in (x, last(x))]
    np.testing.assert_array_equal(*masks)
    assert 0.3 < masks[0].mean() / 2 < 0.7


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("name", ["batch_norm_fwd", "batch_norm_bwd", "batch_norm_eval", "channel_sum", "dropout"])
@pytest.mark.nvrtc
def test_ptx(name: str, dtype: np.dtype) -> None:
    x, z, c = operands((2, 16, 3, 5), dtype)
    backends = [Simulated(Host(device)) for device in (SimDevice(), PtxDevice())]
    kinds = [results(CALLS[name](each, *map(last, (x, z)), c)) for each in backends]
    for y, expected in zip(*kinds, strict=True):
        # rsqrt and the contraction of products and sums are the compiler's on either side: some roundings.
        np.testing.assert_allclose(
            y.astype(float), expected.astype(float), rtol=1e-5 if y.dtype != dtype else 2e-3, atol=1e-4
        )


@pytest.mark.parametrize("name", ["max_pool2d_fwd", "max_pool2d_bwd", "avg_pool2d_fwd", "avg_pool2d_bwd", "plane_take"])
@pytest.mark.nvrtc
def test_ptx_of_pooling(name: str) -> None:
    x, z, c = operands((2, 6, 4, 5), DTYPES[0])
    found = results(CALLS[name](Simulated(Host(PtxDevice())), last(x), last(z), c))
    for y, expected in zip(found, results(CALLS[name](LAST, x, z, c)), strict=True):
        np.testing.assert_array_equal(y, expected)


def test_past_two_to_the_31_elements() -> None:
    device = Ends()
    host = Host(device)
    channels = 2**30 + 8

    def image(value: tuple[float, float]) -> Any:
        x = device.alloc((1, 1, 2, channels), np.float16).transpose(0, 3, 1, 2)
        x[0, 0, 0, :], x[0, -1, 0, :] = value[0], value[1]
        x[0, :3, 0, 0], x[0, -3:, 0, 1] = value
        return x

    x = image((-1.0, 3.0))
    ones = device.alloc((channels,), np.float32)
    ones[:3], ones[-3:] = 1, 1
    y = host.channel_affine(x, None, ones)
    assert (y[0, 0, 0, 0], y[0, -1, 0, 1]) == (0, 4)
    total = host.channel_sum(x)
    assert (total[0], total[-1]) == (-2, 6)
    y, mean, var = host.batch_norm_fwd(x, None, None, 0.5, x, True)
    assert (mean[0], mean[-1], var[0], var[-1], y[0, 0, 0, 0], y[0, -1, 0, 1]) == (-1, 3, 0, 0, 0, 3)
    dx, dweight, dbias = host.batch_norm_bwd(x, x, None, mean, var, 0.5)
    assert (dweight[0], dbias[-1], dx[0, 0, 0, 0], dx[0, -1, 0, 1]) == (0, 6, 0, 0)
    y, indices = host.max_pool2d_fwd(x, (1, 2), (1, 1), (0, 0, 0, 0), (1, 1), False)
    assert (y[0, 0, 0, 0], y[0, -1, 0, 0], indices[0, -1, 0, 0]) == (-1, 3, 0)
    assert host.dropout(x, 2.0**-32, 1, 0)[0, -1, 0, 1] == 3


@pytest.mark.parametrize(
    ("shape", "vector", "cut"),  # rows of a slice, threads side by side, the grid
    [
        ((32, 64, 56, 56), 8, (392, 8, (1, 256, 1))),
        ((32, 64, 56, 56), 4, (392, 16, (1, 256, 1))),
        ((32, 2048, 7, 7), 8, (63, 32, (8, 25, 1))),
        ((1, 320, 2, 3), 8, (6, 32, (2, 1, 1))),
        ((2, 96, 5, 5), 8, (50, 16, (1, 1, 1))),
    ],
)
def test_how_rows_are_cut(shape: tuple[int, ...], vector: int, cut: tuple[Any, ...]) -> None:
    slices = LastSlices.of(shape, 256, vector)
    assert (slices.length, slices.lanes, slices.grid) == cut
    assert slices.count == slices.grid[1] == -(-slices.rows // slices.length)


def test_maps_count_in_64_bits_where_32_do_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "NARROW", 0)
    for name in ("channel_affine", "batch_norm_bwd"):
        x, z, c = operands((2, 5, 3, 7), DTYPES[0])
        CALLS[name](LAST, x, z, c)
