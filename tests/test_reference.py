"""The oracle against what it does not share a line with: seven loops, torch in float64, published vectors, slopes."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from pycnn.backends import reference
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import (
    check_gradient,
    conv2d_dgrad_loops,
    conv2d_fprop_loops,
    conv2d_wgrad_loops,
    exact_operands,
)

# Problems small enough for seven Python loops (under 4,000 products each), strange in every argument.
TINY = [
    "n1c1h1_k1r1",
    "n2c3h4w5_k2r3s2_pd1",
    "n1c2h5w6_k3r2s3_st2x1pd0.1.2.0",
    "n1c4h5w4_k6r3s2_pd2x1dl2x3g2",
    "n2c3h4w4_k3r3_pd1g3",
    "n1c2h7w3_k2r2s1_st3x2pd4x1",
    "n1c1h3w3_k2r2_pd5.0.0.3g1",
    "n0c2h4w4_k2r3_pd1",
]


@pytest.mark.parametrize("text", TINY)
def test_conv2d_equals_seven_loops(text: str) -> None:
    problem = Problem.parse(text)
    s = problem.shape
    rest = (s.stride, s.padding, s.dilation, s.groups)
    operands = exact_operands(problem)
    x, w, b = operands.left, operands.right, operands.b
    y = reference.conv2d_fprop(x, w, b, *rest)
    np.testing.assert_array_equal(y, conv2d_fprop_loops(x, w, b, *rest))
    scale, residual = np.arange(1, s.K + 1).astype(y.dtype), y[::-1] - 3
    fused = reference.conv2d_fprop(x, w, b, *rest, scale=scale, residual=residual, relu=True)
    unfused = (y - b[:, None, None]) * scale[:, None, None] + b[:, None, None] + residual
    np.testing.assert_array_equal(fused, np.where(unfused > 0, unfused, 0))
    dy = y + 1
    np.testing.assert_array_equal(
        reference.conv2d_dgrad(dy, w, x.shape, *rest), conv2d_dgrad_loops(dy, w, x.shape, *rest)
    )
    np.testing.assert_array_equal(
        reference.conv2d_wgrad(dy, x, w.shape, *rest), conv2d_wgrad_loops(dy, x, w.shape, *rest)
    )
    dw, db = reference.conv2d_wgrad(dy, x, w.shape, *rest, bias=True)
    np.testing.assert_array_equal(dw, conv2d_wgrad_loops(dy, x, w.shape, *rest))
    np.testing.assert_array_equal(db, [sum(dy[:, k].ravel().tolist()) for k in range(s.K)])


def test_epilogue_keeps_nan() -> None:
    x, w = np.array([[[[np.nan, -1.0, 2.0]]]]), np.ones((1, 1, 1, 1))
    y = reference.conv2d_fprop(x, w, None, (1, 1), (0, 0, 0, 0), (1, 1), 1, relu=True)
    np.testing.assert_array_equal(y, [[[[np.nan, 0.0, 2.0]]]])


@pytest.mark.parametrize("algo", ["im2col", "winograd", "Direct", ""])
def test_conv2d_refuses_other_algorithms(algo: str) -> None:
    one = np.ones((1, 1, 1, 1))
    rest = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
    for call in (
        reference.conv2d_fprop,
        lambda x, w, b, *r, algo: reference.conv2d_dgrad(x, w, (1, 1, 1, 1), *r, algo=algo),
    ):
        with pytest.raises(ValueError, match="reference backend has only 'auto' and 'direct'"):
            call(one, one, None, *rest, algo=algo)


def test_conv2d_infinite_weight_over_padding_is_nan() -> None:
    """0 * inf in the padding is NaN, as in PyTorch."""
    y = reference.conv2d_fprop(
        np.ones((1, 1, 2, 2), np.float32),
        np.full((1, 1, 2, 2), np.inf, np.float32),
        None,
        (1, 1),
        (1, 0, 0, 0),
        (1, 1),
        1,
    )
    np.testing.assert_array_equal(y, [[[[np.nan], [np.inf]]]])


def test_float32_is_rounded_once() -> None:
    """2^24 + 1 + 1 is 2^24 + 2 in float64 and 2^24 if each sum were rounded to float32."""
    x = np.array([2.0**24, 1, 1], np.float32).reshape(1, 3, 1, 1)
    y = reference.conv2d_fprop(x, np.ones((1, 3, 1, 1), np.float32), None, (1, 1), (0, 0, 0, 0), (1, 1), 1)
    assert y.dtype == np.float32
    assert y.item() == 2**24 + 2


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_known_answers(counter: list[int], key: list[int], words: list[int]) -> None:
    """kat_vectors of Random123, philox4x32 10."""
    offset = sum(word << 32 * i for i, word in enumerate(counter))
    assert reference.philox_uint32(4, key[0] | key[1] << 32, offset).tolist() == words


def test_philox_counts_blocks_and_carries() -> None:
    stream = reference.philox_uint32(12, 7, 2**64 - 1)
    np.testing.assert_array_equal(stream[4:8], reference.philox_uint32(4, 7, 2**64))
    np.testing.assert_array_equal(stream[:7], reference.philox_uint32(7, 7, 2**64 - 1))
    assert reference.philox_uint32(0, 7, 0).shape == (0,)
    assert stream.dtype == np.uint32


def test_dropout_follows_the_stream() -> None:
    x = np.arange(1.0, 103.0).reshape(2, 51)
    words = reference.philox_uint32(102, 3, 5).reshape(2, 51)
    y = reference.dropout(x, 0.25, 3, 5)
    np.testing.assert_array_equal(y, np.where(words >= 2**30, x * (1 / 0.75), 0))
    np.testing.assert_array_equal(reference.dropout(x.T.copy().T, 0.25, 3, 5), y)
    np.testing.assert_array_equal(reference.dropout(x, 0.0, 3, 5), x)
    np.testing.assert_array_equal(reference.dropout(x, 1.0, 3, 5), 0 * x)


def test_dropout_keeps_the_right_share() -> None:
    """100,000 draws: the share kept is within five standard deviations, 5*sqrt(0.3*0.7/1e5) = 0.0073."""
    kept = reference.dropout(np.ones(100_000, np.float32), 0.3, 11, 0) > 0
    assert abs(kept.mean() - 0.7) < 0.0073


def test_gradients_are_slopes() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((6, 2, 3, 2))
    s = Conv2dShape.of(x.shape, w.shape, (2, 1), (1, 2, 0, 1), (1, 2), 2)
    rest = (s.stride, s.padding, s.dilation, s.groups)
    check_gradient(
        lambda x, w: reference.conv2d_fprop(x, w, None, *rest),
        lambda dy, x, w: [
            reference.conv2d_dgrad(dy, w, x.shape, *rest),
            reference.conv2d_wgrad(dy, x, w.shape, *rest),
        ],
        [x, w],
    )
    check_gradient(
        lambda x: reference.lrn_fwd(x, 3, 0.5, 0.75, 2.0),
        lambda dy, x: [reference.lrn_bwd(dy, x, 3, 0.5, 0.75, 2.0)],
        [x],
    )
    weight, bias = rng.standard_normal(4), rng.standard_normal(4)

    def batch_norm_gradients(dy: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
        _, mean, var = reference.batch_norm_fwd(x, weight, bias, 1e-3)
        return list(reference.batch_norm_bwd(dy, x, weight, mean, var, 1e-3))

    check_gradient(
        lambda x, weight, bias: reference.batch_norm_fwd(x, weight, bias, 1e-3)[0],
        batch_norm_gradients,
        [x, weight, bias],
    )
    for name in ("tanh", "sigmoid"):
        forward, backward = getattr(reference, f"{name}_fwd"), getattr(reference, f"{name}_bwd")
        check_gradient(forward, lambda dy, x, f=forward, b=backward: [b(dy, f(x))], [x])
    for name in ("softmax", "log_softmax"):
        forward, backward = getattr(reference, f"{name}_fwd"), getattr(reference, f"{name}_bwd")
        check_gradient(lambda x, f=forward: f(x, 1), lambda dy, x, f=forward, b=backward: [b(dy, f(x, 1), 1)], [x])


def test_check_gradient_catches_a_wrong_gradient() -> None:
    x = np.linspace(1.0, 2.0, 5)
    with pytest.raises(AssertionError, match="slope"):
        check_gradient(np.sin, lambda dy, x: [dy * np.cos(x) * (1 + 1e-6)], [x])


STANDARD = ("__future__", "collections.abc", "itertools", "math", "types", "typing")


def test_imports_numpy_alone() -> None:
    for path in Path(reference.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {"numpy", "math", "itertools"}, path.name
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module in STANDARD or node.module in ("numpy", "numpy.typing"), path.name
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1, path.name
