"""grid_sample and affine_grid: against PyTorch on random configurations; refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import functional as F
from pycnn.testing.gradcheck import gradcheck, gradgradcheck


def settings(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """An image, a grid that looks beyond its borders, and how."""
    dimensions = int(rng.integers(2, 4))
    n, c = (int(v) for v in rng.integers(1, 4, 2))
    sizes, out = (tuple(int(v) for v in rng.integers(1, 7, dimensions)) for _ in range(2))
    modes = ("bilinear", "nearest", "bicubic") if dimensions == 2 else ("bilinear", "nearest")
    how = {
        "mode": str(rng.choice(modes)),
        "padding_mode": str(rng.choice(["zeros", "border", "reflection"])),
        "align_corners": bool(rng.random() < 0.5),
    }
    reach = float(rng.choice([0.5, 1.2, 3.7]))
    return rng.standard_normal((n, c, *sizes)), rng.uniform(-reach, reach, (n, *out, dimensions)), how


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.usefixtures("one_torch_thread")
def test_agrees_with_torch(dtype: type, backend: str) -> None:
    torch = pytest.importorskip("torch")
    for seed in range(70):
        rng = np.random.default_rng(seed)
        x, grid, how = settings(rng)
        image, places = (torch.from_numpy(one.astype(dtype)).requires_grad_() for one in (x, grid))
        expected = torch.nn.functional.grid_sample(image, places, **how)
        dy = rng.standard_normal(expected.shape).astype(dtype)
        expected.backward(torch.from_numpy(dy))
        own_image, own_places = (pycnn.Tensor(one.astype(dtype), requires_grad=True) for one in (x, grid))
        y = F.grid_sample(own_image, own_places, **how)
        y.backward(pycnn.Tensor(dy))
        # Rounded some thirty times; a gradient of the grid is a difference of neighbours times half the size.
        tolerance = 1e-12 if dtype is np.float64 else 1e-4
        for found, right in ((y, expected), (own_image.grad, image.grad), (own_places.grad, places.grad)):
            np.testing.assert_allclose(
                found.detach().numpy(),
                right.detach().numpy(),
                rtol=0,
                atol=tolerance,
                err_msg=str((seed, x.shape, grid.shape, how)),
            )


def test_arrays_of_torch_come_back_as_such() -> None:
    torch = pytest.importorskip("torch")
    x, grid = torch.randn(1, 2, 4, 4), torch.rand(1, 3, 3, 2)
    y = F.grid_sample(x, grid, align_corners=True)
    expected = torch.nn.functional.grid_sample(x, grid, align_corners=True)
    torch.testing.assert_close(y, expected)


@pytest.mark.usefixtures("one_torch_thread")
def test_affine_grid_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    for seed in range(40):
        rng = np.random.default_rng(seed)
        dimensions = int(rng.integers(2, 4))
        size = (int(rng.integers(1, 4)), 2, *(int(v) for v in rng.integers(1, 6, dimensions)))
        theta = rng.standard_normal((size[0], dimensions, dimensions + 1))
        leaf = torch.from_numpy(theta).requires_grad_()
        corners = bool(rng.random() < 0.5)
        expected = torch.nn.functional.affine_grid(leaf, size, align_corners=corners)
        dy = rng.standard_normal(expected.shape)
        expected.backward(torch.from_numpy(dy))
        own = pycnn.Tensor(theta, requires_grad=True)
        grid = F.affine_grid(own, size, corners)
        grid.backward(pycnn.Tensor(dy))
        np.testing.assert_allclose(grid.detach().numpy(), expected.detach().numpy(), atol=1e-13)
        np.testing.assert_allclose(own.grad.numpy(), leaf.grad.numpy(), atol=1e-12)


def test_places_that_are_no_numbers_lie_outside() -> None:
    grid = np.array([[[[np.nan, 0.0], [np.inf, 0.0], [0.0, -np.inf], [0.0, 0.0]]]])
    y = F.grid_sample(np.ones((1, 1, 3, 3)), grid, align_corners=True)
    assert y.tolist() == [[[[0.0, 0.0, 0.0, 1.0]]]]


def test_zeros_are_not_multiplied_with_infinity() -> None:
    x = np.full((1, 1, 2, 2), np.inf)
    x[..., 0, 0] = 1.0
    assert F.grid_sample(x, np.full((1, 1, 1, 2), -4.0), align_corners=True).item() == 0.0


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_gradients_of_gradients(padding: str) -> None:
    rng = np.random.default_rng(1)
    x = pycnn.Tensor(rng.standard_normal((1, 2, 3, 4)), requires_grad=True)
    grid = pycnn.Tensor(rng.uniform(-0.9, 0.9, (1, 2, 2, 2)), requires_grad=True)
    function = lambda x, grid: F.grid_sample(x, grid, padding_mode=padding)  # noqa: E731
    gradcheck(function, (x, grid))
    gradgradcheck(function, (x, grid))


def test_16_bits_are_rounded_once() -> None:
    rng = np.random.default_rng(0)
    x, grid = rng.standard_normal((1, 2, 5, 5)).astype(np.float16), rng.uniform(-1, 1, (1, 3, 3, 2)).astype(np.float16)
    wide = F.grid_sample(x.astype(np.float32), grid.astype(np.float32))
    np.testing.assert_array_equal(F.grid_sample(x, grid), wide.astype(np.float16))


def test_the_number_of_threads_changes_no_bit(engine_as_found: None) -> None:
    rng = np.random.default_rng(0)
    x, grid = rng.standard_normal((2, 5, 40, 40)), rng.uniform(-1, 1, (2, 50, 50, 2))
    found = []
    for threads in (1, 2, 3):
        pycnn.set_num_threads(threads)
        image, places = (pycnn.Tensor(one.astype(np.float32), requires_grad=True) for one in (x, grid))
        y = F.grid_sample(image, places)
        y.backward(pycnn.Tensor(np.ones(y.shape, np.float32)))
        found.append([y.detach().numpy().tobytes(), image.grad.numpy().tobytes(), places.grad.numpy().tobytes()])
    assert found[0] == found[1] == found[2]


X, GRID = np.zeros((2, 3, 4, 5)), np.zeros((2, 6, 7, 2))


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ((X[0], GRID), ValueError, r"x must have 4 or 5 dimensions .* got shape \(3, 4, 5\)"),
        ((X, 3), TypeError, "grid must be a Tensor or an array, got int"),
        ((X, GRID[:1]), ValueError, r"grid must have the shape \(2, P, Q, 2\), got \(1, 6, 7, 2\)"),
        ((X, np.zeros((2, 6, 7, 3))), ValueError, r"grid must have the shape \(2, P, Q, 2\)"),
        ((X[:, :, :0], GRID), ValueError, "x must have at least one element a dimension"),
        ((X, GRID, "cubic"), ValueError, "mode must be one of bilinear, nearest, bicubic, got 'cubic'"),
        ((X, GRID, "nearest", "edge"), ValueError, "padding_mode must be one of zeros, .* got 'edge'"),
        ((X, GRID, "nearest", "zeros", 1), TypeError, "align_corners must be True or False, got 1"),
        (
            (np.zeros((1, 1, 2, 2, 2)), np.zeros((1, 1, 1, 1, 3)), "bicubic"),
            ValueError,
            "mode 'bicubic' is for x of 4 dimensions, got 5",
        ),
        (
            (pycnn.Tensor(X), pycnn.Tensor(GRID.astype(np.float32))),
            TypeError,
            "x and grid must have one dtype, got float64 and float32",
        ),
    ],
)
def test_refusals(args: tuple[Any, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        F.grid_sample(*args)


def test_refusals_of_affine_grid() -> None:
    with pytest.raises(ValueError, match=r"theta must have the shape \(1, 2, 3\) for size"):
        F.affine_grid(np.zeros((1, 3, 3)), (1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"size must be \(N, C, \[D,\] H, W\), got \(1, 1, 4\)"):
        F.affine_grid(np.zeros((1, 2, 3)), (1, 1, 4))
