"""3-D convolution, which is made of 2-D ones, against sums over taps that share nothing with it, and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from beside_torch import agree, draw

import pycnn
from pycnn import functional as F
from pycnn import ops
from pycnn.algorithms import workspace_limit
from pycnn.backends.reference import volume
from pycnn.ops import conv3d
from pycnn.spatial import Conv3dShape
from pycnn.testing import half_dtypes

torch = pytest.importorskip("torch")
TF = torch.nn.functional

# N, C, size; K, window; stride, six sides of padding, dilation, groups; by what is particular.
PROBLEMS: dict[str, Conv3dShape] = {
    "plain": Conv3dShape(2, 3, (5, 8, 9), 4, (3, 3, 3), (1, 1, 1), (1, 1, 1, 1, 1, 1), (1, 1, 1)),
    "all differs": Conv3dShape(2, 6, (9, 11, 10), 4, (3, 2, 4), (2, 1, 3), (2, 0, 1, 2, 3, 0), (2, 3, 1), 2),
    "stride beyond the window": Conv3dShape(1, 2, (11, 9, 9), 3, (2, 2, 1), (4, 3, 2), (0, 1, 1, 0, 0, 0), (1, 1, 1)),
    "stride and dilation with a common divisor": Conv3dShape(
        1, 2, (13, 5, 5), 2, (3, 2, 2), (4, 1, 1), (2, 3, 0, 0, 0, 0), (2, 1, 1)
    ),
    "slices that no tap meets": Conv3dShape(1, 2, (9, 4, 4), 2, (2, 2, 2), (4, 1, 1), (0, 0, 0, 0, 0, 0), (2, 1, 1)),
    "padding beyond the window": Conv3dShape(1, 2, (2, 3, 3), 2, (2, 1, 2), (1, 1, 1), (4, 3, 2, 2, 3, 1), (1, 1, 1)),
    "depthwise": Conv3dShape(2, 4, (4, 6, 6), 8, (3, 3, 3), (1, 2, 1), (1, 1, 1, 1, 1, 1), (1, 1, 1), 4),
    "one tap deep": Conv3dShape(2, 3, (4, 7, 7), 5, (1, 3, 3), (2, 1, 1), (0, 0, 1, 1, 1, 1), (1, 1, 1)),
    "one tap": Conv3dShape(2, 6, (4, 5, 6), 4, (1, 1, 1), (1, 1, 1), (0,) * 6, (1, 1, 1), 2),
    "one tap, strided": Conv3dShape(2, 6, (4, 5, 6), 4, (1, 1, 1), (2, 3, 2), (0, 1, 0, 0, 0, 0), (1, 1, 1), 2),
    "depth alone": Conv3dShape(2, 3, (7, 5, 4), 4, (3, 1, 1), (2, 1, 1), (1, 2, 0, 0, 0, 0), (2, 1, 1)),
    "columns alone": Conv3dShape(2, 3, (3, 5, 9), 4, (1, 1, 3), (1, 1, 2), (0, 0, 0, 0, 1, 2), (1, 1, 2)),
    "depth a whole window": Conv3dShape(2, 4, (3, 7, 6), 4, (3, 3, 2), (2, 1, 1), (0, 0, 1, 0, 0, 1), (1, 1, 1), 2),
    "one slice": Conv3dShape(2, 3, (1, 7, 6), 4, (1, 3, 3), (1, 1, 1), (0, 0, 1, 1, 1, 1), (1, 1, 1)),
    "no images": Conv3dShape(0, 3, (4, 5, 6), 4, (2, 2, 2), (1, 1, 1), (0,) * 6, (1, 1, 1)),
}


def operands(s: Conv3dShape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, w, b and dy: small integers, whose sums of products are exact."""
    rng = np.random.default_rng(0)
    x, w, dy = (rng.integers(-4, 5, shape).astype(np.float32) for shape in (s.x_shape, s.w_shape, s.y_shape))
    return x, w, rng.integers(-9, 10, s.K).astype(np.float32), dy


def expect_exact(s: Conv3dShape, dtype: Any = np.float32, **options: Any) -> None:
    """Assert all three passes equal to the oracle's."""
    x, w, b, dy = (array.astype(dtype) for array in operands(s))
    how = s.stride, s.padding, s.dilation, s.groups
    wide = [array.astype(np.float32) for array in (x, w, b, dy)]
    pairs = [
        (ops.conv3d_fprop(x, w, b, *how, **options), volume.conv3d_fprop(*wide[:3], *how)),
        (ops.conv3d_dgrad(dy, w, s.x_shape, *how, **options), volume.conv3d_dgrad(wide[3], wide[1], s.x_shape, *how)),
        (ops.conv3d_wgrad(dy, x, s.w_shape, *how, **options), volume.conv3d_wgrad(wide[3], wide[0], s.w_shape, *how)),
    ]
    for found, expected in pairs:
        assert found.dtype == x.dtype
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected.astype(dtype))


@pytest.mark.parametrize("algo", ["auto", "direct", "im2col"])
@pytest.mark.parametrize("about", PROBLEMS)
def test_all_passes_are_exact(about: str, algo: str) -> None:
    expect_exact(PROBLEMS[about], algo=algo)


@pytest.mark.parametrize("about", PROBLEMS)
def test_parts_of_any_size_give_the_same(about: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for most in (1, 2000, 9000, 30_000):
        monkeypatch.setattr(conv3d, "_PART", most)
        expect_exact(PROBLEMS[about])


@pytest.mark.simulator
@pytest.mark.parametrize("about", PROBLEMS)
def test_simulated_kernels_are_exact(about: str) -> None:
    with pycnn.use_backend("sim"):
        expect_exact(PROBLEMS[about])


@pytest.mark.parametrize("dtype", half_dtypes(), ids=str)
@pytest.mark.parametrize("about", ["plain", "all differs", "one tap"])
def test_16_bits_are_rounded_once(about: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_exact(PROBLEMS[about], dtype)
    monkeypatch.setattr(conv3d, "_PART", 1)
    expect_exact(PROBLEMS[about], dtype)


def test_winograd_computes_the_planes_where_it_is_asked_for() -> None:
    s = PROBLEMS["plain"]
    x, w, b, dy = operands(s)
    how = s.stride, s.padding, s.dilation, s.groups
    y = F.conv3d(x, w, b, *how, algo={"fprop": "winograd_f2x2_3x3"})  # its quarters of small integers are exact
    np.testing.assert_array_equal(y, volume.conv3d_fprop(x, w, b, *how))
    dx = ops.conv3d_dgrad(dy, w, s.x_shape, *how, algo="winograd_f2x2_3x3")
    np.testing.assert_array_equal(dx, volume.conv3d_dgrad(dy, w, s.x_shape, *how))
    x, w, b, _ = operands(PROBLEMS["all differs"])
    with pytest.raises(ValueError, match=r"cannot run fprop of .*3x3 filters"):
        F.conv3d(x, w, b, groups=2, algo="winograd_f2x2_3x3")


def test_copies_and_the_workspace_share_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is laid out anew takes at most half of the limit, and each 2-D convolution is left the rest."""
    seen: list[tuple[int, int | None]] = []
    s = PROBLEMS["plain"]
    x, w, b, dy = operands(s)
    how = s.stride, s.padding, s.dilation, s.groups
    real = conv3d.answering

    class Watched:
        def __init__(self, backend: Any) -> None:
            self.backend = backend

        def __getattr__(self, name: str) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                result = getattr(self.backend, name)(*arguments, **options)
                seen.append(
                    (sum(one.nbytes for one in (*arguments, result) if isinstance(one, np.ndarray)), workspace_limit())
                )
                return result

            return call

    monkeypatch.setattr(conv3d, "answering", lambda backend, algo: Watched(real(backend, algo)))
    limit = 16_000
    with pycnn.use_workspace_limit(limit):
        ops.conv3d_fprop(x, w, b, *how)
        ops.conv3d_dgrad(dy, w, s.x_shape, *how)
        ops.conv3d_wgrad(dy, x, s.w_shape, *how)
    assert len(seen) > 6
    filters = 2 * w.nbytes + b.nbytes  # laid out anew, or the result
    for taken, rest in seen:
        assert rest is not None
        assert taken <= limit // 2 + filters
        assert taken - filters <= limit - rest <= limit // 2


def test_the_reference_sums_over_taps_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("the reference took a 2-D convolution")

    monkeypatch.setattr(conv3d, "_windows", broken)
    monkeypatch.setattr(conv3d, "_flat", broken)
    with pycnn.use_backend("reference"):
        expect_exact(PROBLEMS["all differs"])


@pytest.mark.usefixtures("backend")
def test_conv3d_agrees_with_torch() -> None:
    ran = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        groups = int(rng.choice([1, 1, 2, 3]))
        size, window, stride, dilation = draw(rng, 1, 7, 3), draw(rng, 1, 3, 3), draw(rng, 1, 3, 3), draw(rng, 1, 2, 3)
        n, c, k = int(rng.integers(0, 3)), *(groups * int(v) for v in rng.integers(1, 3, 2))
        padding = draw(rng, 0, 2, 3) if rng.random() < 0.7 else str(rng.choice(["same", "valid"]))
        lead = () if rng.random() < 0.2 else (n,)
        arrays = [rng.standard_normal((*lead, c, *size)), rng.standard_normal((k, c // groups, *window))]
        arrays += [rng.standard_normal(k)]
        how = (stride, padding, dilation, groups)
        ran += agree(
            lambda x, w, b, how=how: F.conv3d(x, w, b, *how),
            lambda x, w, b, how=how: TF.conv3d(x, w, b, *how),
            arrays,
            (seed, [array.shape for array in arrays], how),
        )
    assert ran > 15


@pytest.mark.usefixtures("backend")
def test_conv_transpose3d_agrees_with_torch() -> None:
    ran = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        groups = int(rng.choice([1, 1, 2, 3]))
        size, window, stride, dilation = draw(rng, 1, 4, 3), draw(rng, 1, 3, 3), draw(rng, 1, 3, 3), draw(rng, 1, 3, 3)
        n, c, k = int(rng.integers(1, 3)), *(groups * int(v) for v in rng.integers(1, 3, 2))
        padding, extra = draw(rng, 0, 1, 3), draw(rng, 0, 2, 3)
        arrays = [rng.standard_normal((n, c, *size)), rng.standard_normal((c, k // groups, *window))]
        arrays += [rng.standard_normal(k)]
        how = (stride, padding, extra, groups, dilation)
        ran += agree(
            lambda x, w, b, how=how: F.conv_transpose3d(x, w, b, *how),
            lambda x, w, b, how=how: TF.conv_transpose3d(x, w, b, *how),
            arrays,
            (seed, [array.shape for array in arrays], how),
        )
    assert ran > 10


X, W = np.ones((1, 2, 3, 4, 5)), np.ones((2, 2, 1, 1, 1))
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.conv3d(X[0, 0], W), ValueError, r"5 dimensions \(N, C, D, H, W\) or 4"),
    (lambda: F.conv3d(X, W[0]), ValueError, "w must have 5 dimensions"),
    (lambda: F.conv3d(X, np.ones((2, 3, 1, 1, 1))), ValueError, "channels disagree"),
    (lambda: F.conv3d(X, np.ones((2, 2, 4, 1, 1))), ValueError, "smaller than 1: depth 3"),
    (lambda: F.conv3d(X, W, np.ones(3)), ValueError, "b must have one value a filter"),
    (lambda: F.conv3d(X, W, None, (1, 2)), ValueError, "stride must be an int or three ints"),
    (lambda: F.conv3d(X, W, None, 1, (1, 2)), ValueError, "padding must be an int, three ints, a pair"),
    (lambda: F.conv3d(X, W, groups=3), ValueError, "channels disagree"),
    (lambda: F.conv3d(X, W.astype(np.float32)), TypeError, "one dtype"),
    (lambda: F.conv3d(X, W, algo="fast"), ValueError, "fast"),
    (lambda: F.conv_transpose3d(X, np.ones((3, 2, 1, 1, 1))), ValueError, "channels disagree"),
    (lambda: F.conv_transpose3d(X, W, output_padding=1), ValueError, "output_padding must be smaller"),
    (lambda: F.conv_transpose3d(X, W, padding="same"), ValueError, "must be numbers"),
    (lambda: F.conv_transpose3d(X, W, padding=2), ValueError, "the output would be smaller than 1"),
    (lambda: ops.conv3d_dgrad(X, W, (1, 2, 3)), ValueError, "x_shape must be five ints"),
    (lambda: ops.conv3d_wgrad(X, X, (2, 2, 2, 1, 1)), ValueError, "dy must have the output's shape"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_bad_input_is_refused_by_name(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
