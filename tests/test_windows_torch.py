"""What is made of windows against PyTorch in float64: columns of windows, values, gradients and refusals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from beside_torch import Ints, agree, draw, same

import pycnn
from pycnn import functional as F
from pycnn import nn
from pycnn.ops import pool as raw

torch = pytest.importorskip("torch")
TF = torch.nn.functional

CASES = 60
pytestmark = pytest.mark.usefixtures("backend")


def test_unfold_and_fold_agree() -> None:
    ran = 0
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        size, kernel, stride = draw(rng, 1, 9, 2), draw(rng, 1, 4, 2), draw(rng, 1, 4, 2)
        dilation, padding = draw(rng, 1, 3, 2), draw(rng, 0, 3, 2)
        lead = (int(rng.integers(1, 4)),) if rng.random() < 0.2 else (int(rng.integers(1, 3)), int(rng.integers(1, 4)))
        how, what = (kernel, dilation, padding, stride), (seed, lead, size)
        x = rng.standard_normal((*lead, *size))
        if not agree(lambda x, how=how: F.unfold(x, *how), lambda x, how=how: TF.unfold(x, *how), [x], (what, how)):
            continue
        ran += 1
        columns = rng.standard_normal(TF.unfold(torch.from_numpy(x), *how).shape)
        ours = lambda y, how=how, size=size: F.fold(y, size, *how)  # noqa: E731
        assert agree(ours, lambda y, how=how, size=size: TF.fold(y, size, *how), [columns], (what, how))
    assert ran > CASES // 2


def test_no_images_give_no_columns() -> None:
    assert F.unfold(np.zeros((0, 2, 3, 4)), 2).shape == (0, 8, 6)
    assert F.fold(np.zeros((0, 8, 6)), (3, 4), 2).shape == (0, 2, 3, 4)


def test_16_bits_are_added_up_in_float32() -> None:
    """Three windows hold the one pixel, by a tap each; in 16 bits 2048 + 1 is 2048."""
    columns = np.diag([1.0, 1.0, 2048.0])[::-1].astype(np.float16)
    assert F.fold(columns, (1, 1), (1, 3), 1, (0, 2), 1).tolist() == [[[2050.0]]]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_max_unpool_agrees(axes: int) -> None:
    ours, theirs = getattr(F, f"max_unpool{axes}d"), getattr(TF, f"max_unpool{axes}d")
    pooled = getattr(TF, f"max_pool{axes}d")
    for seed in range(CASES // 3):
        rng = np.random.default_rng(seed)
        size, window = draw(rng, 3, 9, axes), draw(rng, 1, 3, axes)
        padding = tuple(int(rng.integers(0, one // 2 + 1)) for one in window)
        lead = (int(rng.integers(1, 4)),) if rng.random() < 0.3 else (int(rng.integers(1, 3)), 2)
        image = torch.from_numpy(rng.standard_normal((*lead, *size)))
        y, places = pooled(image, window, window, padding, return_indices=True)  # every place is in one window
        how = (window, window, padding, list(size))
        what = (seed, lead, size, window)
        agree(
            lambda x, at=places, how=how: ours(x, at.numpy(), *how),
            lambda x, at=places, how=how: theirs(x, at, *how),
            [y.numpy()],
            what,
        )


def test_of_several_values_for_one_place_the_last_stays() -> None:
    x, places = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[2, 0, 2, -1]])
    assert F.max_unpool1d(x, places, 1).tolist() == [[2.0, 0.0, 3.0, 0.0]]
    leaf = pycnn.Tensor(x, requires_grad=True)
    (F.max_unpool1d(leaf, places, 1) * np.array([[10.0, 20.0, 30.0, 40.0]])).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [[30.0, 10.0, 30.0, 0.0]]


def test_places_that_are_sorted_give_what_assignments_in_order_do() -> None:
    """What runs on a GPU, on NumPy's arrays."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        places, values = rng.integers(0, 31, 50), rng.standard_normal(50)  # 30 is nowhere
        np.testing.assert_array_equal(raw._put_sorted(places, values, 30), raw._put(places, values, 30))
    assert raw._put_sorted(places[:0], values[:0], 3).tolist() == [0, 0, 0]


def products_by_window(
    window: Ints, stride: Ints, dilation: Ints, padding: Ints, size: Ints, groups: int, x: Any, w: Any, b: Any
) -> Any:
    """A locally connected layer in torch: the columns of the windows, each times its own filters."""
    n, c, k = x.shape[0], x.shape[1], b.shape[0]
    columns = TF.unfold(x.reshape(n, c, *size), window, dilation, padding, stride)
    places = columns.shape[2]
    filters = w.reshape(places, groups, k // groups, c // groups * window[0] * window[1])
    y = torch.einsum("ngcl,lgkc->ngkl", columns.reshape(n, groups, -1, places), filters)
    return y.reshape(n, *b.shape) + b


@pytest.mark.parametrize("axes", [1, 2])
def test_locally_connected_layers_are_products_by_window(axes: int) -> None:
    ours = getattr(F, f"locally_connected{axes}d")
    for seed in range(CASES // 3):
        rng = np.random.default_rng(seed)
        groups = int(rng.choice([1, 1, 2]))
        settings = [draw(rng, low, high, 2) for low, high in ((1, 3), (1, 2), (1, 2), (0, 2), (5, 7))]
        if axes == 1:
            settings = [(neutral, two[1]) for neutral, two in zip((1, 1, 1, 0, 1), settings, strict=True)]
        window, stride, dilation, padding, size = settings
        n, c, k = int(rng.integers(1, 3)), *(groups * int(v) for v in rng.integers(1, 3, 2))
        places = [
            (size[i] + 2 * padding[i] - dilation[i] * (window[i] - 1) - 1) // stride[i] + 1 for i in range(2 - axes, 2)
        ]
        arrays = [
            rng.standard_normal((n, c, *size[2 - axes :])),
            rng.standard_normal((*places, k, c // groups, *window[2 - axes :])),
            rng.standard_normal((k, *places)),
        ]
        how = [one[2 - axes :] for one in (stride, padding, dilation)]
        assert agree(
            lambda x, w, b, how=how, groups=groups: ours(x, w, b, *how, groups),
            partial(products_by_window, *settings, groups),
            arrays,
            (seed, settings, n, c, k, groups),
        )
        assert ours(arrays[0][:0], *arrays[1:], *how, groups).shape == (0, k, *places)


@pytest.mark.simulator
def test_locally_connected_layers_run_on_simulated_kernels() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (3, 4, 6, 5)).astype(np.float32)
    w = rng.integers(-3, 4, (3, 5, 6, 2, 2, 3)).astype(np.float32)
    gradients = []
    for name in ("sim", "reference"):
        leaves = [pycnn.Tensor(one.copy(), requires_grad=True) for one in (x, w)]
        with pycnn.use_backend(name):
            y = F.locally_connected2d(*leaves, None, (2, 1), (0, 1), groups=2)
            (y * y).sum().backward()
        gradients.append([y.detach(), *[leaf.grad for leaf in leaves]])
    for found, expected in zip(*gradients, strict=True):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_layers_of_windows_agree() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 8))
    columns = nn.Unfold((2, 3), 1, (0, 1), 2)(pycnn.Tensor(x))
    same(columns, torch.nn.Unfold((2, 3), 1, (0, 1), 2)(torch.from_numpy(x)), "unfold")
    theirs = torch.nn.Fold((6, 8), (2, 3), 1, (0, 1), 2)(torch.from_numpy(columns.numpy()))
    same(nn.Fold((6, 8), (2, 3), 1, (0, 1), 2)(columns), theirs, "fold")
    y, places = nn.MaxPool2d(2, return_indices=True)(pycnn.Tensor(x))
    theirs = torch.nn.MaxUnpool2d(2)(torch.from_numpy(y.numpy()), torch.from_numpy(places.numpy()))
    same(nn.MaxUnpool2d(2)(y, places), theirs, "unpool")
    layer = nn.LocallyConnected2d(3, 4, (6, 8), 3, stride=2, padding=1)
    assert layer.weight.shape == (3, 4, 4, 3, 3, 3)
    assert abs(layer.weight.data).max() <= 1 / np.sqrt(27)
    assert layer(x.astype(np.float32)).shape == (2, 4, 3, 4)  # a plain array beside Tensors
    assert nn.LocallyConnected1d(3, 2, 8, 3, bias=False)(pycnn.Tensor(x[:, :, 0].astype(np.float32))).shape == (2, 2, 6)


X, AT, IMAGE = np.ones((1, 2, 2)), np.zeros((1, 2, 2), np.int64), np.ones((1, 2, 3, 4))
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.unfold(np.ones((2, 3)), 1), ValueError, r"x must have 4 dimensions \(N, C, H, W\) or 3"),
    (lambda: F.unfold(np.ones((1, 2, 3, 4)), (4, 1)), ValueError, "no window fits: height 3"),
    (lambda: F.unfold(np.ones((1, 2, 3, 4)), 0), ValueError, "kernel_size must be between 1"),
    (lambda: F.unfold([1.0], 1), TypeError, "x must be a Tensor or an array"),
    (lambda: F.max_unpool1d(X[0], AT, 2), ValueError, "indices must have x's shape"),
    (lambda: F.max_unpool1d(X, AT + 4, 2), ValueError, "indices must be between -1 and 3"),
    (lambda: F.max_unpool1d(X, AT.astype(float), 2), TypeError, "indices must be an array of integers"),
    (lambda: F.max_unpool1d(X, AT, 2, output_size=(6,)), ValueError, "output_size must lie between 3 and 5"),
    (lambda: F.max_unpool2d(X[0], AT[0], 2), ValueError, "x must have at least 3 dimensions"),
    (
        lambda: F.locally_connected2d(np.ones((1, 2, 3, 4)), np.ones((3, 3, 1, 2, 1, 1))),
        ValueError,
        "filters for the output",
    ),
    (
        lambda: F.locally_connected2d(np.ones((1, 2, 3, 4)), np.ones((3, 1, 2, 1, 1))),
        ValueError,
        "w must have 6 dimensions",
    ),
    (
        lambda: F.locally_connected1d(np.ones((1, 2, 3)), np.ones((3, 1, 2, 1)), np.ones(1)),
        ValueError,
        "b must have one value an output channel and place",
    ),
    (lambda: nn.LocallyConnected2d(2, 2, 3, 4), ValueError, "does not fit"),
    (lambda: F.fold(np.ones((1, 3, 4)), 2, 2), ValueError, "a multiple of 4 rows"),
    (lambda: F.fold(np.ones((1, 4, 5)), 3, 2), ValueError, r"x must have 2\*2 columns"),
    (lambda: F.fold(np.ones((1, 4, 4, 1)), 3, 2), ValueError, r"x must have 3 dimensions \(N, C\*R\*S, P\*Q\)"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_bad_input_is_refused_by_name(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
