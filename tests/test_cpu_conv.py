"""Convolution on the CPU engine: direct and im2col, every pass, instruction set and thread count."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from cpu_engine import ISAS

import pycnn
from pycnn import algorithms
from pycnn.backends import cpu, reference
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import check_bias_gradient, check_conv2d, check_epilogue
from pycnn.testing.problems import BY_REASON, every_pass, problems

pytestmark = pytest.mark.usefixtures("engine_as_found")

ALGORITHMS = ("direct", "im2col_implicit", "im2col_explicit")


# What the depthwise kernels for a stride of two can get wrong: which row of dy both phases of dx share, rows and
# columns of one phase that the other lacks, vectors that lie inside and across either end of a row.
DEPTHWISE = [
    Problem.parse(text)
    for text in (
        "n2c3h17w70_k3r3s3_st2pd1g3",
        "n1c5h18w69_k5r3s3_st2g5",
        "n2c2h9w66_k2r3s3_st2pd2g2",
        "n1c3h8w7_k3r3s3_st2pd0.1.1.0g3",
        "n3c2h7w33_k2r3s3_st2x1pd1g2",
        "n1c4h3w3_k4r3s3_st2pd1g4",
        "n1c2h12w90_k2r3s3_st2pd2dl2g2",
        "n2c37h5w5_k37r5s5_st2pd2g37",
    )
]


@pytest.mark.parametrize("isa", ISAS)
def test_filters_whose_rows_are_whole_pages_are_right(isa: str) -> None:
    pycnn.set_isa(isa)
    for text in ("n2c1024h9w15_k5r1_dgrad", "n1c2048h12_k6r1_g2_dgrad", "n1c512h11w13_k3r1_f64_dgrad"):
        check_conv2d(cpu, text, "im2col_explicit")


@pytest.mark.parametrize("isa", ISAS)
def test_depthwise_kernels_are_right(isa: str) -> None:
    pycnn.set_isa(isa)
    for problem in every_pass(DEPTHWISE):
        check_conv2d(cpu, problem, "direct")
        check_conv2d(cpu, replace(problem, dtype="float64"), "direct")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("reason", BY_REASON)
def test_every_problem_is_right(reason: str, algo: str, isa: str) -> None:
    pycnn.set_isa(isa)
    for problem in every_pass(problems(reason)):
        check_conv2d(cpu, problem, algo)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_float64_is_right(algo: str) -> None:
    for problem in every_pass(problems("tail", "stride and tail", "groups", "depthwise", "dilation")):
        check_conv2d(cpu, replace(problem, dtype="float64"), algo)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algo", ["auto", *ALGORITHMS, "winograd_f2x2_3x3", "winograd_f4x4_3x3"])
def test_epilogue_and_bias_gradient(algo: str, dtype: str) -> None:
    check_epilogue(cpu, replace(Problem.parse("n2c6h11w13_k5r3s3_pd1"), dtype=dtype), algo)
    check_bias_gradient(cpu, replace(Problem.parse("n2c6h11w13_k5r3s3_pd1"), dtype=dtype), "auto")


def test_epilogue_of_an_empty_batch() -> None:
    check_epilogue(cpu, "n0c3h8w8_k4r3s3_pd1")
    check_bias_gradient(cpu, "n0c3h8w8_k4r3s3_pd1")


# Large enough for several blocks of pixels, filters, channels and images in every kernel.
BLOCKED = (
    "n9c40h7w7_k50r3s3_pd1",
    "n2c70h40w41_k20r3s3_pd1",
    "n1c600h9w10_k17r3s3_st2pd1",
    "n1c900h30w30_k9r1s1",
    "n5c130h7w7_k70r1s1",
    "n1c3h200w190_k20r7s7_st2pd3",
    "n2c6h37w41_k70r3s4_st2x3pd1dl1x2g2",
    "n3c800h5w7_k9r1s1",
    "n2c9h90w91_k9r3s3_st2pd1g9",
    "n1c2h3w9000_k3r1s5_pd0x2",
    "n1c1500h3w500_k2r1s1_pd1",
)


@pytest.mark.parametrize("text", BLOCKED)
@pytest.mark.parametrize("algo", ["direct", "im2col"])
def test_blocks_meet(algo: str, text: str) -> None:
    for problem in every_pass([Problem.parse(text)]):
        check_conv2d(cpu, problem, algo)


# Images smaller than the stride: some taps of dgrad meet no column, or no row, of them.
SMALLER_THAN_THE_STRIDE = (
    "n1c5h8w1_k5r2s2_st2pd1g5",
    "n2c3h1w9_k3r3s2_st2pd1g3",
    "n1c4h2w2_k4r5s5_st4pd2g4",
    "n1c4h1w2_k4r3s4_st3pd1x2g2",
)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("text", SMALLER_THAN_THE_STRIDE)
def test_taps_beside_a_small_image_are_left_out(text: str, isa: str) -> None:
    pycnn.set_isa(isa)
    for problem in every_pass([Problem.parse(text)]):
        check_conv2d(cpu, problem, "direct")


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("padding", [(0, 1, 0, 0), (0, 0, 0, 1), (0, 2, 0, 300)])
def test_a_row_is_padded_after_its_end_alone(padding: tuple[int, int, int, int], algo: str) -> None:
    """A 1x1 filter reads a row of pixels where it lies, but not on beyond it."""
    shape = Conv2dShape(2, 3, 1, 700, 4, 1, 1, (1, 1), padding)
    for operator in ("fprop", "dgrad", "wgrad"):
        check_conv2d(cpu, Problem(shape, operator), algo)


def test_random_problems() -> None:
    rng = np.random.default_rng(2024)
    tried = 0
    while tried < 60:
        groups = int(rng.choice([1, 1, 1, 2, 3, 5]))
        pick = [int(value) for value in rng.integers(1, [4, 9, 24, 24, 9, 6, 6, 4, 4, 4, 4])]
        n, c, h, w, k, r, s, st_h, st_w, dl_h, dl_w = pick
        pads = tuple(int(value) for value in rng.integers(0, 4, 4))
        if h + pads[0] + pads[1] < dl_h * (r - 1) + 1 or w + pads[2] + pads[3] < dl_w * (s - 1) + 1:
            continue
        shape = Conv2dShape(n, c * groups, h, w, k * groups, r, s, (st_h, st_w), pads, (dl_h, dl_w), groups)
        tried += 1
        for operator in ("fprop", "dgrad", "wgrad"):
            check_conv2d(cpu, Problem(shape, operator), ALGORITHMS[tried % 3], seed=tried)


def _run(operator: str, shape: Conv2dShape, algo: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    left = rng.standard_normal(shape.x_shape if operator == "fprop" else shape.y_shape, dtype=np.float32)
    right = rng.standard_normal(shape.x_shape if operator == "wgrad" else shape.w_shape, dtype=np.float32)
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups)
    if operator == "fprop":
        return cpu.conv2d_fprop(left, right, None, *geometry, algo=algo)
    if operator == "dgrad":
        return cpu.conv2d_dgrad(left, right, shape.x_shape, *geometry, algo=algo)
    return cpu.conv2d_wgrad(left, right, shape.w_shape, *geometry, algo=algo)


SHARED = Problem.parse("n3c20h19w21_k36r3s3_st2pd1").shape


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("operator", ["fprop", "dgrad", "wgrad"])
def test_thread_count_does_not_change_a_bit(operator: str, algo: str, isa: str) -> None:
    pycnn.set_isa(isa)
    results = []
    for threads in (1, 2, 3, 5):
        pycnn.set_num_threads(threads)
        results.append(_run(operator, SHARED, algo).tobytes())
    assert len(set(results)) == 1


def test_python_threads_at_once() -> None:
    expected = {operator: _run(operator, SHARED, "direct") for operator in ("fprop", "dgrad", "wgrad")}
    wrong: list[str] = []

    def work() -> None:
        for operator in ("fprop", "dgrad", "wgrad") * 5:
            if not np.array_equal(_run(operator, SHARED, "direct"), expected[operator]):
                wrong.append(operator)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_computes() -> None:
    pycnn.set_num_threads(2)
    expected = _run("fprop", SHARED, "direct")

    def child() -> None:
        os._exit(0 if np.array_equal(_run("fprop", SHARED, "direct"), expected) else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(timeout=60)
    alive = process.is_alive()
    if alive:
        process.kill()
    assert not alive
    assert process.exitcode == 0


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("text", ["n2c5h9w11_k7r3s3_pd1", "n1c6h10w9_k8r3s3_st2pd1g2", "n1c6h8w9_k6r3s3_pd1g6"])
def test_infinities_and_nans_spread_as_in_torch(text: str, algo: str) -> None:
    """PyTorch's own kernels: an image's padding is a real zero (zero times infinity is NaN), a gradient has none."""
    torch = pytest.importorskip("torch")
    shape = Problem.parse(text).shape
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups)
    rng = np.random.default_rng(5)
    for value in (np.inf, -np.inf, np.nan):
        for spoiled in ("x", "w", "dy"):
            arrays = {
                "x": rng.standard_normal(shape.x_shape),
                "w": rng.standard_normal(shape.w_shape),
                "dy": rng.standard_normal(shape.y_shape),
            }
            arrays[spoiled].flat[:: arrays[spoiled].size - 1] = value  # the first element and the last
            x, w, dy = arrays.values()
            tensors = [torch.from_numpy(arrays[name]) for name in ("dy", "x", "w")]
            stride, padding, dilation, groups = shape.stride, shape.padding[::2], shape.dilation, shape.groups
            y = torch.conv2d(tensors[1], tensors[2], None, stride, padding, dilation, groups)
            with torch.backends.mkldnn.flags(enabled=False):
                dx, dw, _ = torch.ops.aten.convolution_backward(
                    *tensors, None, stride, padding, dilation, False, (0, 0), groups, (True, True, False)
                )
            for got, expected in (
                (cpu.conv2d_fprop(x, w, None, *geometry, algo=algo), y),
                (cpu.conv2d_dgrad(dy, w, shape.x_shape, *geometry, algo=algo), dx),
                (cpu.conv2d_wgrad(dy, x, shape.w_shape, *geometry, algo=algo), dw),
            ):
                # float64 sums of a few dozen terms: 1e-12 is a hundred times their rounding
                np.testing.assert_allclose(got, expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 9, 11), (1, 1, 300, 301), (0, 4, 3, 3), (4, 3, 2)])
def test_channel_sum_is_right(shape: tuple[int, ...], dtype: str) -> None:
    dy = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    got = cpu.channel_sum(dy)
    assert got.dtype == dy.dtype
    # at most ~90 roundings of runs of 2048 values a lane on sums of |dy| of some 10^5
    scale = np.abs(dy.astype(np.float64)).sum(axis=(0, *range(2, dy.ndim))).max()
    np.testing.assert_allclose(got, reference.channel_sum(dy), rtol=0, atol=float(np.finfo(dtype).eps * scale))


def test_a_result_too_large_for_memory_is_a_memory_error() -> None:
    x = np.zeros((1, 1, 1, 1))
    with pytest.raises(MemoryError):  # 2**38 elements, 2 TiB
        cpu.conv2d_fprop(x, x, None, (1, 1), (2**18, 2**18, 2**18, 2**18), (1, 1), 1)


def test_auto_takes_what_it_says() -> None:
    shape = SHARED
    for operator in ("fprop", "dgrad", "wgrad"):
        name, why = cpu.conv2d_choose(operator, shape, np.float32)
        assert why
        assert (name, None) in cpu.conv2d_algorithms(operator, shape, np.float32)
        assert np.array_equal(_run(operator, shape, "auto"), _run(operator, shape, name))


def test_families_stand_for_one_of_their_variants() -> None:
    assert algorithms.resolve("direct", "fprop", SHARED, "float32") == "direct"
    for operator in ("fprop", "dgrad", "wgrad"):
        taken = algorithms.resolve("im2col", operator, SHARED, "float32")
        assert taken in ("im2col_implicit", "im2col_explicit")
        assert np.array_equal(_run(operator, SHARED, "im2col"), _run(operator, SHARED, taken))


def test_an_unknown_algorithm_is_named() -> None:
    with pytest.raises(ValueError, match=r"algo must be one of auto, direct, im2col, .*, got 'fft'"):
        _run("fprop", SHARED, "fft")


def test_set_isa_and_threads_validate() -> None:
    with pytest.raises(ValueError, match="got 'sse9'"):
        pycnn.set_isa("sse9")
    with pytest.raises(ValueError, match="at most 1024"):
        pycnn.set_num_threads(5000)
    with pytest.raises(TypeError, match="n must be an int"):
        pycnn.set_num_threads("two")  # type: ignore[arg-type]
    pycnn.set_isa("baseline")
    assert pycnn.get_isa() == "baseline"
    pycnn.set_num_threads(3)
    assert pycnn.get_num_threads() == 3


def test_daemon_threads_do_not_keep_the_interpreter_from_ending() -> None:
    code = """
import threading, time, numpy as np, pycnn
pycnn.set_num_threads(2)
x, w = np.ones((2, 16, 40, 40), np.float32), np.ones((16, 16, 3, 3), np.float32)
def work():
    while True:
        pycnn.conv2d(x, w)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
