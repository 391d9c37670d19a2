# ruff: noqa: E501
"""Bad input: one clear exception that names the argument, what it was and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import ops

X = np.ones((2, 4, 6, 7), np.float32)
W = np.ones((6, 4, 3, 3), np.float32)
Y = np.ones((2, 6, 4, 5), np.float32)
POOLED = np.ones((2, 4, 3, 3), np.float32)
INDICES = np.zeros((2, 4, 3, 3), np.int64)
V = np.ones(4, np.float32)
TRANSPOSED = np.ones((4, 6, 3, 3), np.float32)

pytestmark = pytest.mark.usefixtures("backend")

BAD_VALUE: list[tuple[str, Callable[[], Any], str]] = [
    ("x rank", lambda: ops.conv2d_fprop(X[0], W), r"x must have 4 dimensions .* got shape \(4, 6, 7\)"),
    ("w rank", lambda: ops.conv2d_fprop(X, W[0]), r"w must have 4 dimensions .* got shape \(4, 3, 3\)"),
    ("channels", lambda: ops.conv2d_fprop(X[:, :3], W), "channels disagree: x has C=3, w expects 4"),
    ("group channels", lambda: ops.conv2d_fprop(X, W, groups=2), "channels disagree: x has C=4, w expects 4 x groups 2"),
    ("groups filters", lambda: ops.conv2d_fprop(X, W[:5, :2], groups=2), "groups must divide both .* K=5"),
    ("no groups", lambda: ops.conv2d_fprop(X, W, groups=0), "groups must be between 1 and"),
    ("b shape", lambda: ops.conv2d_fprop(X, W, V), r"b must have .* \(6,\), got \(4,\)"),
    ("b rank", lambda: ops.conv2d_fprop(X, W, W[:, :1, 0, 0]), r"b must have .* got \(6, 1\)"),
    ("scale shape", lambda: ops.conv2d_fprop(X, W, scale=V), r"scale must have .* \(6,\), got \(4,\)"),
    ("residual shape", lambda: ops.conv2d_fprop(X, W, residual=Y[:1]), r"residual must have .* \(2, 6, 4, 5\), got \(1, "),
    ("stride", lambda: ops.conv2d_fprop(X, W, stride=0), "stride must be between 1"),
    ("stride length", lambda: ops.conv2d_fprop(X, W, stride=(1, 1, 1)), "stride must be an int or a pair"),
    ("dilation", lambda: ops.conv2d_fprop(X, W, dilation=(1, -2)), r"dilation\[1\] must be between 1 .* got -2"),
    ("absurd dilation", lambda: ops.conv2d_fprop(X, W, dilation=10**9), "output would be smaller than 1"),
    ("padding", lambda: ops.conv2d_fprop(X, W, padding=-1), "padding must be between 0"),
    ("padding word", lambda: ops.conv2d_fprop(X, W, padding="full"), "padding must be 'same', 'valid'"),
    ("absurd padding", lambda: ops.conv2d_fprop(X, W, padding=10**9), "more than 2.*40 elements"),
    ("same with stride", lambda: ops.conv2d_fprop(X, W, stride=2, padding="same"), "'same' needs stride 1"),
    ("output", lambda: ops.conv2d_fprop(X[:, :, :2], W), "output would be smaller than 1: height 2"),
    ("algo", lambda: ops.conv2d_fprop(X, W, algo="fft"), "fft"),
    ("dgrad dy", lambda: ops.conv2d_dgrad(Y[:, :, :3], W, X.shape), r"dy must have .* \(2, 6, 4, 5\), got \(2, 6, 3, 5\)"),
    ("dgrad x_shape", lambda: ops.conv2d_dgrad(Y, W, (4, 6, 7)), "x_shape must be four ints"),
    ("dgrad x_shape sign", lambda: ops.conv2d_dgrad(Y, W, (2, 4, -6, 7)), r"x_shape\[2\] must be between 0"),
    ("dgrad algo", lambda: ops.conv2d_dgrad(Y, W, X.shape, algo="fft"), "fft"),
    ("wgrad dy", lambda: ops.conv2d_wgrad(Y[:1], X, W.shape), r"dy must have .* \(2, 6, 4, 5\), got \(1, 6, 4, 5\)"),
    ("wgrad w_shape", lambda: ops.conv2d_wgrad(Y, X, 5), "w_shape must be four ints, got 5"),  # type: ignore[arg-type]
    ("wgrad algo", lambda: ops.conv2d_wgrad(Y, X, W.shape, algo="fft"), "fft"),
    ("transposed channels", lambda: ops.conv_transpose2d_fprop(X, W), "channels disagree: x has C=4, w expects 6"),
    ("transposed rank", lambda: ops.conv_transpose2d_fprop(X[0], TRANSPOSED), "x must have 4 dimensions"),
    ("transposed b", lambda: ops.conv_transpose2d_fprop(X, TRANSPOSED, V), r"b must have .* \(6,\), got \(4,\)"),
    ("output_padding", lambda: ops.conv_transpose2d_fprop(X, TRANSPOSED, stride=2, output_padding=2), "output_padding must be smaller"),
    ("output_padding sign", lambda: ops.conv_transpose2d_fprop(X, TRANSPOSED, output_padding=-1), "output_padding must be between 0"),
    ("transposed output", lambda: ops.conv_transpose2d_fprop(X, TRANSPOSED, padding=5), "output would be smaller than 1"),
    ("transposed word", lambda: ops.conv_transpose2d_fprop(X, TRANSPOSED, padding="same"), "padding .* must be numbers"),
    ("transposed groups", lambda: ops.conv_transpose2d_fprop(X[:, :3], TRANSPOSED[:3], groups=2), "groups must divide"),
    ("transposed dy", lambda: ops.conv_transpose2d_dgrad(Y, TRANSPOSED, X.shape), "dy must have the output's shape"),
    ("transposed dy w", lambda: ops.conv_transpose2d_wgrad(Y, X, TRANSPOSED.shape), "dy must have the output's shape"),
    ("transposed empty", lambda: ops.conv_transpose2d_fprop(X[:, :, :0], TRANSPOSED), "at least one row and column"),
    ("pool rank", lambda: ops.max_pool2d(X[0], 2), "x must have 4 dimensions"),
    ("pool empty", lambda: ops.max_pool2d(X[:, :0], 2), "at least one channel"),
    ("pool kernel", lambda: ops.max_pool2d(X, 0), "kernel_size must be between 1"),
    ("pool stride", lambda: ops.max_pool2d(X, 2, (1, 0)), r"stride\[1\] must be between 1"),
    ("pool padding", lambda: ops.max_pool2d(X, 3, padding=2), r"padding must be at most half the window, got 2\+2"),
    ("pool padding word", lambda: ops.avg_pool2d(X, 3, padding="same"), "padding of a pooling must be numbers"),  # type: ignore[arg-type]
    ("pool output", lambda: ops.max_pool2d(X, 8), "output would be smaller than 1"),
    ("pool ceil output", lambda: ops.avg_pool2d(X, 12, 1, ceil_mode=True), "output would be smaller than 1"),
    ("pool dilation", lambda: ops.max_pool2d(X, 2, dilation=0), "dilation must be between 1"),
    ("pool dy", lambda: ops.max_pool2d_backward(X, INDICES, X.shape, 2), r"dy must have .* \(2, 4, 3, 3\)"),
    ("pool indices", lambda: ops.max_pool2d_backward(POOLED, INDICES[:1], X.shape, 2), r"indices must have .* got \(1, 4, 3, 3\)"),
    ("pool index", lambda: ops.max_pool2d_backward(POOLED, INDICES + 42, X.shape, 2), "indices must be between -1 and 41"),
    ("take index", lambda: ops.plane_take(X, INDICES - 2), "indices must be between -1 and 41 .* got -2"),
    ("take planes", lambda: ops.plane_take(X, INDICES[:, :3]), "indices must have x's N and C"),
    ("take rank", lambda: ops.plane_take(X, INDICES[0]), "indices must have 4 dimensions"),
    ("divisor", lambda: ops.avg_pool2d(X, 2, divisor_override=0), "divisor_override must not be 0"),
    ("avg dy", lambda: ops.avg_pool2d_backward(X, X.shape, 2), "dy must have the output's shape"),
    ("adaptive size", lambda: ops.adaptive_avg_pool2d(X, 0), "output_size must be between 1"),
    ("adaptive length", lambda: ops.adaptive_max_pool2d(X, (1, 2, 3)), "output_size must be an int, a pair"),
    ("adaptive absurd", lambda: ops.adaptive_avg_pool2d(X, 10**7), "more than 2.*40 elements"),
    ("adaptive dy", lambda: ops.adaptive_avg_pool2d_backward(POOLED[:1], X.shape), "dy must have x_shape's N and C"),
    ("adaptive indices", lambda: ops.adaptive_max_pool2d_backward(POOLED, INDICES + 99, X.shape), "indices must be between"),
    ("relu shapes", lambda: ops.relu_backward(X, Y), "dy must have y's shape"),
    ("softmax axis", lambda: ops.softmax(X, 4), "axis must be between -4 and 3"),
    ("softmax scalar", lambda: ops.log_softmax(X[0, 0, 0, 0:1].reshape(())), "axis must be between"),
    ("linear features", lambda: ops.linear(V, W[0, 0]), r"features disagree: x must be \(..., 3\)"),
    ("linear w", lambda: ops.linear(V, V), "w must have 2 dimensions"),
    ("linear b", lambda: ops.linear(W[0, 0], W[0, 0], V), r"b must have .* \(3,\), got \(4,\)"),
    ("linear scalar", lambda: ops.linear(V.sum(keepdims=True).reshape(()), W[0, 0]), "features disagree"),
    ("gemm rank", lambda: ops.gemm(X, V), "a must have 2 dimensions"),
    ("gemm inner", lambda: ops.gemm(X[0, 0], X[0, 0]), r"inner sizes disagree: a \(6, 7\), b \(6, 7\)"),
    ("lrn rank", lambda: ops.lrn(X[0, 0], 3), "x must have at least 3 dimensions"),
    ("lrn size", lambda: ops.lrn(X, 0), "size must be between 1"),
    ("lrn alpha", lambda: ops.lrn(X, 3, alpha=float("nan")), "alpha must be a finite number, got nan"),
    ("lrn dy", lambda: ops.lrn_backward(Y, X, 3), "dy must have x's shape"),
    ("norm rank", lambda: ops.batch_norm(V), "x must have at least 2 dimensions"),
    ("norm weight", lambda: ops.batch_norm(X, V[:3]), r"weight must have .* \(4,\), got \(3,\)"),
    ("norm residual", lambda: ops.batch_norm(X, residual=X[:1]), "residual must have x's shape"),
    ("norm y", lambda: ops.batch_norm_backward(X, X, None, V, V, y=X[:1]), "y must have x's shape"),
    ("norm channels", lambda: ops.batch_norm(X[:, :0]), "at least one channel"),
    ("norm eps", lambda: ops.batch_norm(X, eps=-1e-5), "eps must be a finite number between 0"),
    ("norm var", lambda: ops.batch_norm_backward(X, X, None, V, V[:1]), "var must have"),
    ("norm dy", lambda: ops.batch_norm_backward(Y, X, None, V, V), "dy must have x's shape"),
    ("affine shift", lambda: ops.channel_affine(X, V, V[:2]), "shift must have"),
    ("sum rank", lambda: ops.channel_sum(V), "dy must have at least 2 dimensions"),
    ("pad negative", lambda: ops.pad(X, -1), "padding must be between 0"),
    ("pad word", lambda: ops.pad(X, "same"), "padding must be numbers"),  # type: ignore[arg-type]
    ("pad absurd", lambda: ops.pad(X, 10**8), "more than 2.*40 elements"),
    ("concat none", lambda: ops.concat([]), "at least one array"),
    ("concat shapes", lambda: ops.concat([X, X[:, :, 1:]]), r"arrays\[1\] must have the shape"),
    ("concat ranks", lambda: ops.concat([X, X[0]]), r"arrays\[1\] must have the shape"),
    ("concat axis", lambda: ops.concat([X, X], 7), "axis must be between -4 and 3"),
    ("add shapes", lambda: ops.add(X, X[:1]), "b must have a's shape"),
    ("dropout p", lambda: ops.dropout(X, 1.5, 0), "p must be a finite number between 0 and 1, got 1.5"),
    ("dropout seed", lambda: ops.dropout(X, 0.5, -1), "seed must be between 0"),
    ("dropout offset", lambda: ops.dropout(X, 0.5, 0, 2**64), "offset must be between 0"),
    ("philox count", lambda: ops.philox_uint32(-1, 0), "count must be between 0"),
]  # fmt: skip

BAD_TYPE: list[tuple[str, Callable[[], Any], str]] = [
    ("list", lambda: ops.conv2d_fprop(X.tolist(), W), "x must be an array .* got list"),
    ("None", lambda: ops.conv2d_fprop(X, None), "w must be an array .* got NoneType"),
    ("number", lambda: ops.relu(1.0), "x must be an array .* got float"),
    ("masked", lambda: ops.relu(np.ma.masked_array(V)), "x must be an array .* got MaskedArray"),
    ("dtypes", lambda: ops.conv2d_fprop(X, W.astype(np.float64)), "one dtype, got x: float32, w: float64"),
    ("bias dtype", lambda: ops.conv2d_fprop(X, W, np.ones(6)), "one dtype, .* b: float64"),
    ("scale dtype", lambda: ops.conv2d_fprop(X, W, scale=np.ones(6)), "one dtype, .* scale: float64"),
    ("residual list", lambda: ops.conv2d_fprop(X, W, residual=Y.tolist()), "residual must be an array .* got list"),
    ("relu flag", lambda: ops.conv2d_fprop(X, W, relu=1), "relu must be True or False, got 1"),  # type: ignore[arg-type]
    ("bias flag", lambda: ops.conv2d_wgrad(Y, X, W.shape, bias=None), "bias must be True or False"),  # type: ignore[arg-type]
    ("integers", lambda: ops.relu(INDICES), "x must be float16, bfloat16, float32 or float64, got dtype int64"),
    ("bools", lambda: ops.relu(V > 0), "got dtype bool"),
    ("complex", lambda: ops.relu(V * 1j), "got dtype complex64"),
    ("objects", lambda: ops.relu(np.array([None])), "got dtype object"),
    ("stride", lambda: ops.conv2d_fprop(X, W, stride=1.0), "stride must be an int, got 1.0"),
    ("stride bool", lambda: ops.conv2d_fprop(X, W, stride=True), "stride must be an int, got the bool"),
    ("padding", lambda: ops.conv2d_fprop(X, W, padding=None), "padding must be an int"),
    ("algo", lambda: ops.conv2d_fprop(X, W, algo=None), "algo must be a string, got None"),
    ("algo of dgrad", lambda: ops.conv2d_dgrad(Y, W, X.shape, algo=3), "algo must be a string"),
    ("algo of transposed", lambda: ops.conv_transpose2d_fprop(X, TRANSPOSED, algo=3), "algo must be a string"),
    ("ceil_mode", lambda: ops.max_pool2d(X, 2, ceil_mode=1), "ceil_mode must be True or False, got 1"),
    ("count_include_pad", lambda: ops.avg_pool2d(X, 2, count_include_pad=None), "count_include_pad must be True or"),
    ("divisor", lambda: ops.avg_pool2d(X, 2, divisor_override=2.0), "divisor_override must be an int, got 2.0"),
    ("indices", lambda: ops.plane_take(X, POOLED), "indices must be an array of integers, got dtype float32"),
    ("indices list", lambda: ops.plane_take(X, [0]), "indices must be an array of integers, got list"),
    ("trans", lambda: ops.gemm(X[0, 0], X[0, 0], 0, 1), "trans_a must be True or False"),
    ("axis", lambda: ops.softmax(X, None), "axis must be an int"),
    ("p", lambda: ops.dropout(X, "half", 0), "p must be a number"),
    ("seed", lambda: ops.dropout(X, 0.5, 0.5), "seed must be an int"),
    ("eps", lambda: ops.batch_norm(X, eps=None), "eps must be a number"),
    ("value", lambda: ops.pad(X, 1, "zero"), "value must be a number"),
    ("concat None", lambda: ops.concat([X, None]), r"arrays\[1\] must be an array"),
]  # type: ignore[arg-type,list-item] # fmt: skip


@pytest.mark.parametrize(("call", "message"), [case[1:] for case in BAD_VALUE], ids=[case[0] for case in BAD_VALUE])
def test_bad_value_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("call", "message"), [case[1:] for case in BAD_TYPE], ids=[case[0] for case in BAD_TYPE])
def test_bad_type_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_numbers_of_numpy_are_numbers() -> None:
    one = np.int64(1)
    y = ops.conv2d_fprop(X, W, None, np.int32(2), (one, one), one, one)
    np.testing.assert_array_equal(y, ops.conv2d_fprop(X, W, None, 2, 1))
    assert ops.softmax(X, one).shape == ops.avg_pool2d(X, one, divisor_override=one, ceil_mode=np.True_).shape
    assert ops.dropout(X, np.float32(0.5), np.uint64(3), one).shape == ops.lrn(X, one, np.float32(1)).shape


@pytest.mark.parametrize("one", [True, 1.0, (1, True), (1.0, 1), [1, 1.0]])
def test_what_equals_an_int_is_not_taken_for_it_once_the_shape_is_remembered(one: Any) -> None:
    for call in (
        lambda value: ops.conv2d_fprop(X, W, stride=value),
        lambda value: ops.conv2d_fprop(X, W, padding=value),
        lambda value: ops.max_pool2d(X, 2, value),
        lambda value: ops.avg_pool2d(X, 2, padding=value),
    ):
        call(1)
        call((1, 1))
        with pytest.raises(TypeError, match="must be an int, got"):
            call(one)


def test_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match=r"backend must be one of .* got 'gpu'"):
        pycnn.use_backend("gpu")


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ops.conv2d_fprop(x, W, np.ones(6, np.float32)),
        lambda x: ops.conv2d_dgrad(ops.conv2d_fprop(x, W), W, x.shape),
        lambda x: ops.conv_transpose2d_fprop(x, TRANSPOSED, np.ones(6, np.float32), 2, 1, 1),
        lambda x: ops.max_pool2d(x, 2)[0],
        lambda x: ops.max_pool2d_backward(*ops.max_pool2d(x, 2), x.shape, 2),
        lambda x: ops.avg_pool2d(x, 2),
        lambda x: ops.avg_pool2d_backward(ops.avg_pool2d(x, 2), x.shape, 2),
        lambda x: ops.adaptive_avg_pool2d(x, 2),
        lambda x: ops.adaptive_max_pool2d_backward(*ops.adaptive_max_pool2d(x, 2), x.shape),
        ops.relu,
        ops.sigmoid,
        ops.softmax,
        lambda x: ops.log_softmax(x, 0),
        lambda x: ops.linear(x, np.ones((5, 7), np.float32)),
        lambda x: ops.lrn(x, 5),
        lambda x: ops.lrn_backward(x, x, 5),
        lambda x: ops.channel_affine(x, V, V),
        lambda x: ops.pad(x, 1),
        lambda x: ops.concat([x, x]),
        lambda x: ops.dropout(x, 0.5, 1),
    ],
)
@pytest.mark.filterwarnings("error")
def test_empty_batch_is_allowed(call: Callable[[np.ndarray], np.ndarray]) -> None:
    y = call(X[:0])
    assert y.shape[0] == 0
    assert y.dtype == np.float32


@pytest.mark.filterwarnings("error")
def test_empty_batch_has_zero_gradients_of_parameters() -> None:
    dw = ops.conv2d_wgrad(Y[:0], X[:0], W.shape)
    assert dw.shape == W.shape
    assert not dw.any()
    assert ops.channel_sum(Y[:0]).tolist() == [0.0] * 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_nan_and_infinity_are_allowed(value: float) -> None:
    x = X.copy()
    x[0, 1, 2, 3] = value
    assert not np.isfinite(ops.conv2d_fprop(x, W, padding=1)[0]).all()
    assert np.isfinite(ops.conv2d_fprop(x, W, padding=1, algo="direct")[1]).all()
    ops.conv2d_wgrad(ops.conv2d_fprop(x, W), x, W.shape)
    ops.batch_norm(x)
    ops.lrn(x, 3)
    ops.avg_pool2d(x, 2)
    ops.softmax(x, 1)
    assert np.isnan(ops.max_pool2d(x, 3, 1)[0]).any() == np.isnan(value)


def test_an_array_in_place_of_its_shape_is_named() -> None:
    x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((16, 8, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"w_shape must be four ints, got an array of shape \(16, 8, 3, 3\)$"):
        ops.conv2d_wgrad(x, x, w)  # type: ignore[arg-type]
