"""Winograd's convolutions: every tile and pass on the problem lists, in the simulator, against the oracle."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, ORDERS

from pycnn import winograd as matrices
from pycnn.backends import reference
from pycnn.backends.cuda import Host, winograd
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.plan import Epilogue, Operands
from pycnn.jit.sources import installed
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import check_conv2d, check_epilogue, error_bound, every_pass, exact_operands, layers, problems, run
from pycnn.testing.regimes import float_operands, is_exact, oracle

pytestmark = pytest.mark.simulator

FPROP = tuple(matrices.variant("fprop", tile) for tile in matrices.TILES)
FIVE = tuple(matrices.variant("fprop", tile, 5) for tile in matrices.TILES_5X5)
LINES = tuple(matrices.variant("fprop", matrices.TILE_OF_LINES, *line) for line in matrices.LINES)
WGRAD = tuple(matrices.variant("wgrad", tile) for tile in matrices.TILES)


def able(problem: Problem) -> list[str]:
    plans = winograd.plans(problem.operator, problem.shape, installed())
    return [plan.name for plan in plans if plan.reason is None]


def sides_of(algo: str) -> list[tuple[int, int]]:
    """Rows and columns of a variant's tiles and of its filters."""
    sides = [(int(rows), int(columns)) for rows, columns in re.findall(r"(\d+)x(\d+)", algo)]
    return sides[::-1] if algo in WGRAD else sides


LINE_FILTERS = [sides_of(algo)[1] for algo in LINES]


def cases(given: list[Problem]) -> list[tuple[Problem, str]]:
    return [(problem, algo) for problem in every_pass(given) for algo in able(problem)]


def random_problems(count: int, *filters: tuple[int, int]) -> list[Problem]:
    """Shapes that nobody thought of, the same in every run: filters at stride 1, any padding, groups and sizes."""
    rng = random.Random(111 * filters[0][0])
    found: list[Problem] = []
    while len(found) < count:
        groups = rng.choice([1, 1, 1, 2, 3])
        sizes = (rng.randint(1, 3), groups * rng.randint(1, 20), rng.randint(1, 30), rng.randint(1, 40))
        padding = (rng.randint(0, 4), rng.randint(0, 4), rng.randint(0, 4), rng.randint(0, 4))
        try:
            window = filters[len(found) % len(filters)]
            shape = Conv2dShape(*sizes, groups * rng.randint(1, 70), *window, (1, 1), padding, (1, 1), groups)
        except ValueError:
            continue  # the filter does not fit
        if shape.macs < 4_000_000:
            found.append(Problem(shape))
    return found


# Whole tiles and tails along every dimension of every product, three blocks of each, and more stages than two.
LARGE = [
    "n2c21h27w22_k130r3s3_pd1",
    "n2c21h15w18_k70r5s5_pd2",
    "n2c21h11w22_k70r1s3_pd0.0.1.1",
    "n2c21h22w11_k70r5s1_pd2.2.0.0",
]

# Filters of one line: tails and whole tiles, groups, paddings that differ and that exceed the filter, images of one
# pixel across or of one row, and an empty batch.
ONE_LINE = [
    "n2c5h9w11_k7r{0}s{1}_pd1.0.2.3",
    "n1c6h8w8_k10r{0}s{1}_pd2.1.1.2g2",
    "n2c3h1w13_k4r{0}s{1}_pd2.2.1.4",
    "n2c3h13w1_k4r{0}s{1}_pd4.1.2.2",
    "n0c3h8w8_k4r{0}s{1}",
    "n1c2h5w6_k3r{0}s{1}_pd6",
]

# Of those kept for a reason, one for each; the others with --slow.
FAST = {
    "n3c13h17w19_k37r3s3_pd1",
    "n2c5h1w1_k4r3s3_pd1",
    "n2c1h8w8_k1r3s3",
    "n2c4h9w10_k6r3s3_pd0.1.2.3",
    "n1c3h5w6_k4r3s3_pd4",
    "n1c32h8w8_k64r3s3_pd1g4",
    "n0c3h8w8_k4r3s3_pd1",
    "n1c2h3w300_k3r3s3_pd1",
    "n33c3h5w5_k4r3s3_pd1",
    "n1c7h33w35_k9r5s5_pd2",
    "n1c5h11w11_k10r5s5_pd2g5",
}


def listed() -> list[Any]:
    fast = {str(Problem.parse(text).shape) for text in FAST}
    return [
        pytest.param(
            problem, algo, id=f"{problem}-{algo}", marks=() if str(problem.shape) in fast else pytest.mark.slow
        )
        for problem, algo in cases(problems())
    ]


@pytest.mark.parametrize(("problem", "algo"), listed())
def test_problem_list(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["random"], problem, algo)


@pytest.mark.parametrize("algo", LINES)
@pytest.mark.parametrize("operator", ["fprop", "dgrad"])
def test_filters_of_one_line(operator: str, algo: str) -> None:
    for text in ONE_LINE:
        problem = replace(Problem.parse(text.format(*sides_of(algo)[1])), operator=operator)
        assert able(problem) == [algo]
        check_conv2d(DEVICES["random"], problem, algo)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("problem", "algo"), cases([Problem.parse(text) for text in LARGE]), ids=str)
def test_full_tiles_and_tails_in_every_order(problem: Problem, algo: str, order: str) -> None:
    """On integers, where the smallest tile is exact; the other regimes are the problem lists'."""
    operands = exact_operands(problem, algo)
    found = run(DEVICES[order], problem, operands, algo)
    exact = oracle(problem, operands)
    bound = 0 if is_exact(algo) else error_bound(problem, operands, exact, algo)
    assert np.abs(found - exact).max() <= bound


@pytest.mark.parametrize(
    ("problem", "algo"),
    cases(random_problems(5, (3, 3)) + random_problems(3, (5, 5)) + random_problems(4, *LINE_FILTERS)),
    ids=str,
)
def test_random_problem(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["random"], problem, algo)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "algo"),
    cases(
        [*random_problems(40, (3, 3))[5:], *random_problems(20, (5, 5))[3:], *random_problems(40, *LINE_FILTERS)[4:]]
    ),
    ids=str,
)
def test_more_random_problems(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["random"], problem, algo)


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "algo"), cases(layers(most_macs=60_000_000)), ids=str)
def test_layer(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["forward"], problem, algo)


@pytest.mark.parametrize("algo", [*FPROP, *FIVE, *LINES])
@pytest.mark.parametrize("problem", ["n2c5h9w12_k9r{0}s{1}_pd1", "n1c4h7w9_k6r{0}s{1}_g2"])
def test_epilogue(algo: str, problem: str) -> None:
    problem = problem.format(*sides_of(algo)[1])
    check_epilogue(DEVICES["random"], problem, algo)


# ---------------------------------------------------------------------------------------------------------------------
# Chunks of tiles and the workspace


class Watching(SimDevice):
    """Remembers what is allocated and the sizes of all products."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.products: list[tuple[int, int, int, int]] = []  # M, N, K, batch

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.bytes += int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        return super().alloc(shape, dtype)

    def launch(self, kernel: Any, grid: Any, block: Any, shared: int, arguments: Any) -> None:
        if kernel.instance.kernel == "sgemm":
            M, N, K, _ = struct.unpack_from("<4q", arguments[0])
            self.products.append((M, N, K, int(np.prod(arguments[1].array.shape[:-2]))))
        super().launch(kernel, grid, block, shared, arguments)


def ran(device: SimDevice, problem: Problem, algo: str, seed: int = 0) -> tuple[Any, np.ndarray]:
    """The plan, and its result on normal operands, straight through `Plan.run`."""
    operands = float_operands(problem, seed, bias=False)
    plan = next(plan for plan in winograd.plans(problem.operator, problem.shape, installed()) if plan.name == algo)
    host, s = Host(device), problem.shape
    left, right = (device.alloc(each.shape, np.float32) for each in (operands.left, operands.right))
    left[...], right[...] = operands.left, operands.right
    result = device.alloc({"fprop": s.y_shape, "dgrad": s.x_shape, "wgrad": s.w_shape}[problem.operator], np.float32)
    if isinstance(device, Watching):
        device.bytes = 0
    given = {
        "fprop": Operands(x=left, w=right, y=result),
        "dgrad": Operands(dy=left, w=right, dx=result),
        "wgrad": Operands(dy=left, x=right, dw=result),
    }
    plan.run(host, given[problem.operator])
    exact = oracle(problem, operands)
    assert np.abs(result - exact).max() <= error_bound(problem, operands, exact, algo)
    return plan, np.array(result)


# (operator, algorithm) of every plan.
PLANS = [
    *((operator, algo) for operator in ("fprop", "dgrad") for algo in (*FPROP, *FIVE, *LINES)),
    *(("wgrad", algo) for algo in WGRAD),
]


@pytest.mark.parametrize(("operator", "algo"), PLANS)
@pytest.mark.parametrize("text", ["n2c9h19w22_k37r{0}s{1}_pd1", "n2c6h30w9_k4r{0}s{1}_pd1g2"])
def test_chunks_and_workspace(text: str, operator: str, algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In as many chunks as there can be, the results are as good, and for fprop and dgrad the same."""
    problem = replace(Problem.parse(text.format(*sides_of(algo)[1])), operator=operator)
    device = Watching()
    plan, whole = ran(device, problem, algo)
    assert device.bytes == plan.workspace
    assert [instance.kernel for instance in plan.kernels if instance not in device.launches] == []
    monkeypatch.setattr(winograd, "CHUNK_BYTES", 1)
    in_chunks = Watching()
    smaller, pieces = ran(in_chunks, problem, algo)
    assert in_chunks.bytes == smaller.workspace <= plan.workspace
    if isinstance(plan, winograd.FusedPlan):
        return
    tiling = plan.x.tiling if operator == "wgrad" else plan.convolution.tiling
    assert len(in_chunks.products) == -(-tiling.tiles // 32)
    if operator != "wgrad":
        assert np.array_equal(whole, pieces)


def test_chunks_cover_every_tile_once_and_stay_within_the_limit() -> None:
    for images, rows, columns, channels in [(1, 5, 5, 3), (32, 56, 56, 256), (300, 7, 9, 2048), (1, 3000, 3000, 128)]:
        tiling = winograd.Tiling(images, 1, 4, rows, columns)
        expected = 0
        for first, tiles in tiling.chunks(channels):
            assert first == expected
            assert tiles % 4 == 0
            assert tiles * tiling.points * channels * 4 <= max(winograd.CHUNK_BYTES, 32 * tiling.points * channels * 4)
            expected += tiles
        assert tiling.tiles <= expected < tiling.tiles + 4
    assert list(winograd.Tiling(0, 1, 4, 8, 8).chunks(3)) == []


@pytest.mark.parametrize(
    ("tiling", "channels", "sizes"),
    [
        (winograd.Tiling(32, 1, 4, 56, 56), 128, (6272, 6272)),
        (winograd.Tiling(32, 1, 2, 56, 56), 512, (6272, 6272)),  # a quarter
        (winograd.Tiling(128, 2, 6, 112, 112), 256, (3872, 3616)),
        (winograd.Tiling(1, 1, 4, 5, 5), 3, (32, 4)),
        (winograd.Tiling(1, 1, 4, 5, 5, 3, axis=0), 3, (32, 12)),  # 2 x 5 tiles
    ],
)
def test_sizes_of_chunks(tiling: winograd.Tiling, channels: int, sizes: tuple[int, int]) -> None:
    assert tiling.chunk_sizes(channels) == sizes


@pytest.mark.parametrize(("operator", "algo"), PLANS)
def test_multiplies_are_winograds(operator: str, algo: str) -> None:
    """No fallback: only transforms are launched, and products of (tile + taps - 1) points along an axis for `tile`."""
    (rows, columns), (R, S) = sides_of(algo)
    problem = Problem.parse(f"n2c16h24w24_k16r{R}s{S}_pd{R // 2}.{R // 2}.{S // 2}.{S // 2}")
    shape, points = problem.shape, (rows + R - 1) * (columns + S - 1)
    device = Watching()
    plan, _ = ran(device, replace(problem, operator=operator), algo)
    assert {instance.kernel for instance in device.launches} <= {*winograd.KERNELS, "sgemm", "sum_slices"}
    tiles = 2 * (24 // rows) * (24 // columns)
    winograds = points * tiles * shape.C * shape.K
    if isinstance(plan, winograd.FusedPlan):
        # Blocks of 64 filters, of which 16 are there; and five sixteenths more for what is not a product.
        assert plan.cost == winograds * 4 * 21 // 16
        assert device.products == []
    else:
        assert sum(M * N * K * batch for M, N, K, batch in device.products) == winograds
    assert winograds == shape.macs * points // (R * S * rows * columns)


# ---------------------------------------------------------------------------------------------------------------------
# NaN, alignment, sizes


@pytest.mark.parametrize("algo", [*FPROP, *FIVE, *LINES])
def test_nan_stays_within_the_tiles_whose_windows_hold_it(algo: str) -> None:
    (rows, columns), (R, S) = sides_of(algo)
    top, left = R // 2, S // 2
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 20, 23)).astype("f4"), rng.standard_normal((5, 3, R, S)).astype("f4")
    rest = ((1, 1), (top, top, left, left), (1, 1), 1)
    clean = DEVICES["forward"].conv2d_fprop(x, w, None, *rest, algo=algo)
    x[1, 2, 9, 7], x[0, 0, 0, 22] = np.nan, np.inf
    y = DEVICES["forward"].conv2d_fprop(x, w, None, *rest, algo=algo)
    touched = np.zeros(y.shape, bool)
    for n, h, column in ((1, 9, 7), (0, 0, 22)):
        for i in range(0, 20, rows):
            for j in range(0, 23, columns):
                # The window of a tile begins at its own corner less the padding.
                if i - top <= h < i + rows + top and j - left <= column < j + columns + left:
                    touched[n, :, i : i + rows, j : j + columns] = True
    assert np.array_equal(y[~touched], clean[~touched])
    direct = reference.conv2d_fprop(x, w, None, *rest)
    assert not np.isfinite(y[~np.isfinite(direct)]).any()


@pytest.mark.parametrize("algo", [*FPROP, *FIVE, *LINES, *WGRAD])
@pytest.mark.parametrize("text", ["n2c5h8w12_k9r{0}s{1}_pd{2}.{2}.{3}.{3}", "n1c4h7w9_k6r{0}s{1}"])
@pytest.mark.parametrize("off", [1, 2])
def test_operands_and_results_at_any_multiple_of_four_bytes(algo: str, text: str, off: int) -> None:
    R, S = sides_of(algo)[1]
    parsed = Problem.parse(text.format(R, S, R // 2, S // 2))
    problem = replace(parsed, operator="wgrad" if algo in WGRAD else "fprop")
    operands, s, device = exact_operands(problem, algo, bias=False), problem.shape, SimDevice()

    def shifted(shape: tuple[int, ...], values: np.ndarray | float) -> np.ndarray:
        array = device.alloc((int(np.prod(shape)) + off,), np.float32)[off:].reshape(shape)
        array[...] = values
        return array

    left, right = shifted(operands.left.shape, operands.left), shifted(operands.right.shape, operands.right)
    exact = oracle(problem, operands)
    result = shifted(exact.shape, np.nan)
    plan = next(p for p in winograd.plans(problem.operator, s, installed()) if p.name == algo)
    if algo in WGRAD:
        plan.run(Host(device), Operands(dy=left, x=right, dw=result))
    else:
        plan.run(Host(device), Operands(x=left, w=right, y=result, epilogue=Epilogue()))
    assert np.abs(result - exact).max() <= (0 if is_exact(algo) else error_bound(problem, operands, exact, algo))


def ends(self: winograd.Tiling, channels: int) -> Iterator[tuple[int, int]]:
    """The first 32 tiles and the last."""
    yield 0, 32
    yield self.tiles - 32, 32


class Ends(SimDevice):
    """Runs the first and the last block of the fused kernel, and all blocks of the others."""

    def launch(self, kernel: Any, grid: Any, block: Any, shared: int, arguments: Any) -> None:
        self.blocks = [0, grid[0] - 1] if kernel.instance.kernel == winograd.FUSED else None
        super().launch(kernel, grid, block, shared, arguments)


@pytest.mark.parametrize(("operator", "algo"), PLANS)
def test_past_two_to_the_31_elements(operator: str, algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of 2^31 elements and more, in mappings that nobody touches but the first and the last tiles."""
    R, S = sides_of(algo)[1]
    shape = Conv2dShape(1, 1, 6, 2**29 + 48, 1, R, S, padding=(R // 2, R // 2, S // 2, S // 2))
    device = Ends()
    monkeypatch.setattr(winograd.Tiling, "chunks", ends)
    host = Host(device)
    x, w = device.alloc(shape.x_shape, np.float32), device.alloc(shape.w_shape, np.float32)
    x[0, 0, 0, :5] = 1, 2, 3, 4, 5
    x[0, 0, 5, -5:] = 6, 7, 8, 9, 10
    w[...] = 0
    w[0, 0, R // 2, S // 2] = 2
    # Roundings of eight points an axis: some hundred units of 2^-24 of the largest value, 20.
    near = {"atol": 1e-3}
    rest = ((1, 1), shape.padding, (1, 1), 1)
    if operator == "wgrad":
        dy = device.alloc(shape.y_shape, np.float32)
        dy[0, 0, 0, :5], dy[0, 0, 5, -5:] = 1, 1
        dw = host.conv2d_wgrad(dy, x, shape.w_shape, *rest, algo=algo)
        # Row 1 of the taps meets the pixel's own row; the columns are shifted by -1, 0 and 1, past the ends too.
        assert np.allclose(dw[0, 0], [[0, 0, 0], [10 + 30, 15 + 40, 14 + 34], [0, 0, 0]], **near)
        return
    if operator == "fprop":
        y = host.conv2d_fprop(x, w, None, *rest, algo=algo)
    else:
        y = host.conv2d_dgrad(x, w, shape.x_shape, *rest, algo=algo)
    assert np.allclose(y[0, 0, 0, :5], [2, 4, 6, 8, 10], **near)
    assert np.allclose(y[0, 0, 5, -5:], [12, 14, 16, 18, 20], **near)


@pytest.mark.parametrize(("operator", "algo"), PLANS)
def test_sizes_beyond_32_bits_are_refused_in_words(operator: str, algo: str) -> None:
    shape = Conv2dShape(2**33, 1, 8, 8, 1, *sides_of(algo)[1])
    (plan,) = (plan for plan in winograd.plans(operator, shape, installed()) if plan.name == algo)
    assert "it counts in 32 bits, and the tiles go up to" in str(plan.reason)


def test_empty_batch() -> None:
    backend = DEVICES["forward"]
    x, w, dy = np.ones((0, 3, 8, 8), "f4"), np.ones((4, 3, 3, 3), "f4"), np.ones((0, 4, 6, 6), "f4")
    rest = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
    assert backend.conv2d_fprop(x, w, None, *rest, algo="winograd").shape == (0, 4, 6, 6)
    assert backend.conv2d_dgrad(dy, w, x.shape, *rest, algo="winograd").shape == (0, 3, 8, 8)
    assert not backend.conv2d_wgrad(dy, x, w.shape, *rest, algo="winograd").any()


# ---------------------------------------------------------------------------------------------------------------------
# What is chosen and refused


@pytest.mark.parametrize("operator", PASSES)
def test_refusals_are_those_of_the_cpu_engine(operator: str) -> None:
    for text in ("n1c4h9_k4r7", "n1c4h9_k4r5s3", "n1c4h9_k4r3_st2", "n1c4h9_k4r3_dl2"):
        shape = Problem.parse(text).shape
        for plan in winograd.plans(operator, shape, installed()):
            assert plan.reason == matrices.refuses(plan.name, operator, shape) is not None


def test_the_family_takes_the_tile_with_the_least_work() -> None:
    def taken(text: str) -> str:
        problem = Problem.parse(text)
        plans = winograd.plans(problem.operator, problem.shape, installed())
        able = [plan for plan in plans if plan.reason is None]
        return min(able, key=lambda plan: (plan.tier, plan.cost)).name

    assert taken("n32c64h56_k64r3_pd1") == "winograd_f2x2_3x3"  # little depth to pay for the way to memory and back
    assert taken("n32c512h28_k512r3_pd1") == "winograd_f4x4_3x3"
    assert taken("n1c64h27_k192r5_pd2") == taken("n1c64h27_k192r5_pd2_dgrad") == "winograd_f4x4_5x5"
    assert taken("n32c512h28_k512r3_pd1_wgrad") == "winograd_f3x3_4x4"
