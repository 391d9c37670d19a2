"""Every operator, forward and backward, against PyTorch in float64 on random strange configurations.

The seed and the configuration are in the message of a failure.  Values are compared with a tolerance of 1e-11 of the
largest magnitude: both sides round in float64 (2^-53, about 1e-16), sums have at most some thousands of terms, and
divisions by a variance or a sum of squares lose three or four digits more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pycnn import ops

torch = pytest.importorskip("torch")
F = torch.nn.functional

CASES = 300
pytestmark = pytest.mark.usefixtures("backend")


def cases(count: int = CASES) -> Iterator[np.random.Generator]:
    for seed in range(count):
        yield np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """torch's own threads only slow such small arrays down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(found: Any, expected: Any, what: object, least_scale: float = 1e-300) -> None:
    """Equal within 1e-11 of the largest magnitude, or of `least_scale` where the result is what cancellation left."""
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else np.asarray(expected)
    assert found.shape == expected.shape, f"shape {found.shape}, torch has {expected.shape}: {what}"
    assert found.dtype == expected.dtype, f"dtype {found.dtype}, torch has {expected.dtype}: {what}"
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=least_scale)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * scale, err_msg=str(what))


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What torch's function returns, or the message with which it refuses."""
    try:
        return function(*args, **kwargs)
    except RuntimeError as error:
        return str(error)


def leaf(array: np.ndarray) -> Any:
    return torch.from_numpy(array.copy()).requires_grad_()


def ints(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    """A pair, often of equal numbers."""
    a, b = (int(v) for v in rng.integers(low, high + 1, 2))
    return (a, a) if rng.random() < 0.4 else (a, b)


def ties(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Small integers, so that maxima are often not unique, as floats."""
    return rng.integers(-3, 4, shape).astype(np.float64)


def test_conv2d_agrees() -> None:
    run = 0
    for rng in cases():
        groups = int(rng.choice([1, 1, 2, 3]))
        kernel, stride, dilation, padding = ints(rng, 1, 4), ints(rng, 1, 3), ints(rng, 1, 3), ints(rng, 0, 5)
        n, h, w = (int(v) for v in rng.integers([0, 1, 1], [4, 12, 12]))
        c, k = (groups * int(v) for v in rng.integers(1, 5, 2))
        config = (n, c, h, w), k, kernel, stride, padding, dilation, groups
        if any(
            size + 2 * pad < reach * (window - 1) + 1
            for size, pad, reach, window in zip((h, w), padding, dilation, kernel, strict=True)
        ):
            with pytest.raises(ValueError, match="smaller than 1"):
                ops.conv2d_fprop(
                    np.ones((n, c, h, w)), np.ones((k, c // groups, *kernel)), None, stride, padding, dilation, groups
                )
            continue
        run += 1
        x, weight, b = (
            leaf(rng.standard_normal((n, c, h, w))),
            leaf(rng.standard_normal((k, c // groups, *kernel))),
            leaf(rng.standard_normal(k)),
        )
        y = F.conv2d(x, weight, b, stride, padding, dilation, groups)
        dy = rng.standard_normal(y.shape)
        y.backward(torch.from_numpy(dy))
        data, filters = x.detach().numpy(), weight.detach().numpy()
        rest = (stride, padding, dilation, groups)
        same(ops.conv2d_fprop(data, filters, b.detach().numpy(), *rest), y, config)
        same(ops.conv2d_dgrad(dy, filters, data.shape, *rest), x.grad, config)
        same(ops.conv2d_wgrad(dy, data, filters.shape, *rest), weight.grad, config)
        same(ops.channel_sum(dy), b.grad, config)
        dw, db = ops.conv2d_wgrad(dy, data, filters.shape, *rest, bias=True)
        same(dw, weight.grad, config)
        same(db, b.grad, config)
    assert run > CASES // 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_conv2d_with_folded_batch_norm_agrees(dtype: type) -> None:
    """scale = weight / sqrt(var + eps), b = bias - (mean - the convolution's own bias) * scale."""
    rng = np.random.default_rng(5)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    x, w, own, weight, bias, mean, var = draw(2, 3, 9, 8), draw(6, 3, 3, 3), *(draw(6) for _ in range(5))
    var, residual, eps = np.abs(var), draw(2, 6, 9, 8), 1e-5
    scale = (weight / np.sqrt(var + eps)).astype(dtype)
    b = (bias - (mean - own) * scale).astype(dtype)
    y = ops.conv2d_fprop(x, w, b, padding=1, scale=scale, residual=residual, relu=True)
    assert y.dtype == dtype
    wide = [torch.from_numpy(one.astype(np.float64)) for one in (x, w, own, mean, var, weight, bias, residual)]
    z = torch.nn.functional.conv2d(wide[0], wide[1], wide[2], padding=1)
    z = torch.nn.functional.batch_norm(z, *wide[3:7], eps=eps) + wide[7]
    # Scales up to some 50; scale and b are themselves rounded to the dtype: a hundred of its units of them.
    limit = 100 * float(np.abs(scale.astype(np.float64)).max() + 1) * float(np.finfo(dtype).eps)
    assert np.abs(y - z.relu().numpy()).max() < limit


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("word", ["same", "valid"])
def test_conv2d_padding_words_agree(word: str) -> None:
    for rng in cases(40):
        kernel, dilation = ints(rng, 1, 5), ints(rng, 1, 2)
        x, w = rng.standard_normal((2, 3, 9, 10)), rng.standard_normal((4, 3, *kernel))
        y = F.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=word, dilation=dilation)
        same(ops.conv2d_fprop(x, w, padding=word, dilation=dilation), y, (kernel, dilation))


def test_conv2d_asymmetric_padding_agrees() -> None:
    for rng in cases(60):
        top, bottom, left, right = (int(v) for v in rng.integers(0, 5, 4))
        x, w = leaf(rng.standard_normal((2, 3, 6, 7))), leaf(rng.standard_normal((4, 3, 3, 2)))
        y = F.conv2d(F.pad(x, (left, right, top, bottom)), w, stride=(2, 1))
        dy = rng.standard_normal(y.shape)
        y.backward(torch.from_numpy(dy))
        data, filters = x.detach().numpy(), w.detach().numpy()
        for padding in ((top, bottom, left, right), ((top, bottom), (left, right))):
            same(ops.conv2d_fprop(data, filters, None, (2, 1), padding), y, padding)
            same(ops.conv2d_dgrad(dy, filters, data.shape, (2, 1), padding), x.grad, padding)
            same(ops.conv2d_wgrad(dy, data, filters.shape, (2, 1), padding), w.grad, padding)


def test_conv_transpose2d_agrees() -> None:
    run = 0
    for rng in cases():
        groups = int(rng.choice([1, 1, 2]))
        kernel, stride, dilation, padding = ints(rng, 1, 4), ints(rng, 1, 3), ints(rng, 1, 4), ints(rng, 0, 3)
        extra = tuple(int(rng.integers(0, max(stride[i], dilation[i]))) for i in range(2))
        n, h, w = (int(v) for v in rng.integers([0, 1, 1], [3, 6, 6]))
        c, k = (groups * int(v) for v in rng.integers(1, 4, 2))
        config = (n, c, h, w), k, kernel, stride, padding, extra, groups, dilation
        rest = (stride, padding, extra, groups, dilation)
        data, filters, bias = (
            rng.standard_normal((n, c, h, w)),
            rng.standard_normal((c, k // groups, *kernel)),
            rng.standard_normal(k),
        )
        size = [
            (s - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + 1 + extra[i]
            for i, s in enumerate((h, w))
        ]
        if min(size) < 1:
            with pytest.raises(ValueError, match="smaller than 1"):
                ops.conv_transpose2d_fprop(data, filters, bias, *rest)
            continue
        run += 1
        x, weight, b = leaf(data), leaf(filters), leaf(bias)
        y = F.conv_transpose2d(x, weight, b, *rest)
        dy = rng.standard_normal(y.shape)
        y.backward(torch.from_numpy(dy))
        same(ops.conv_transpose2d_fprop(data, filters, bias, *rest), y, config)
        same(ops.conv_transpose2d_dgrad(dy, filters, data.shape, *rest), x.grad, config)
        same(ops.conv_transpose2d_wgrad(dy, data, filters.shape, *rest), weight.grad, config)
    assert run > CASES // 2


def pool_config(rng: np.random.Generator) -> tuple[Any, ...]:
    kernel, stride = ints(rng, 1, 5), ints(rng, 1, 5)
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    shape = tuple(int(v) for v in rng.integers([0, 1, 1, 1], [4, 4, 13, 13]))
    return shape, kernel, stride if rng.random() < 0.8 else None, padding, bool(rng.integers(2))


def test_max_pool2d_agrees() -> None:
    run = 0
    for rng in cases():
        shape, kernel, stride, padding, ceil_mode = pool_config(rng)
        dilation = ints(rng, 1, 3)
        config = shape, kernel, stride, padding, dilation, ceil_mode
        data = ties(rng, shape)
        if data.size and rng.random() < 0.2:
            data.flat[rng.integers(0, data.size, 3)] = rng.choice([np.nan, np.inf, -np.inf], 3)
        x = leaf(data)
        theirs = outcome(F.max_pool2d, x, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
        if isinstance(theirs, str):
            assert "too small" in theirs, config
            with pytest.raises(ValueError, match="smaller than 1"):
                ops.max_pool2d(data, kernel, stride, padding, dilation, ceil_mode)
            continue
        y, indices = theirs
        run += 1
        found, where = ops.max_pool2d(data, kernel, stride, padding, dilation, ceil_mode)
        same(found, y, config)
        empty = where < 0  # torch's index points outside the plane, or at a pixel that is in no such window
        assert np.isneginf(found[empty]).all()
        np.testing.assert_array_equal(where[~empty], indices.numpy()[~empty], err_msg=str(config))
        dy = rng.standard_normal(found.shape)
        same(ops.plane_take(data, where)[~empty], found[~empty], config)
        if not empty.any():
            y.backward(torch.from_numpy(dy))
            same(
                ops.max_pool2d_backward(dy, where, shape, kernel, stride, padding, dilation, ceil_mode), x.grad, config
            )
    assert run > CASES // 2


def test_max_pool2d_window_without_pixels() -> None:
    y, indices = ops.max_pool2d(np.ones((1, 1, 1, 3)), 2, 1, 1, 2)
    assert np.isneginf(y).all()
    assert (indices == -1).all()
    assert not ops.max_pool2d_backward(np.ones_like(y), indices, (1, 1, 1, 3), 2, 1, 1, 2).any()
    assert not ops.plane_take(np.ones((1, 1, 1, 3)), indices).any()


def test_avg_pool2d_agrees() -> None:
    run = 0
    for rng in cases():
        shape, kernel, stride, padding, ceil_mode = pool_config(rng)
        rest = kernel, stride, padding, ceil_mode, bool(rng.integers(2)), [None, None, 3, -2][int(rng.integers(4))]
        data = rng.standard_normal(shape)
        x = leaf(data)
        y = outcome(F.avg_pool2d, x, *rest)
        if isinstance(y, str):
            assert "too small" in y, rest
            with pytest.raises(ValueError, match="smaller than 1"):
                ops.avg_pool2d(data, *rest)
            continue
        run += 1
        dy = rng.standard_normal(y.shape)
        y.backward(torch.from_numpy(dy))
        same(ops.avg_pool2d(data, *rest), y, (shape, rest))
        same(ops.avg_pool2d_backward(dy, shape, *rest), x.grad, (shape, rest))
    assert run > CASES // 2


def test_pool_padding_limit_agrees() -> None:
    """Padding over half the window is refused exactly where torch refuses it, dilation or not."""
    x = np.ones((1, 1, 9, 9))
    for window in range(1, 6):
        for padding in range(5):
            for dilation in (1, 2):
                theirs = outcome(F.max_pool2d, torch.from_numpy(x), window, 1, padding, dilation)
                if isinstance(theirs, str):
                    assert "half" in theirs
                    with pytest.raises(ValueError, match="half the window"):
                        ops.max_pool2d(x, window, 1, padding, dilation)
                else:
                    same(ops.max_pool2d(x, window, 1, padding, dilation)[0], theirs, (window, padding, dilation))


def test_adaptive_pools_agree() -> None:
    for rng in cases():
        shape = tuple(int(v) for v in rng.integers([0, 1, 1, 1], [4, 4, 13, 13]))
        size: Any = tuple(None if rng.random() < 0.2 else int(rng.integers(1, 15)) for _ in range(2))
        if rng.random() < 0.2:
            size = int(rng.integers(1, 8))
        x = leaf(rng.standard_normal(shape))
        y = F.adaptive_avg_pool2d(x, size)
        dy = rng.standard_normal(y.shape)
        y.backward(torch.from_numpy(dy))
        same(ops.adaptive_avg_pool2d(x.detach().numpy(), size), y, (shape, size))
        same(ops.adaptive_avg_pool2d_backward(dy, shape), x.grad, (shape, size))

        data = ties(rng, shape)
        if data.size and rng.random() < 0.2:
            data.flat[rng.integers(0, data.size, 3)] = rng.choice([np.nan, np.inf, -np.inf], 3)
        x = leaf(data)
        y, indices = F.adaptive_max_pool2d(x, size, return_indices=True)
        y.backward(torch.from_numpy(dy))
        found, where = ops.adaptive_max_pool2d(data, size)
        same(found, y, (shape, size))
        np.testing.assert_array_equal(where, indices.numpy(), err_msg=str((shape, size)))
        same(ops.adaptive_max_pool2d_backward(dy, where, shape), x.grad, (shape, size))


def any_shape(rng: np.random.Generator, least: int = 0, most: int = 4) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(0 if rng.random() < 0.1 else 1, 7, int(rng.integers(least, most + 1))))


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_activations_agree(name: str) -> None:
    forward, backward = getattr(ops, name), getattr(ops, f"{name}_backward")
    for rng in cases():
        data = rng.standard_normal(any_shape(rng)) * float(rng.choice([1, 30, 1000]))
        if data.size and rng.random() < 0.3:
            data.flat[rng.integers(0, data.size, 4)] = [np.nan, np.inf, -np.inf, 0.0]
        x = leaf(np.asarray(data))
        y = getattr(torch, name)(x)
        dy = np.asarray(rng.standard_normal(data.shape))
        y.backward(torch.from_numpy(dy))
        found = forward(np.asarray(data))
        same(found, y, data)
        same(backward(dy, found), x.grad, data, 1.0)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmaxes_agree(name: str) -> None:
    forward, backward = getattr(ops, name), getattr(ops, f"{name}_backward")
    for rng in cases():
        shape = any_shape(rng, 1)
        axis = int(rng.integers(-len(shape), len(shape)))
        data = rng.standard_normal(shape) * float(rng.choice([1, 30, 1000]))
        if data.size and rng.random() < 0.2:
            data.flat[rng.integers(0, data.size)] = rng.choice([np.nan, np.inf, -np.inf])
        x = leaf(data)
        y = getattr(torch, name)(x, dim=axis)
        dy = rng.standard_normal(shape)
        y.backward(torch.from_numpy(dy))
        found = forward(data, axis)
        same(found, y, (shape, axis))
        same(backward(dy, found, axis), x.grad, (shape, axis), 1.0)


def test_linear_agrees() -> None:
    for rng in cases():
        lead, features, out = any_shape(rng, 0, 3), *(int(v) for v in rng.integers(1, 40, 2))
        data, weight, bias = (rng.standard_normal(s) for s in ((*lead, features), (out, features), (out,)))
        b = bias if rng.random() < 0.7 else None
        x, w = leaf(data), leaf(weight)
        y = F.linear(x, w, None if b is None else torch.from_numpy(b))
        same(ops.linear(data, weight, b), y, (lead, features, out))
        if len(lead) == 1:
            dy = rng.standard_normal(y.shape)
            y.backward(torch.from_numpy(dy))
            same(ops.gemm(dy, weight), x.grad, (lead, features, out))
            same(ops.gemm(dy, data, trans_a=True), w.grad, (lead, features, out))


def test_gemm_agrees() -> None:
    for rng in cases():
        m, n, k = (int(v) for v in rng.integers(0 if rng.random() < 0.1 else 1, 50, 3))
        for trans_a in (False, True):
            for trans_b in (False, True):
                a = rng.standard_normal((k, m) if trans_a else (m, k))
                b = rng.standard_normal((n, k) if trans_b else (k, n))
                expected = (a.T if trans_a else a) @ (b.T if trans_b else b)
                same(ops.gemm(a, b, trans_a, trans_b), expected, (m, n, k, trans_a, trans_b))


def test_lrn_agrees() -> None:
    for rng in cases():
        shape = tuple(int(v) for v in rng.integers([0, 1, 1, 1], [4, 9, 5, 5]))[: int(rng.integers(3, 5))]
        rest = int(rng.integers(1, 12)), float(rng.uniform(0, 2)), float(rng.uniform(0, 2)), float(rng.uniform(0.5, 3))
        data = rng.standard_normal(shape)
        x = leaf(data)
        y = F.local_response_norm(x, *rest)
        dy = rng.standard_normal(shape)
        y.backward(torch.from_numpy(dy))
        same(ops.lrn(data, *rest), y, (shape, rest))
        same(ops.lrn_backward(dy, data, *rest), x.grad, (shape, rest))


def test_batch_norm_agrees() -> None:
    for rng in cases():
        shape = (int(rng.integers(2, 5)), int(rng.integers(1, 6)), *any_shape(rng, 0, 3))
        if 0 in shape:
            continue
        data = rng.standard_normal(shape) * 3 + 5
        weight, bias = (rng.standard_normal(shape[1]) if rng.random() < 0.7 else None for _ in range(2))
        x = leaf(data)
        w, b = (None if a is None else leaf(a) for a in (weight, bias))
        y = F.batch_norm(x, None, None, w, b, training=True, eps=1e-3)
        dy = rng.standard_normal(shape)
        y.backward(torch.from_numpy(dy))
        found, mean, var = ops.batch_norm(data, weight, bias, 1e-3)
        same(found, y, shape)
        axes = (0, *range(2, len(shape)))
        same(mean, data.mean(axis=axes), shape)
        same(var, data.var(axis=axes), shape)
        dx, dweight, dbias = ops.batch_norm_backward(dy, data, weight, mean, var, 1e-3)
        same(dx, x.grad, shape)
        if w is not None:
            same(dweight, w.grad, shape)
        if b is not None:
            same(dbias, b.grad, shape)
        scale, shift = rng.standard_normal((2, shape[1]))
        by_channel = (-1, *(1,) * (len(shape) - 2))
        same(
            ops.channel_affine(data, scale, shift), data * scale.reshape(by_channel) + shift.reshape(by_channel), shape
        )


def test_shaping_agrees() -> None:
    for rng in cases():
        shape = tuple(int(v) for v in rng.integers([0, 1, 1, 1], [4, 4, 7, 7]))
        top, bottom, left, right = (int(v) for v in rng.integers(0, 4, 4))
        value = float(rng.choice([0.0, -1.5, np.inf, np.nan]))
        data = rng.standard_normal(shape)
        expected = F.pad(torch.from_numpy(data), (left, right, top, bottom), value=value)
        same(ops.pad(data, (top, bottom, left, right), value), expected, shape)

        shape = any_shape(rng, 1)
        axis = int(rng.integers(-len(shape), len(shape)))
        parts = []
        for _ in range(int(rng.integers(1, 5))):
            size = list(shape)
            size[axis] = int(rng.integers(0, 5))
            parts.append(rng.standard_normal(size))
        same(ops.concat(parts, axis), torch.cat([torch.from_numpy(part) for part in parts], axis), (shape, axis))
        same(ops.add(parts[0], parts[0] * 2), parts[0] * 3, shape)


FLOAT32: list[Callable[[Any], Any]] = [
    lambda x: ops.conv2d_fprop(x, x[:, :, :2, :2], stride=2),
    lambda x: ops.conv2d_dgrad(x, x, (4, 4, 11, 13)),
    lambda x: ops.conv2d_wgrad(x, x, (4, 4, 1, 1)),
    lambda x: ops.conv_transpose2d_fprop(x, x, x[0, :, 0, 0]),
    lambda x: ops.max_pool2d(x, 3, 2, 1)[0],
    lambda x: ops.avg_pool2d(x, 3, 2, 1),
    lambda x: ops.adaptive_avg_pool2d(x, 4),
    lambda x: ops.lrn(x, 3),
    lambda x: ops.batch_norm(x)[0],
    lambda x: ops.softmax(x, 1),
    lambda x: ops.tanh(x),
    lambda x: ops.linear(x, x[0, 0]),
    lambda x: ops.dropout(x, 0.5, 3),
]


@pytest.mark.parametrize("operator", FLOAT32, ids=range(len(FLOAT32)))
def test_float32_is_near_float64(operator: Callable[[Any], Any]) -> None:
    """float32 results are within 1e-5 of float64's largest: 2^-24 a rounding, at most some 150 of them in a sum."""
    x = np.random.default_rng(0).standard_normal((4, 4, 6, 7))
    wide, narrow = operator(x), operator(x.astype(np.float32))
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, wide, rtol=0, atol=1e-5 * np.abs(wide).max())


def test_defaults_agree() -> None:
    """Every parameter that can be left out means what it means in torch."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((3, 4, 7, 8))
    filters, transposed, v = (rng.standard_normal(s) for s in ((5, 4, 3, 3), (4, 5, 3, 3), (4,)))
    x, w, wt = leaf(data), leaf(filters), leaf(transposed)
    y = F.conv2d(x, w)
    dy = rng.standard_normal(y.shape)
    dx, dw = torch.autograd.grad(y, (x, w), torch.from_numpy(dy))
    same(ops.conv2d_fprop(data, filters), y, "conv2d")
    same(ops.conv2d_dgrad(dy, filters, data.shape), dx, "conv2d")
    same(ops.conv2d_wgrad(dy, data, filters.shape), dw, "conv2d")
    y = F.conv_transpose2d(x, wt)
    dy = rng.standard_normal(y.shape)
    dx, dw = torch.autograd.grad(y, (x, wt), torch.from_numpy(dy))
    same(ops.conv_transpose2d_fprop(data, transposed), y, "conv_transpose2d")
    same(ops.conv_transpose2d_dgrad(dy, transposed, data.shape), dx, "conv_transpose2d")
    same(ops.conv_transpose2d_wgrad(dy, data, transposed.shape), dw, "conv_transpose2d")
    for name in ("max_pool2d", "avg_pool2d"):
        y = getattr(F, name)(x, 3)
        dy = rng.standard_normal(y.shape)
        (dx,) = torch.autograd.grad(y, x, torch.from_numpy(dy))
        found = getattr(ops, name)(data, 3)
        indices = found[1:] if isinstance(found, tuple) else ()
        same(found[0] if indices else found, y, name)
        same(getattr(ops, f"{name}_backward")(dy, *indices, data.shape, 3), dx, name)
    y = F.local_response_norm(x, 3)
    dy = rng.standard_normal(y.shape)
    (dx,) = torch.autograd.grad(y, x, torch.from_numpy(dy))
    same(ops.lrn(data, 3), y, "lrn")
    same(ops.lrn_backward(dy, data, 3), dx, "lrn")
    y = F.batch_norm(x, None, None, training=True)
    (dx,) = torch.autograd.grad(y, x, torch.from_numpy(dy))
    found, mean, var = ops.batch_norm(data)
    same(found, y, "batch_norm")
    same(ops.batch_norm_backward(dy, data, None, mean, var)[0], dx, "batch_norm")
    same(ops.softmax(data), torch.softmax(x, -1), "softmax")
    same(ops.log_softmax(data), torch.log_softmax(x, -1), "log_softmax")
    same(ops.softmax_backward(dy, data), data * (dy - (dy * data).sum(-1, keepdims=True)), "softmax")
    same(ops.log_softmax_backward(dy, data), dy - np.exp(data) * dy.sum(-1, keepdims=True), "log_softmax")
    same(ops.linear(v, v[None]), F.linear(torch.from_numpy(v), torch.from_numpy(v[None])), "linear")
    same(ops.gemm(data[0, 0], data[0, 0].T.copy()), data[0, 0] @ data[0, 0].T, "gemm")
    same(ops.concat([data, data]), torch.cat([x, x], 1), "concat")
    same(ops.pad(data, 1), F.pad(x, (1, 1, 1, 1)), "pad")
    same(ops.dropout(data, 0.5, 1), ops.dropout(data, 0.5, 1, 0), "dropout")
