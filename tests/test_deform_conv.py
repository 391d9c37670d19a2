"""Deformable convolution: against a plain loop over torch's grid_sample, and against ordinary convolution; refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import functional as F
from pycnn import nn
from pycnn.testing.gradcheck import gradcheck


def plain(torch: Any, x: Any, offset: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, mask: Any) -> Any:
    """The definition in PyTorch: for each tap the image moved by its offsets, times the filter's column."""
    (n, c, height, width), (k, per_group, r, s) = x.shape, w.shape
    p, q = offset.shape[2:]
    groups, parts = c // per_group, offset.shape[1] // (2 * r * s)
    y = torch.zeros(n, k, p, q, dtype=x.dtype)
    moves = offset.reshape(n, parts, r, s, 2, p, q)
    weights = torch.ones(n, parts, r, s, p, q, dtype=x.dtype) if mask is None else mask.reshape(n, parts, r, s, p, q)
    for i in range(r):
        for j in range(s):
            columns = []
            for part, image in enumerate(x.split(c // parts, 1)):
                v = torch.arange(p)[:, None] * stride[0] - padding[0] + i * dilation[0] + moves[:, part, i, j, 0]
                u = torch.arange(q) * stride[1] - padding[1] + j * dilation[1] + moves[:, part, i, j, 1]
                grid = torch.stack([(2 * u + 1) / width - 1, (2 * v + 1) / height - 1], -1)
                seen = torch.nn.functional.grid_sample(image, grid, align_corners=False)
                columns.append(seen * weights[:, part, i, j][:, None])
            y = y + torch.nn.functional.conv2d(torch.cat(columns, 1), w[:, :, i : i + 1, j : j + 1], groups=groups)
    return y if b is None else y + b[:, None, None]


@pytest.mark.usefixtures("one_torch_thread")
def test_agrees_with_its_definition(backend: str) -> None:
    torch = pytest.importorskip("torch")
    for seed in range(25):
        rng = np.random.default_rng(seed)
        groups, parts, (r, s) = int(rng.choice([1, 2])), int(rng.choice([1, 2, 4])), rng.integers(1, 4, 2)
        stride, dilation = (tuple(int(v) for v in rng.integers(1, 3, 2)) for _ in range(2))
        padding = tuple(int(v) for v in rng.integers(0, 3, 2))
        n, h, w = int(rng.integers(1, 3)), *(int(v) for v in rng.integers(6, 10, 2))
        p = (h + 2 * padding[0] - dilation[0] * (r - 1) - 1) // stride[0] + 1
        q = (w + 2 * padding[1] - dilation[1] * (s - 1) - 1) // stride[1] + 1
        given = [
            rng.standard_normal((n, 4, h, w)),
            2 * rng.standard_normal((n, 2 * parts * r * s, p, q)),
            rng.standard_normal((6, 4 // groups, r, s)),
            rng.standard_normal(6) if rng.random() < 0.7 else None,
            rng.random((n, parts * r * s, p, q)) if rng.random() < 0.7 else None,
        ]
        leaves = [None if one is None else torch.from_numpy(one.copy()).requires_grad_() for one in given]
        expected = plain(torch, *leaves[:4], stride, padding, dilation, leaves[4])
        dy = rng.standard_normal(expected.shape)
        expected.backward(torch.from_numpy(dy))
        own = [None if one is None else pycnn.Tensor(one, requires_grad=True) for one in given]
        y = F.deform_conv2d(*own[:4], stride, padding, dilation, own[4])
        y.backward(pycnn.Tensor(dy))
        # Sums of some fifty terms of float64, whose positions are computed in two ways.
        np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), atol=1e-11, err_msg=str(seed))
        for mine, right in zip(own, leaves, strict=True):
            if mine is not None:
                np.testing.assert_allclose(mine.grad.numpy(), right.grad.numpy(), atol=1e-10, err_msg=str(seed))


def test_without_offsets_it_is_a_convolution() -> None:
    rng = np.random.default_rng(0)
    x, w, b = (rng.integers(-9, 9, shape).astype(np.float32) for shape in ((2, 4, 7, 8), (6, 2, 3, 3), (6,)))
    y = F.deform_conv2d(x, np.zeros((2, 36, 4, 4), np.float32), w, b, 2, 1)
    np.testing.assert_array_equal(y, F.conv2d(x, w, b, 2, 1, groups=2))


def test_gradients() -> None:
    rng = np.random.default_rng(0)
    shapes = ((1, 2, 4, 4), (1, 8, 3, 3), (2, 2, 2, 2), (2,), (1, 4, 3, 3))
    x, offset, w, b, mask = (pycnn.Tensor(rng.uniform(0.1, 0.9, shape), requires_grad=True) for shape in shapes)
    gradcheck(lambda x, offset, w, b, mask: F.deform_conv2d(x, offset, w, b, mask=mask), (x, offset, w, b, mask))


def test_layer() -> None:
    layer = nn.DeformConv2d(4, 6, (3, 2), stride=2, padding=1, groups=2)
    assert {name: tuple(one.shape) for name, one in layer.named_parameters()} == {"weight": (6, 2, 3, 2), "bias": (6,)}
    rng = np.random.default_rng(0)
    x, offset = rng.standard_normal((1, 4, 8, 8)), rng.standard_normal((1, 12, 4, 5))
    mask = rng.random((1, 6, 4, 5))
    given = [pycnn.Tensor(one.astype(np.float32)) for one in (x, offset, mask)]
    expected = F.deform_conv2d(given[0], given[1], layer.weight, layer.bias, 2, 1, 1, given[2])
    np.testing.assert_array_equal(layer(*given).detach().numpy(), expected.detach().numpy())


def test_a_bias_may_be_an_array_beside_16_bits() -> None:
    x, w = pycnn.Tensor(np.ones((1, 1, 2, 2), np.float16)), pycnn.Tensor(np.ones((1, 1, 1, 1), np.float16))
    offset = pycnn.Tensor(np.zeros((1, 2, 2, 2), np.float16))
    y = F.deform_conv2d(x, offset, w, np.full(1, 2.0, np.float16))
    assert y.dtype == np.float16
    assert y.tolist() == [[[[3.0, 3.0], [3.0, 3.0]]]]


X, OFFSET, W = np.zeros((1, 4, 5, 5)), np.zeros((1, 18, 3, 3)), np.zeros((2, 4, 3, 3))


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ((X[0], OFFSET, W), ValueError, r"x must have 4 dimensions, got shape \(4, 5, 5\)"),
        ((X, None, W), TypeError, "offset must be a Tensor or an array, got NoneType"),
        (
            (X, OFFSET[:, :17], W),
            ValueError,
            r"offset must have .* for G that divides 4, got \(1, 17, 3, 3\)",
        ),
        ((X, OFFSET, W[:, :3]), ValueError, r"weight must be \(K, C / groups, R, S\) .* for 4 channels"),
        ((X, OFFSET, W[:, :, :0]), ValueError, r"weight must have at least one row and column of taps, got shape"),
        ((X[:, :0], OFFSET, W), ValueError, r"weight must be \(K, C / groups, R, S\) .* for 0 channels"),
        ((X, OFFSET, W, None, 0), ValueError, "stride must be between 1"),
        ((X, OFFSET, W, None, 1, 0, 3), ValueError, "the output must have at least one element"),
        ((X, OFFSET, W, None, 1, 0, 1, OFFSET), ValueError, r"mask must have the shape \(1, 9, 3, 3\), got"),
    ],
)
def test_refusals(args: tuple[Any, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        F.deform_conv2d(*args)
