"""sgemm: every instance on integers, where it must be exact; batches, views, epilogues, slices of K."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, ORDERS

from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError, gemm
from pycnn.backends.cuda.device import Device
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.gemm import gemm_plan, sgemm
from pycnn.backends.cuda.plan import Epilogue
from pycnn.jit.sources import installed
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

INSTANCES = tuple(installed().of("sgemm"))
FORMS = ("nn", "nt", "tn", "tt")

# For each tile: two full ones and a tail along M and N, more tiles of k than stages, and a tail of k.
TILES = {"128x128": (259, 270, 45), "64x64": (131, 134, 75), "32x128": (69, 262, 75)}


def integers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32)


def operands(form: str, M: int, N: int, K: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = integers((M, K), 1), integers((K, N), 2)
    return (np.ascontiguousarray(a.T) if form[0] == "t" else a), (np.ascontiguousarray(b.T) if form[1] == "t" else b)


def on(device: Device, array: np.ndarray | None, skew: int = 0) -> Any:
    """A copy on the device, `skew` elements past a multiple of 16 bytes."""
    if array is None:
        return None
    room = device.alloc((array.size + skew,), np.float32)
    place = room[skew:].reshape(array.shape)
    device.fill(place, array)
    return place


def product(device: Device, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...], skew: int = 0, **options: Any) -> Any:
    """`sgemm` into a fresh array of `shape`, everything `skew` elements off."""
    out = device.alloc((int(np.prod(shape)) + skew,), np.float32)[skew:].reshape(shape)
    epilogue = options.pop("epilogue", Epilogue())
    given = Epilogue(*(on(device, part) for part in (epilogue.scale, epilogue.b, epilogue.residual)), epilogue.relu)
    sgemm(Host(device), on(device, a, skew), on(device, b, skew), out, epilogue=given, **options)
    return np.array(out)


def of_form(form: str) -> dict[str, bool]:
    return {"trans_a": form[0] == "t", "trans_b": form[1] == "t"}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", INSTANCES)
def test_full_tiles_and_tails_in_every_order(name: str, order: str) -> None:
    form, tile = name.split("_")
    M, N, K = TILES[tile]
    a, b = operands(form, M, N, K)
    device = DEVICES[order].host.device
    out = product(device, a, b, (M, N), tile=tile, **of_form(form))
    assert np.array_equal(out, reference.gemm(a, b, form[0] == "t", form[1] == "t"))
    assert device.launches[-1].name == name


@pytest.mark.parametrize("skew", [0, 1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_every_size_from_one_to_past_a_tile_and_any_alignment(form: str, skew: int) -> None:
    sizes = (1, 2, 5, 63, 64, 66)
    for M, N, K in itertools.product(sizes, sizes, (1, 4, 17, 47)):
        a, b = operands(form, M, N, K)
        out = product(DEVICES["random"].host.device, a, b, (M, N), skew, tile="64x64", **of_form(form))
        assert np.array_equal(out, reference.gemm(a, b, form[0] == "t", form[1] == "t")), (M, N, K)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_gives_nothing_or_zeros(form: str) -> None:
    for M, N, K in ((0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)):
        a, b = operands(form, M, N, K)
        out = DEVICES["forward"].gemm(a, b, form[0] == "t", form[1] == "t")
        assert np.array_equal(out, np.zeros((M, N), np.float32))


@pytest.mark.parametrize("form", FORMS)
def test_long_k_is_split_by_its_length_alone(form: str) -> None:
    M, N, K = 7, 66, 1100
    a, b = operands(form, M, N, K)
    device = DEVICES["random"].host.device
    before = len(device.launches)
    out = DEVICES["random"].gemm(a, b, form[0] == "t", form[1] == "t")
    assert [instance.kernel for instance in device.launches[before:]] == ["sgemm", "sum_slices"]
    assert np.array_equal(out, reference.gemm(a, b, form[0] == "t", form[1] == "t"))


def test_slices_are_summed_in_order_of_k() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 1000)).astype("f4"), rng.standard_normal((1000, 5)).astype("f4")
    plan = gemm_plan(3, 5, 1000, 1, False, False, installed())
    assert plan.slices == 3
    total = np.zeros((3, 5), np.float32)
    for first in range(0, 1000, plan.k_slice):
        part = np.zeros((3, 5), np.float64)
        for k in range(first, min(first + plan.k_slice, 1000)):  # fmaf: one rounding a step
            part = (part + np.outer(a[:, k].astype("f8"), b[k].astype("f8"))).astype("f4").astype("f8")
        total += part.astype("f4")
    assert np.array_equal(DEVICES["reverse"].gemm(a, b, False, False), total)


@pytest.mark.parametrize("sliced", [False, True])
def test_epilogue_along_rows_and_columns(sliced: bool) -> None:
    M, N, K = 37, 70, 600 if sliced else 20
    a, b = operands("nn", M, N, K)
    for channel, channels in (("row", M), ("column", N)):
        scale, bias, residual = integers((channels,), 3), integers((channels,), 4), integers((M, N), 5)
        along = (slice(None), None) if channel == "row" else slice(None)
        epilogue = Epilogue(scale, bias, residual, relu=not sliced)
        out = product(DEVICES["random"].host.device, a, b, (M, N), epilogue=epilogue, channel=channel)
        expected = scale[along] * (a @ b) + bias[along] + residual
        assert np.array_equal(out, expected if sliced else np.maximum(expected, 0))


def test_relu_of_a_long_k_is_not_split() -> None:
    a, b = operands("nn", 3, 5, 2000)
    device = DEVICES["forward"].host.device
    before = len(device.launches)
    out = product(device, a, b, (3, 5), epilogue=Epilogue(relu=True))
    assert len(device.launches) == before + 1
    assert np.array_equal(out, np.maximum(a @ b, 0))


def test_batches_broadcast_and_channels_go_on_along_the_inner_one() -> None:
    images, groups, K, C, pixels = 2, 3, 5, 9, 21
    w, columns = integers((groups, K, C), 1), integers((images, groups, C, pixels), 2)
    b, residual = integers((groups * K,), 3), integers((images, groups, K, pixels), 4)
    device = DEVICES["random"].host.device
    out = product(device, w, columns, (images, groups, K, pixels), epilogue=Epilogue(b=b, residual=residual))
    assert np.array_equal(out, w @ columns + b.reshape(groups, K, 1) + residual)
    one = product(device, w[0], columns, (images, groups, K, pixels))
    assert np.array_equal(one, w[0] @ columns)
    along_columns = product(device, w, columns, (images, groups, K, pixels), epilogue=Epilogue(b=integers((63,), 5)),
                            channel="column")  # fmt: skip
    assert np.array_equal(along_columns, w @ columns + integers((63,), 5).reshape(3, 1, 21))


@pytest.mark.parametrize("form", FORMS)
def test_views_with_gaps_and_batches_in_any_order(form: str) -> None:
    device = DEVICES["random"].host.device
    a, b = operands(form, 19, 23, 31)
    stack = {"a": np.stack([a, 2 * a, -a]), "b": np.stack([b, b + 1, 1 - b])}
    places = {}
    for name, values in stack.items():
        _, rows, columns = values.shape
        room = device.alloc((rows, 3, columns + 3), np.float32)  # the batch between rows and columns; unread NaN beside
        places[name] = room.transpose(1, 0, 2)[:, :, 1 : columns + 1]
        device.fill(places[name], values)
    room = device.alloc((3, 25, 40), np.float32)
    sgemm(Host(device), places["a"], places["b"], room[:, 2:21, 5:28], **of_form(form))
    expected = [reference.gemm(x, y, form[0] == "t", form[1] == "t") for x, y in zip(*stack.values(), strict=True)]
    assert np.array_equal(room[:, 2:21, 5:28], expected)
    assert np.isnan(room).sum() == room.size - 3 * 19 * 23


def test_long_k_into_a_view_with_gaps_is_not_split() -> None:
    device = DEVICES["random"].host.device
    a, b = operands("nn", 9, 11, 700)
    room = device.alloc((9, 16), np.float32)
    sgemm(Host(device), on(device, a), on(device, b), room[:, 3:14])
    assert np.array_equal(room[:, 3:14], a @ b)
    assert np.isnan(room).sum() == 9 * 5


def test_linear_layer() -> None:
    for batch in (0, 1, 5, 40):
        for features in (3, 700):
            x, w, b = integers((batch, features), 1), integers((33, features), 2), integers((33,), 3)
            for bias in (b, None):
                found = DEVICES["random"].linear_fwd(x, w, bias)
                assert np.array_equal(found, reference.linear_fwd(x, w, bias))
    x, w = integers((6, 8), 1)[:, ::2], integers((5, 4), 2)[::-1]
    assert np.array_equal(DEVICES["forward"].linear_fwd(x, w, None), reference.linear_fwd(x, w, None))


def test_nan_and_infinity_reach_exactly_their_row_and_column() -> None:
    a, b = np.ones((70, 20), np.float32), np.ones((20, 70), np.float32)
    a[3, 19], b[0, 69], b[1, 68] = np.nan, np.inf, -np.inf
    assert np.array_equal(
        DEVICES["random"].gemm(a, b, False, False), reference.gemm(a, b, False, False), equal_nan=True
    )


@pytest.mark.nvrtc
@pytest.mark.parametrize("name", INSTANCES)
def test_ptx_is_exact(name: str) -> None:
    form, tile = name.split("_")
    for arch, (M, N, K), skew in (("sm_75", (33, 130, 41), 1), ("sm_90a", (65, 68, 52), 0)):
        a, b = operands(form, M, N, K)
        device = PtxDevice(arch)
        b_, scale = integers((M,), 6), integers((M,), 7)
        out = product(device, a, b, (M, N), skew, tile=tile, epilogue=Epilogue(scale, b_), **of_form(form))
        expected = reference.gemm(a, b, form[0] == "t", form[1] == "t")
        assert np.array_equal(out, scale[:, None] * expected + b_[:, None])
        assert [instance.name for instance in device.launches] == [name]


def test_past_two_to_the_31_elements() -> None:
    """Operands and result of 2^31 elements and more, in mappings that only the first and the last block touch."""
    device = SimDevice()
    rows = 2**30 + 33
    plan = gemm_plan(rows, 2, 2, 1, False, False, installed())
    a, b, out = device.alloc((rows, 2), "f4"), device.alloc((2, 2), "f4"), device.alloc((rows, 2), "f4")
    a[:3], a[-3:], b[...] = [[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]], [[1, 10], [100, 1000]]
    device.blocks = [0, plan.grid[0] * plan.grid[1] - 1]
    sgemm(Host(device), a, b, out)
    for rows_ in (slice(0, 3), slice(-3, None)):
        assert np.array_equal(out[rows_], np.array(a[rows_]) @ np.array(b))


def test_more_products_than_one_row_of_a_grid_holds() -> None:
    count = 2**31 + 5
    device = SimDevice()
    a, b, out = device.alloc((count, 1, 1), "f4"), device.alloc((1, 1), "f4"), device.alloc((count, 1, 1), "f4")
    a[0], a[2**30], a[-1], b[...] = 3, 5, 7, 2
    device.blocks = [0, 2**30, count - 1, count]
    sgemm(Host(device), a, b, out)
    assert (out[0].item(), out[2**30].item(), out[-1].item()) == (6, 10, 14)


def test_the_tile_is_the_one_with_the_least_work() -> None:
    def taken(M: int, N: int, K: int, **options: Any) -> tuple[str, int]:
        plan = gemm_plan(M, N, K, 1, False, True, installed(), **options)
        return plan.instance.name, plan.slices

    assert taken(4096, 4096, 4096) == ("nt_128x128", 1)
    assert taken(512, 512, 64) == ("nt_64x64", 1)
    assert taken(1, 4096, 9216) == ("nt_32x128", 8)
    assert taken(1, 4096, 9216, sliced=False)[1] == 1
    assert taken(64, 64, 2**33)[1] == 256


@pytest.mark.parametrize(
    ("sizes", "expected"),  # M, N, K, products; tile, tiles along M and N, slices and the k of each, blocks
    [
        ((1, 1, 1, 1), ("64x64", (1, 1), 1, 16, 1)),
        ((64, 64, 511, 1), ("64x64", (1, 1), 1, 512, 1)),
        ((64, 64, 512, 1), ("64x64", (1, 1), 2, 256, 2)),
        ((64, 64, 100000, 1), ("64x64", (1, 1), 250, 400, 250)),
        ((512, 128, 4096, 64), ("128x128", (4, 1), 1, 4096, 256)),
        ((512, 512, 2048, 8), ("128x128", (4, 4), 2, 1024, 256)),
        ((1000, 32, 2048, 1), ("64x64", (16, 1), 8, 256, 128)),
        ((10, 500, 33, 1), ("64x64", (1, 8), 1, 48, 8)),
        ((33, 4000, 1000, 3), ("64x64", (1, 63), 2, 512, 378)),
        ((128, 64, 2**31 + 5, 512), ("64x64", (2, 1), 3, 2**30, 3072)),  # more than a slice may count
    ],
)
def test_tiles_slices_and_blocks(sizes: tuple[int, int, int, int], expected: tuple[Any, ...]) -> None:
    for trans_a, trans_b in ((False, False), (True, False), (False, True)):
        plan = gemm_plan(*sizes, trans_a, trans_b, installed())
        assert plan.instance.name == f"{'nt'[trans_a]}{'nt'[trans_b]}_{expected[0]}"
        assert (plan.tiles, plan.slices, plan.k_slice, plan.grid) == (*expected[1:4], (expected[4], 1, 1))
        assert plan.block == (32 * plan.instance.tile["warps"], 1, 1)


def test_too_long_a_sum_that_may_not_be_split_is_refused() -> None:
    device = SimDevice()
    a, b, out = (device.alloc(shape, np.float32) for shape in ((1, 2**30 + 1), (2**30 + 1, 1), (1, 2)))
    with pytest.raises(ValueError, match=f"cannot sum {2**30 + 1} products at once"):
        sgemm(Host(device), a, b, out[:, :1], epilogue=Epilogue(relu=True))


def test_what_does_not_go_together_is_refused() -> None:
    device = SimDevice()
    a, b, out = (device.alloc(shape, np.float32) for shape in ((4, 6), (6, 8), (4, 8)))
    host = Host(device)
    with pytest.raises(ValueError, match="do not go together"):
        sgemm(host, a, b, out, trans_a=True)
    with pytest.raises(ValueError, match="do not go together"):
        sgemm(host, a, b, out, channel="batch")
    with pytest.raises(ValueError, match="neighbours in memory"):
        sgemm(host, a[:, ::2], b[:3], out)
    with pytest.raises(ValueError, match="does not broadcast"):
        sgemm(host, device.alloc((3, 4, 6), np.float32), b, device.alloc((2, 4, 8), np.float32))
    with pytest.raises(ValueError, match="no tile '256x256'"):
        sgemm(host, a, b, out, tile="256x256")
    with pytest.raises(UnavailableError, match="gemm in float64"):
        host.gemm(np.ones((2, 2)), np.ones((2, 2)), False, False)
    with pytest.raises(UnavailableError, match="linear_fwd in float64"):
        host.linear_fwd(np.ones((2, 2)), np.ones((2, 2)), None)


def test_what_a_tile_costs_is_written_down_for_each() -> None:
    assert set(gemm.WEIGHTS) >= {name.split("_")[1] for name in INSTANCES}
