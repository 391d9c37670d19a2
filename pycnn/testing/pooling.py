"""Pooling problems by the reason they are tested for, and one call that proves a backend's pooling on one of them.

>>> [str(shape) for shape in pools("whole plane")]
['n1c7h7w7_r7s7_st1pd0dl1']
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from pycnn import backends
from pycnn.backends import reference
from pycnn.shape import Pair, Pool2dShape
from pycnn.testing.halves import half_unit, rounded, widened

__all__ = ["ADAPTIVE_POOLS", "POOLS", "check_adaptive_pool2d", "check_pool2d", "pools", "random_pools"]

POOLS: dict[str, tuple[Pool2dShape, ...]] = {
    "network": (
        Pool2dShape(1, 3, 56, 56, (3, 3), (2, 2), (1, 1, 1, 1)),  # ResNet's stem
        Pool2dShape(1, 5, 27, 27, (3, 3), (2, 2)),  # AlexNet
        Pool2dShape(1, 4, 28, 28, (3, 3), (1, 1), (1, 1, 1, 1)),  # inception
        Pool2dShape(2, 3, 28, 28, (2, 2), (2, 2)),  # VGG
    ),
    "whole plane": (Pool2dShape(1, 7, 7, 7, (7, 7), (1, 1)),),
    "ceil mode": (
        Pool2dShape(1, 2, 14, 14, (3, 3), (2, 2), ceil_mode=True),
        Pool2dShape(2, 1, 7, 9, (3, 2), (3, 4), (1, 1, 1, 1), ceil_mode=True),
        Pool2dShape(1, 2, 2, 5, (3, 3), (3, 3), (1, 1, 1, 1), ceil_mode=True),  # the last window would start outside
    ),
    "one pixel": (Pool2dShape(3, 1, 1, 1, (1, 1), (1, 1)),),
    "more windows than pixels": (Pool2dShape(1, 1, 16, 16, (2, 2), (1, 1), (1, 1, 1, 1)),),
    "empty batch": (Pool2dShape(0, 2, 5, 5, (2, 2), (2, 2)),),
    "asymmetric": (
        Pool2dShape(1, 1, 9, 90, (5, 13), (1, 1), (2, 2, 6, 6)),
        Pool2dShape(2, 2, 11, 13, (3, 5), (2, 1), (1, 0, 2, 1)),
        Pool2dShape(1, 1, 5, 70, (1, 2), (1, 5), (0, 0, 1, 1), (1, 3)),
    ),
    "stride larger than the window": (Pool2dShape(2, 2, 40, 33, (3, 2), (5, 4), (1, 0, 0, 1), (2, 1)),),
    "dilation": (
        Pool2dShape(1, 2, 12, 15, (3, 3), (1, 2), (1, 1, 0, 1), (2, 3)),
        Pool2dShape(1, 1, 3, 9, (2, 2), (1, 1), (1, 1, 1, 1), (4, 4)),  # windows that step over the whole image
    ),
}

# x_shape and the output's size.
ADAPTIVE_POOLS: tuple[tuple[tuple[int, int, int, int], Pair], ...] = (
    ((2, 3, 7, 7), (1, 1)),
    ((1, 5, 13, 13), (6, 6)),
    ((1, 2, 5, 64), (5, 8)),
    ((2, 1, 3, 40), (7, 9)),  # more windows than pixels
    ((1, 1, 1, 1), (2, 3)),
    ((0, 1, 4, 4), (2, 2)),
    ((1, 3, 30, 30), (4, 7)),
)


_MOST_WINDOWS = 65  # that hold one pixel, in these lists


def pools(*reasons: str) -> list[Pool2dShape]:
    """The problems kept for these reasons, all of them where none is named."""
    return [shape for reason in reasons or POOLS for shape in POOLS[reason]]


def random_pools(count: int) -> list[Pool2dShape]:
    """Shapes that nobody thought of; the same in every run."""
    rng = np.random.default_rng(7)
    found: list[Pool2dShape] = []
    while len(found) < count:
        (n, h, w), kernel = rng.integers(1, (4, 20, 45)).tolist(), rng.integers(1, 6, 2).tolist()
        top, bottom, left, right = (int(rng.integers(0, kernel[i // 2] // 2 + 1)) for i in range(4))
        stride, dilation = rng.integers(1, 5, 2).tolist(), rng.integers(1, 4, 2).tolist()
        try:
            shape = Pool2dShape(
                *(n, 2, h, w),
                (kernel[0], kernel[1]),
                (stride[0], stride[1]),
                (top, bottom, left, right),
                (dilation[0], dilation[1]),
                bool(rng.integers(2)),
            )
        except ValueError:
            continue  # the window does not fit
        found.append(shape)
    return found


def check_pool2d(backend: str | ModuleType | Any, shape: Pool2dShape, dtype: Any = np.float32) -> None:
    """Assert everything pooling promises, maximum and, without dilation, average.

    In float32; for a backend whose kernels read them also in float16 or bfloat16, where each result is float32's of the
    same 16-bit inputs, rounded once.

    - maxima and indices equal the reference's, also where values are equal, NaN or infinite, and without indices;
    - the maximum's backward, its own, and averages by a power of two are exact on integers; other averages are within
      a rounding of each division and sum;
    - results are C-contiguous and the same in a second run; inputs are left as they are and may have any strides.

    Raises:
        AssertionError: naming the backend and the problem.

    >>> check_pool2d("cpu", pools("ceil mode")[0])
    """
    module = _Under(_module(backend), np.dtype(dtype))
    where = f"{module.name} {shape}"
    x_shape, window = (shape.N, shape.C, shape.H, shape.W), (shape.kernel, shape.stride, shape.padding)

    for x in _images(x_shape):
        _expect_equal(module, "max_pool2d_fwd", where, [x], *window, shape.dilation, shape.ceil_mode)
        _expect_equal(module, "max_pool2d_fwd", where, [x], *window, shape.dilation, shape.ceil_mode, False)
    x = _integers(x_shape, 1)
    _, indices = reference.max_pool2d_fwd(x, *window, shape.dilation, shape.ceil_mode)
    assert indices is not None
    dy = _integers(indices.shape, 2)
    _expect_equal(module, "max_pool2d_bwd", where, [dy, indices], x_shape, *window, shape.dilation)
    _expect_equal(module, "plane_take", where, [x, indices])
    if shape.dilation != (1, 1):
        return
    for include_pad, divisor in ((True, None), (False, None), (True, 4), (False, -2)):
        how = (*window, shape.ceil_mode, include_pad, divisor)
        _expect_equal(module, "avg_pool2d_fwd", where, [x], *how)
        _expect_sum_of_shares(module, "avg_pool2d_bwd", where, dy, x_shape, *how, exact=divisor is not None)


def check_adaptive_pool2d(
    backend: str | ModuleType | Any, x_shape: tuple[int, int, int, int], out: Pair, dtype: Any = np.float32
) -> None:
    """Assert the same of adaptive pooling.

    >>> check_adaptive_pool2d("cpu", (1, 5, 13, 13), (6, 6))
    """
    module = _Under(_module(backend), np.dtype(dtype))
    where = f"{module.name} {x_shape} to {out}"
    for x in _images(x_shape):
        _expect_equal(module, "adaptive_max_pool2d_fwd", where, [x], out)
        _expect_equal(module, "adaptive_max_pool2d_fwd", where, [x], out, False)
    x = _integers(x_shape, 1)
    _, indices = reference.adaptive_max_pool2d_fwd(x, out)
    assert indices is not None
    dy = _integers(indices.shape, 2)
    _expect_equal(module, "adaptive_max_pool2d_bwd", where, [dy, indices], x_shape)
    _expect_equal(module, "adaptive_avg_pool2d_fwd", where, [x], out)
    _expect_sum_of_shares(module, "adaptive_avg_pool2d_bwd", where, dy, x_shape, exact=False)


class _Under(NamedTuple):
    """What is checked: a backend, in a dtype."""

    module: Any
    dtype: np.dtype[Any]

    @property
    def name(self) -> str:
        return f"{self.module.__name__} {self.dtype}"


def _module(backend: str | ModuleType | Any) -> Any:
    return backends.get(backend) if isinstance(backend, str) else backend


def _integers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


def _images(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Normal values; few integers, so that many are equal; NaN and both infinities among them; -inf alone."""
    rng = np.random.default_rng(0)
    yield rng.normal(size=shape).astype(np.float32)
    yield rng.integers(-1, 2, shape).astype(np.float32)
    yield rng.choice(np.array([0, 1, -1, np.nan, np.inf, -np.inf], np.float32), shape)
    yield np.full(shape, -np.inf, np.float32)


def _with_gaps(array: np.ndarray) -> np.ndarray:
    """The same values in a reversed view of every other element."""
    room = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    view = room[..., ::-2]
    view[...] = array
    return view


def _expect_equal(module: _Under, name: str, where: str, arrays: list[np.ndarray], *rest: Any) -> None:
    def equal(found: np.ndarray, expected: np.ndarray, err_msg: str) -> None:
        # NumPy's comparison knows no NaN of bfloat16.
        np.testing.assert_array_equal(widened(found), widened(rounded(expected, module.dtype)), err_msg)

    _expect(module, name, where, arrays, rest, equal)


def _expect_sum_of_shares(
    module: _Under, name: str, where: str, dy: np.ndarray, x_shape: tuple[int, ...], *rest: Any, exact: bool
) -> None:
    """Each division and each addition rounds once, relative to the sum of |share|."""
    largest = getattr(reference, name)(np.abs(dy).astype(np.float64), x_shape, *rest)  # integers, of 16 bits too
    bound = 0.0 if exact else np.abs(largest) * (_MOST_WINDOWS + 1) * 2.0**-24

    def close(found: np.ndarray, expected: np.ndarray, err_msg: str) -> None:
        assert found.shape == expected.shape, err_msg
        errors = np.abs(found.astype(np.float64) - expected)
        errors -= half_unit(np.abs(expected) + bound, module.dtype)
        assert (errors <= bound).all(), f"{err_msg}: an error of {errors.max():.3g}"

    _expect(module, name, where, [dy], (x_shape, *rest), close)


def _expect(
    under: _Under, name: str, where: str, arrays: list[np.ndarray], rest: tuple[Any, ...], compare: Callable[..., None]
) -> None:
    where, module = f"{where}, {name}{rest}", under.module
    arrays = [rounded(array, under.dtype) for array in arrays]
    expected = _results(getattr(reference, name)(*map(widened, arrays), *rest))
    before = [array.tobytes() for array in arrays]
    runs = [_results(getattr(module, name)(*given, *rest)) for given in (arrays, arrays, list(map(_with_gaps, arrays)))]
    assert before == [array.tobytes() for array in arrays], f"{where}: an input was modified"
    for found in runs:
        assert len(found) == len(expected), where
        for one, same, wanted in zip(found, runs[0], expected, strict=True):
            assert one.dtype == rounded(wanted, under.dtype).dtype, f"{where}: dtype {one.dtype}"
            assert one.flags.c_contiguous, f"{where}: not C-contiguous"
            assert one.tobytes() == same.tobytes(), f"{where}: two runs differ"
            compare(one, wanted, err_msg=where)


def _results(result: Any) -> list[np.ndarray]:
    return [array for array in (result if isinstance(result, tuple) else (result,)) if array is not None]
