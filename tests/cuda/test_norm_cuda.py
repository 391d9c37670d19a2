"""kernels/batchnorm.cu and channel_sum.cu in the simulator and the PTX interpreter, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, Ends, close, in_every_order, view_off_by_one, wide

from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError, norm
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.device_trace import TraceDevice, hollow
from pycnn.backends.cuda.reduce import ChannelSlices
from pycnn.backends.sim import Simulated
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

FORWARD = DEVICES["forward"]
EPS = 1e-5

# Planes of vectors and of single elements, with full threads and tails; no trailing axes, more and fewer channels than
# a tile; sizes of one; several slices by samples, by columns, and by both.
SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 4, 5),
    (4, 5),
    (33, 70),
    (300, 33),
    (1, 40, 1),
    (7, 17, 3),
    (3, 4, 17),
    (2, 6, 28, 28),
    (5, 3, 7, 7),
    (1, 2, 91, 93),
    (1, 3, 112, 112),
    (3, 2, 61, 60),
    (64, 2, 9, 9),
    (3, 1, 2, 2, 2),
]


def normal(shape: tuple[int, ...] | int, seed: int = 0, scale: float = 1.0, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, scale, shape).astype(np.float32)


@pytest.fixture(params=["narrow", "wide"])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the maps count in 32 bits or in 64."""
    if request.param == "wide":
        monkeypatch.setattr(norm, "NARROW", 0)
    return str(request.param)


@pytest.mark.parametrize("shape", [*SHAPES, (0, 3, 2), (2, 3, 0)], ids=str)
def test_channel_sum_of_integers_is_exact(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(-99, 100, shape).astype(np.float32)
    (found,) = in_every_order(lambda backend: backend.channel_sum(x))
    np.testing.assert_array_equal(found, reference.channel_sum(x))
    x[...] = normal(shape)
    count = x.size // shape[1]
    # Partial sums grow to some sqrt(count), and are rounded in chains of count/256 a thread, then of 8 and of slices.
    (found,) = in_every_order(lambda backend: backend.channel_sum(x))
    close(found, reference.channel_sum(*wide(x)), 16 + count / 128, scale=count**0.5 + 3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm(affine: bool, shape: tuple[int, ...]) -> None:
    x = normal(shape, 1, 3, 1)
    weight, bias = (normal(shape[1], 2), normal(shape[1], 3)) if affine else (None, None)
    y, mean, var = in_every_order(lambda backend: backend.batch_norm_fwd(x, weight, bias, EPS))
    expected = reference.batch_norm_fwd(*wide(x, weight, bias), EPS)
    # Each mean is of at most 16 elements and merged in a tree: some ten roundings of it, and of y some more.
    close(y, expected[0], 16, scale=12.0)
    close(mean, expected[1], 8, scale=10.0)
    close(var, expected[2], 16, scale=float(expected[2].max()) + 1e-3)
    dy = normal(shape, 4)
    found = in_every_order(lambda backend: backend.batch_norm_bwd(dy, x, weight, mean, var, EPS))
    expected = reference.batch_norm_bwd(*wide(dy, x, weight, mean, var), EPS)
    count = x.size // shape[1]
    # Sums of `count` terms of at most some 5 in size, in chains and a tree as in channel_sum; a single element has no
    # deviation, so its dx is divided by sqrt(eps), that is multiplied by 316.
    close(found[0], expected[0], 64, scale=float(np.abs(expected[0]).max()) + (1 if count > 1 else 400))
    close(found[1], expected[1], 32, scale=float(np.abs(expected[1]).max()) + 5 * count**0.5)
    close(found[2], expected[2], 32, scale=float(np.abs(expected[2]).max()) + 5 * count**0.5)


@pytest.mark.parametrize("shape", [(4, 2, 60, 60), (300, 3), (2, 40, 5, 5)], ids=str)
def test_batch_norm_is_stable_far_from_zero(shape: tuple[int, ...]) -> None:
    """Mean 10^4, deviation 10^-2, ten spacings of float32: E[x^2] - E[x]^2 would be noise, and so would a mean rounded
    to float32, which is off by up to 5 percent of a deviation."""
    x = normal(shape, 1, 1e-2, 1e4)
    for backend in DEVICES.values():
        y, mean, var = backend.batch_norm_fwd(x, None, None, 0.0)
        expected = reference.batch_norm_fwd(*wide(x), None, None, 0.0)
        np.testing.assert_allclose(var, expected[2], rtol=2e-6)
        np.testing.assert_allclose(mean, expected[1], rtol=2.0**-24)  # one rounding
        np.testing.assert_allclose(y, expected[0], rtol=0, atol=1e-5)


def test_batch_norm_of_a_channel_that_begins_with_an_outlier() -> None:
    """The statistics are taken relative to the first element; where that one is far off, they still are right."""
    x = normal((4, 2, 30, 30), 2)
    x[0, :, 0, 0] = 1e4
    _, mean, var = FORWARD.batch_norm_fwd(x, None, None, EPS)
    expected = reference.batch_norm_fwd(*wide(x), None, None, EPS)
    # The mean is merged from numbers near 10^4, each rounded to a spacing of 2^-10.
    np.testing.assert_allclose(mean, expected[1], rtol=0, atol=2 * 2.0**-10)
    np.testing.assert_allclose(var, expected[2], rtol=1e-5)


def test_nothing_spreads_from_a_channel_to_another() -> None:
    x = normal((2, 3, 20, 5), 3)
    for bad in (np.nan, np.inf, -np.inf):
        x[1, 1, 19, 4] = bad
        y, mean, var = FORWARD.batch_norm_fwd(x, None, None, EPS)
        assert np.isnan(y).all(axis=(0, 2, 3)).tolist() == [False, True, False]
        assert np.isfinite(mean).tolist() == np.isfinite(var).tolist() == [True, False, True]
        assert np.isfinite(y[:, ::2]).all()
        assert np.isfinite(FORWARD.channel_sum(x)).tolist() == [True, False, True]


def test_empty_batch_has_no_statistics() -> None:
    device = SimDevice()
    backend = Simulated(Host(device))
    empty, one = np.ones((0, 3, 2, 2), np.float32), np.ones(3, np.float32)
    y, mean, var = backend.batch_norm_fwd(empty, None, None, EPS)
    assert y.shape == empty.shape
    assert np.isnan(mean).all()
    assert np.isnan(var).all()
    dx, dweight, dbias = backend.batch_norm_bwd(y, y, None, mean, var, EPS)
    assert dx.shape == y.shape
    assert dweight.tolist() == dbias.tolist() == [0, 0, 0]
    assert backend.channel_affine(empty, None, one).shape == empty.shape
    assert backend.batch_norm_eval(empty, one, one, None, None, EPS).shape == empty.shape
    assert device.launches == []


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_maps(shape: tuple[int, ...], width: str) -> None:
    x, scale, shift = normal(shape, 5), normal(shape[1], 6), normal(shape[1], 7)
    mean, var = normal(shape[1], 8), np.abs(normal(shape[1], 9)) + np.float32(0.5)
    backend = DEVICES["random"]
    # A product and a sum, each rounded at most once; of those in batch_norm_eval each term is at most some 25 in size.
    found = backend.channel_affine(x, scale, shift)
    close(found, reference.channel_affine(*wide(x, scale, shift)), 2, scale=20.0)
    np.testing.assert_array_equal(backend.channel_affine(x, None, shift), reference.channel_affine(x, None, shift))
    for weight, bias in ((scale, shift), (None, None)):
        found = backend.batch_norm_eval(x, mean, var, weight, bias, EPS)
        close(found, reference.batch_norm_eval(*wide(x, mean, var, weight, bias), EPS), 4, scale=25.0)
    launched = {instance.name for instance in backend.host.device.launches[-4:]}
    assert launched == {width}


def test_operands_that_start_between_vectors() -> None:
    device = SimDevice()
    host = Host(device)
    x = np.random.default_rng(0).integers(-9, 10, (3, 4, 24, 24)).astype(np.float32)
    view = view_off_by_one(device, x)
    np.testing.assert_array_equal(host.channel_sum(view), reference.channel_sum(x))
    y, mean, var = host.batch_norm_fwd(view, None, None, EPS)
    expected = reference.batch_norm_fwd(*wide(x), None, None, EPS)
    for found, wanted in zip((y, mean, var), expected, strict=True):
        close(np.array(found), wanted, 16, scale=10.0 + float(wanted.max()))
    dx, *_ = host.batch_norm_bwd(view, view, None, mean, var, EPS)
    wanted = reference.batch_norm_bwd(*wide(x, x), None, *wide(np.array(mean), np.array(var)), EPS)[0]
    close(np.array(dx), wanted, 256, scale=3.0)  # dy and x cancel but for rounding: the terms are up to 3 in size


def test_operands_with_gaps() -> None:
    x = normal((3, 4, 10, 12), 1)[..., ::2]
    close(FORWARD.channel_sum(x), reference.channel_sum(*wide(x)), 32, scale=14.0)
    close(FORWARD.batch_norm_fwd(x, None, None, EPS)[0], reference.batch_norm_fwd(*wide(x), None, None, EPS)[0], 16)


CALLS: dict[str, Any] = {
    "channel_sum": lambda backend, x, c: backend.channel_sum(x),
    "batch_norm_fwd": lambda backend, x, c: backend.batch_norm_fwd(x, c, c, EPS),
    "batch_norm_bwd": lambda backend, x, c: backend.batch_norm_bwd(x, 1 - x, c, c, abs(c) + 1, EPS),
    "batch_norm_eval": lambda backend, x, c: backend.batch_norm_eval(x, c, abs(c) + 1, c, c, EPS),
    "channel_affine": lambda backend, x, c: backend.channel_affine(x, c, c),
}


@pytest.mark.nvrtc
@pytest.mark.parametrize("shape", [(3, 2, 6, 6), (3, 3, 7, 7), (70, 40)], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_ptx(name: str, shape: tuple[int, ...], width: str) -> None:
    x, c = normal(shape, 2), normal(shape[1], 3)
    found = CALLS[name](Simulated(Host(PtxDevice())), x, c)
    expected = CALLS[name](reference, *wide(x, c))
    for one, wanted in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, expected)), strict=True):
        close(one, wanted, 64, scale=float(np.abs(wanted).max()) + (x.size // shape[1]) ** 0.5)


@pytest.mark.parametrize("shape", [(2, 2**20 + 5, 1030), (2, 2**30 + 40)], ids=str)
def test_past_two_to_the_31_elements(shape: tuple[int, ...]) -> None:
    device = Ends()
    host = Host(device)
    x = device.alloc(shape, np.float32)
    last = shape[1] - 1
    x[0, 0], x[1, 0], x[0, last], x[1, last] = 1, 3, 5, 9
    width = int(np.prod(shape[2:]))
    total = host.channel_sum(x)
    assert (total[0], total[last]) == (4 * width, 14 * width)
    y, mean, var = host.batch_norm_fwd(x, None, None, 0.0)
    assert (mean[0], mean[last], var[0], var[last]) == (2, 7, 1, 4)
    assert (np.ravel(y[0, 0])[0], np.ravel(y[1, last])[-1]) == (-1, 1)
    dx, dweight, dbias = host.batch_norm_bwd(x, x, None, mean, var, 0.0)
    assert (dweight[0], dweight[last], dbias[last]) == (2 * width, 4 * width, 14 * width)
    assert (np.ravel(dx[0, 0])[0], np.ravel(dx[1, last])[-1]) == (0, 0)
    assert {instance.name for instance in device.launches if instance.kernel == "batch_norm_dx"} == {"wide"}


LARGE = [
    (2**20, 3, 7, 7),
    (1, 1, 2**20, 2**20),
    (5, 2**33, 3),
    (2**36, 5),
    (3, 64, 2**12, 2**12),
    (2**40, 5),
    (1, 1, 2**20, 2**20 + 1),
]


@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=str)
def test_slices_cover_a_channel_and_count_in_32_bits(shape: tuple[int, ...]) -> None:
    slices = ChannelSlices.of(shape, 256)
    N, L = shape[0], int(np.prod(shape[2:], dtype=object))
    assert slices.count == -(-N // slices.samples) * slices.column_slices
    assert slices.columns * (slices.column_slices - 1) < L <= slices.columns * slices.column_slices
    assert slices.samples * min(slices.columns, L) < 2**31
    assert slices.columns % 4 == 0
    assert 1 <= slices.across <= 256
    assert slices.across & (slices.across - 1) == 0
    x, y, z = slices.grid
    assert x <= 2**31 - 1
    assert max(y, z) <= 65535
    assert x * z >= (shape[1] if L > 1 else -(-shape[1] // 32))


@pytest.mark.parametrize(
    ("shape", "cut"),  # samples and columns of a slice, slices side by side, threads across, the grid
    [
        ((1, 8, 2**33), (1, 2**26, 128, 256, (8, 128, 1))),
        ((32, 64, 56, 56), (2, 3136, 1, 256, (64, 16, 1))),
        ((32, 64, 7, 7), (32, 52, 1, 64, (64, 1, 1))),
        ((128, 1000), (64, 4, 1, 1, (32, 2, 1))),
        ((1, 3, 1, 2), (1, 4, 1, 2, (3, 1, 1))),
        ((256, 3, 224, 224), (1, 50176, 1, 256, (3, 256, 1))),
        ((3, 2000, 31, 33), (3, 1024, 1, 256, (2000, 1, 1))),
        ((5, 1, 1000001), (1, 19608, 51, 256, (1, 255, 1))),
    ],
)
def test_how_a_channel_is_cut(shape: tuple[int, ...], cut: tuple[object, ...]) -> None:
    slices = ChannelSlices.of(shape, 256)
    assert (slices.samples, slices.columns, slices.column_slices, slices.across, slices.grid) == cut


@pytest.mark.parametrize(("elements", "name"), [(2**31 - 2048, "narrow"), (2**31 - 2047, "wide")])
def test_maps_count_in_32_bits_as_far_as_their_last_stretch_ends(elements: int, name: str) -> None:
    device = TraceDevice()
    x, c = hollow((1, 1, elements), "float32"), hollow((1,), "float32")
    Host(device).channel_affine(x, c, c)
    Host(device).batch_norm_bwd(x, x, c, c, c, EPS)
    maps = [instance for instance in device.launches if instance.kernel in ("channel_map", "batch_norm_dx")]
    assert [instance.name for instance in maps] == [name, name]


@pytest.mark.parametrize("name", CALLS)
def test_float64_is_refused(name: str) -> None:
    with pytest.raises(UnavailableError, match=f"no kernel for {name} in float64"):
        CALLS[name](FORWARD, np.ones((2, 3, 4)), np.ones(3))
