"""The engine's normalisations against the reference, on shapes with every kind of tail and on awkward data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cpu_engine import DTYPES, check, close, instruction_sets

from pycnn import _cpu
from pycnn.backends import cpu, reference

SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 4, 5),
    (4, 5),
    (33, 70),
    (7, 17, 3),
    (3, 4, 17),
    (2, 6, 28, 28),
    (5, 3, 7, 7),
    (1, 2, 91, 93),
    (1, 3, 113, 112),
    (3, 1, 2, 2, 2),
    (64, 2, 9, 9),
]


def wide(*arrays: np.ndarray | None) -> list[np.ndarray | None]:
    return [None if array is None else array.astype(np.float64) for array in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_equals_reference(affine: bool, dtype: type) -> None:
    rng = np.random.default_rng(0)
    for _ in instruction_sets():
        for shape in SHAPES:
            x = (rng.normal(size=shape) * 3 + 1).astype(dtype)
            weight, bias = rng.normal(size=(2, shape[1])).astype(dtype) if affine else (None, None)
            y, mean, var = check(lambda x, w, b: cpu.batch_norm_fwd(x, w, b, 1e-5), x, weight, bias)
            expected = reference.batch_norm_fwd(*wide(x, weight, bias), 1e-5)
            count = x.size // shape[1]
            # A single element has no variance: (x - mean) / sqrt(eps) is 300 times the rounding of the mean.
            close(y, expected[0], 16 if count > 1 else 2000, scale=10.0)
            close(mean, expected[1], 4, scale=10.0)
            close(var, expected[2], 8, scale=float(expected[2].max()) + 1e-3)
            dy = rng.normal(size=shape).astype(dtype)
            found = check(lambda dy, x, w, m, v: cpu.batch_norm_bwd(dy, x, w, m, v, 1e-5), dy, x, weight, mean, var)
            expected = reference.batch_norm_bwd(*wide(dy, x, weight, mean, var), 1e-5)
            slope = float(np.abs(expected[1]).max()) + count**0.5
            # Sums of `count` terms in chains of at most 256 a lane, merged in double: some 2 count^0.5 roundings
            # of a term, a term being at most some 5 in size; dx is divided by the deviation (316 where there is none).
            close(found[0], expected[0], 64, scale=float(np.abs(expected[0]).max()) + (1 if count > 1 else 400))
            close(found[1], expected[1], 32, scale=slope)
            close(found[2], expected[2], 32, scale=float(np.abs(expected[2]).max()) + count**0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_and_a_relu_in_the_same_pass_give_the_bits_of_passes_of_their_own(dtype: type) -> None:
    rng = np.random.default_rng(4)
    for _ in instruction_sets():
        for shape in SHAPES:
            x, residual, dy = (rng.normal(size=shape).astype(dtype) for _ in range(3))
            residual.flat[0], weight, bias = np.nan, *rng.normal(size=(2, shape[1])).astype(dtype)
            y, mean, var = cpu.batch_norm_fwd(x, weight, bias, 1e-5)
            steps = {
                (False, True): cpu.relu_fwd(y),
                (True, False): cpu.add(y, residual),
                (True, True): cpu.relu_fwd(cpu.add(y, residual)),
            }
            for (added, relu), expected in steps.items():
                given = [x, weight, bias, residual if added else None]

                def forward(x: Any, w: Any, b: Any, r: Any, relu: bool = relu) -> Any:
                    return cpu.batch_norm_fwd(x, w, b, 1e-5, r, relu)

                found = check(forward, *given)
                for ours, theirs in zip(found, (expected, mean, var), strict=True):
                    np.testing.assert_array_equal(ours, theirs)
            rectified = steps[True, True]  # holds a NaN, where the gradient passes
            found = check(
                lambda dy, x, w, m, v, y: cpu.batch_norm_bwd(dy, x, w, m, v, 1e-5, y),
                *(dy, x, weight, mean, var, rectified),
            )
            expected = cpu.batch_norm_bwd(cpu.relu_bwd(dy, rectified), x, weight, mean, var, 1e-5)
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_batch_norm_is_stable_far_from_zero() -> None:
    """A mean 10^4 deviations from zero: the naive E[x^2] - E[x]^2 in float32 would lose every digit of the variance."""
    rng = np.random.default_rng(1)
    for shape in ((4, 2, 60, 60), (300, 3)):
        x = (rng.normal(size=shape) + 1e4).astype(np.float32)
        for _ in instruction_sets():
            y, _, var = cpu.batch_norm_fwd(x, None, None, 1e-5)
            expected = reference.batch_norm_fwd(x.astype(np.float64), None, None, 1e-5)
            np.testing.assert_allclose(var, expected[2], rtol=1e-5)
            # The mean itself is rounded to float32: 2^-24 * 10^4 is 6e-4 deviations.
            np.testing.assert_allclose(y, expected[0], rtol=0, atol=1e-3)


def test_batch_norm_of_an_empty_batch_has_no_statistics() -> None:
    y, mean, var = cpu.batch_norm_fwd(np.ones((0, 3, 2, 2), np.float32), None, None, 1e-5)
    assert y.shape == (0, 3, 2, 2)
    assert np.isnan(mean).all()
    assert np.isnan(var).all()
    dx, dweight, dbias = cpu.batch_norm_bwd(y, y, None, mean, var, 1e-5)
    assert dx.shape == y.shape
    assert dweight.shape == dbias.shape == (3,)


def test_batch_norm_keeps_nan_in_its_channel() -> None:
    x = np.random.default_rng(2).normal(size=(2, 3, 20, 5)).astype(np.float32)
    x[1, 1, 19, 4] = np.nan
    for _ in instruction_sets():
        y, mean, _ = cpu.batch_norm_fwd(x, None, None, 1e-5)
        assert np.isnan(y).any(axis=(0, 2, 3)).tolist() == np.isnan(mean).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_channel_affine_equals_reference(dtype: type) -> None:
    rng = np.random.default_rng(3)
    for _ in instruction_sets():
        for shape in [*SHAPES, (0, 3, 2), (20, 1000), (2, 3, 0)]:
            x = rng.normal(size=shape).astype(dtype)
            scale, shift = rng.normal(size=(2, shape[1])).astype(dtype)
            (y,) = check(cpu.channel_affine, x, scale, shift)
            # A product and a sum, each rounded at most once.
            close(y, reference.channel_affine(*wide(x, scale, shift)), 2, scale=20.0)
            (y,) = check(cpu.channel_affine, x, None, shift)
            np.testing.assert_array_equal(y, reference.channel_affine(x, None, shift))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_by_given_statistics_equals_reference(affine: bool, dtype: type) -> None:
    rng = np.random.default_rng(5)
    for _ in instruction_sets():
        for shape in [*SHAPES, (0, 3, 2), (20, 1000)]:
            x = rng.normal(size=shape).astype(dtype)
            mean = rng.normal(size=shape[1]).astype(dtype)
            var = rng.uniform(0.5, 2, shape[1]).astype(dtype)
            weight, bias = rng.normal(size=(2, shape[1])).astype(dtype) if affine else (None, None)
            (y,) = check(lambda x, m, v, w, b: cpu.batch_norm_eval(x, m, v, w, b, 1e-5), x, mean, var, weight, bias)
            # A product and a sum of rounded coefficients: each of the three terms is at most some 25 in size.
            close(y, reference.batch_norm_eval(*wide(x, mean, var, weight, bias), 1e-5), 4, scale=25.0)


# size, alpha, beta, k: AlexNet's; PyTorch's defaults; every special exponent; an even and a very wide window.
LRN = [
    (5, 1e-4, 0.75, 2.0),
    (5, 0.7, 0.75, 1.0),
    (2, 0.5, 0.75, 1.0),
    (3, 0.9, 1.0, 1.5),
    (4, 0.8, 0.5, 1.0),
    (1, 1.0, 0.0, 1.0),
    (7, 0.3, 1.37, 0.9),
    (40, 2.0, 0.6, 3.0),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", LRN)
def test_lrn_equals_reference(config: tuple[int, float, float, float], dtype: type) -> None:
    rng = np.random.default_rng(4)
    for _ in instruction_sets():
        for shape in ((1, 1, 1, 1), (2, 5, 3, 3), (1, 9, 13, 13), (2, 3), (3, 20, 70), (0, 4, 2, 2), (1, 33, 9, 15)):
            x = rng.normal(scale=2, size=shape).astype(dtype)
            dy = rng.normal(size=shape).astype(dtype)
            (y,) = check(lambda x: cpu.lrn_fwd(x, *config), x)
            # A sum of `size` squares, a power of some 6 roundings, a product.
            close(y, reference.lrn_fwd(*wide(x), *config), 16 + 2 * config[0])
            (dx,) = check(lambda dy, x: cpu.lrn_bwd(dy, x, *config), dy, x)
            expected = reference.lrn_bwd(*wide(dy, x), *config)
            close(dx, expected, 32 + 4 * config[0], scale=float(np.abs(expected).max(initial=0)) + 1)


def test_lrn_forgets_what_has_left_the_window() -> None:
    """Channels 1e15, then 1e-3: a running sum would still hold rounding errors of 1e30 when the large one is gone."""
    x = np.full((1, 12, 3, 3), 1e-3, np.float32)
    x[0, 0] = 1e15
    x[0, 11] = np.inf
    for _ in instruction_sets():
        y = cpu.lrn_fwd(x, 3, 1.0, 0.75, 1.0)
        np.testing.assert_allclose(y, reference.lrn_fwd(x, 3, 1.0, 0.75, 1.0), rtol=1e-6)


ONE = np.ones((2, 3, 4), np.float32)
TWO, THREE = np.ones(2, np.float32), np.ones(3, np.float32)


@pytest.mark.parametrize(
    "call",
    [
        lambda: _cpu.batch_norm_fwd(THREE, None, None, 1e-5, None, False),
        lambda: _cpu.batch_norm_fwd(ONE, TWO, None, 1e-5, None, False),
        lambda: _cpu.batch_norm_fwd(ONE, None, TWO, 1e-5, None, False),
        lambda: _cpu.batch_norm_bwd(ONE[:1].copy(), ONE, None, THREE, THREE, 1e-5, None),
        lambda: _cpu.batch_norm_bwd(ONE, ONE, TWO, THREE, THREE, 1e-5, None),
        lambda: _cpu.batch_norm_bwd(ONE, ONE, None, TWO, THREE, 1e-5, None),
        lambda: _cpu.batch_norm_bwd(ONE, ONE, None, THREE, TWO, 1e-5, None),
        lambda: _cpu.batch_norm_fwd(ONE, None, None, 1e-5, ONE[:1].copy(), False),
        lambda: _cpu.batch_norm_bwd(ONE, ONE, None, THREE, THREE, 1e-5, ONE[:1].copy()),
        lambda: _cpu.channel_affine(ONE, TWO, THREE),
        lambda: _cpu.channel_affine(ONE, THREE, TWO),
        lambda: _cpu.channel_affine(ONE, None, TWO),
        lambda: _cpu.batch_norm_eval(ONE, TWO, THREE, None, None, 0.0),
        lambda: _cpu.batch_norm_eval(ONE, THREE, THREE, None, TWO, 0.0),
        lambda: _cpu.lrn_fwd(ONE, 0, 1.0, 0.75, 1.0),
        lambda: _cpu.lrn_fwd(THREE, 5, 1.0, 0.75, 1.0),
        lambda: _cpu.lrn_bwd(ONE, ONE[:1].copy(), 5, 1.0, 0.75, 1.0),
    ],
)
def test_bad_shapes_raise(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"must (have|be)"):
        call()
