"""The engine's pooling against the reference: windows of every form, bit-equal maxima and indices, bad indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cpu_engine import DTYPES, check, close, instruction_sets

import pycnn
from pycnn import _cpu, ops
from pycnn.backends import cpu, reference
from pycnn.shape import Pool2dShape

Config = tuple[
    tuple[int, int, int, int], tuple[int, int], tuple[int, int], tuple[int, int, int, int], tuple[int, int], bool
]

NAMED: list[Config] = [
    ((2, 3, 112, 112), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), False),  # ResNet's stem
    ((1, 5, 55, 55), (3, 3), (2, 2), (0, 0, 0, 0), (1, 1), False),  # AlexNet
    ((1, 4, 28, 28), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), False),  # inception
    ((1, 7, 7, 7), (7, 7), (1, 1), (0, 0, 0, 0), (1, 1), False),  # a whole plane
    ((1, 2, 14, 14), (3, 3), (2, 2), (0, 0, 0, 0), (1, 1), True),
    ((3, 1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), False),
    ((0, 2, 5, 5), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), False),
    ((1, 1, 9, 300), (5, 13), (1, 1), (2, 2, 6, 6), (1, 1), False),
    ((1, 1, 5, 700), (1, 2), (1, 5), (0, 0, 1, 1), (1, 3), False),
    ((2, 2, 40, 33), (3, 2), (5, 4), (1, 0, 0, 1), (2, 1), False),  # windows further apart than they are wide
    ((1, 1, 300, 120), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), False),  # several blocks of rows
    ((1, 1, 3, 9), (2, 2), (1, 1), (1, 1, 1, 1), (4, 4), False),  # windows that step over the whole image
]


def random_configs(count: int) -> Iterator[Config]:
    rng = np.random.default_rng(7)
    made = 0
    while made < count:
        kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
        padding = tuple(int(rng.integers(0, kernel[i // 2] // 2 + 1)) for i in range(4))
        config: Config = (
            (int(rng.integers(1, 3)), int(rng.integers(1, 4)), int(rng.integers(1, 20)), int(rng.integers(1, 45))),
            kernel,
            (int(rng.integers(1, 5)), int(rng.integers(1, 5))),
            (padding[0], padding[1], padding[2], padding[3]),
            (int(rng.integers(1, 4)), int(rng.integers(1, 4))),
            bool(rng.integers(2)),
        )
        try:
            Pool2dShape(*config[0], *config[1:])
        except ValueError:
            continue
        made += 1
        yield config


CONFIGS = [*NAMED, *random_configs(60)]
ADAPTIVE = [
    ((2, 3, 7, 7), (1, 1)),
    ((1, 5, 13, 13), (6, 6)),
    ((1, 2, 5, 64), (5, 8)),
    ((2, 1, 3, 40), (7, 9)),
    ((1, 1, 1, 1), (2, 3)),
    ((0, 1, 4, 4), (2, 2)),
    ((1, 3, 30, 30), (4, 7)),
]


ONE = np.ones((1, 2, 4, 4), np.float32)
INDEX = np.zeros((1, 2, 2, 2), np.int64)


def images(shape: tuple[int, ...], dtype: type, seed: int) -> Iterator[np.ndarray]:
    """Normal values; few integers, so that many are equal; NaN and both infinities among them; -inf alone."""
    rng = np.random.default_rng(seed)
    yield rng.normal(size=shape).astype(dtype)
    yield rng.integers(-1, 2, shape).astype(dtype)
    yield rng.choice(np.array([0, 1, -1, np.nan, np.inf, -np.inf], dtype), shape)
    yield np.full(shape, -np.inf, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_max_pool_equals_reference_bit_for_bit(dtype: type) -> None:
    for _ in instruction_sets():
        for seed, (shape, *window) in enumerate(CONFIGS):
            for x in images(shape, dtype, seed):
                y, indices = check(lambda x, window=window: cpu.max_pool2d_fwd(x, *window), x)
                expected, places = reference.max_pool2d_fwd(x, *window)
                np.testing.assert_array_equal(y, expected, err_msg=str((shape, window)))
                np.testing.assert_array_equal(indices, places, err_msg=str((shape, window)))
                (alone,) = check(lambda x, window=window: cpu.max_pool2d_fwd(x, *window, False)[0], x)
                assert alone.tobytes() == y.tobytes(), (shape, window)


@pytest.mark.parametrize("dtype", DTYPES)
def test_adaptive_max_pool_equals_reference_bit_for_bit(dtype: type) -> None:
    for _ in instruction_sets():
        for seed, (shape, out) in enumerate(ADAPTIVE):
            for x in images(shape, dtype, seed):
                y, indices = check(lambda x, out=out: cpu.adaptive_max_pool2d_fwd(x, out), x)
                expected, places = reference.adaptive_max_pool2d_fwd(x, out)
                np.testing.assert_array_equal(y, expected)
                np.testing.assert_array_equal(indices, places)
                (alone,) = check(lambda x, out=out: cpu.adaptive_max_pool2d_fwd(x, out, False)[0], x)
                assert alone.tobytes() == y.tobytes(), (shape, out)


@pytest.mark.parametrize("backend", ["reference", "cpu", "shapes"])
def test_max_pool_gives_indices_only_if_asked(backend: str) -> None:
    with pycnn.use_backend(backend):
        for function, how in ((ops.max_pool2d, 2), (ops.adaptive_max_pool2d, 3)):
            y, indices = function(ONE, how)
            alone, nothing = function(ONE, how, return_indices=False)
            assert indices is not None
            assert nothing is None
            np.testing.assert_array_equal(alone, y)


def test_max_pool_without_gradient_asks_for_no_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def forward(x: np.ndarray, *how: object) -> tuple[np.ndarray, np.ndarray | None]:
        asked.append(how[-1])
        return reference.max_pool2d_fwd(x, *how)

    monkeypatch.setattr(cpu, "max_pool2d_fwd", forward)
    x = pycnn.Tensor(ONE, requires_grad=True)
    pycnn.max_pool2d(ONE, 2)
    with pycnn.no_grad():
        pycnn.max_pool2d(x, 2)
    pycnn.max_pool2d(x, 2).sum().backward()
    pycnn.max_pool2d(ONE, 2, return_indices=True)
    assert asked == [False, False, True, True]
    assert float(x.grad.data.sum()) == 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_max_pool_backward_and_its_own_equal_reference(dtype: type) -> None:
    """On integers, whose sums are exact."""
    for seed, (shape, *window) in enumerate(CONFIGS):
        rng = np.random.default_rng(seed)
        x = rng.integers(-2, 3, shape).astype(dtype)
        y, indices = cpu.max_pool2d_fwd(x, *window)
        dy = rng.integers(-9, 10, y.shape).astype(dtype)
        rest = window[:-1]
        (dx,) = check(lambda dy, i, shape=shape, rest=rest: cpu.max_pool2d_bwd(dy, i, shape, *rest), dy, indices)
        np.testing.assert_array_equal(dx, reference.max_pool2d_bwd(dy, indices, shape, *rest))
        (taken,) = check(cpu.plane_take, x, indices)
        np.testing.assert_array_equal(taken, reference.plane_take(x, indices))
    for seed, (shape, out) in enumerate(ADAPTIVE):
        rng = np.random.default_rng(seed)
        y, indices = cpu.adaptive_max_pool2d_fwd(rng.integers(-2, 3, shape).astype(dtype), out)
        dy = rng.integers(-9, 10, y.shape).astype(dtype)
        np.testing.assert_array_equal(
            cpu.adaptive_max_pool2d_bwd(dy, indices, shape), reference.adaptive_max_pool2d_bwd(dy, indices, shape)
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count_include_pad", "divisor"), [(True, None), (False, None), (True, 7), (False, -2)])
def test_avg_pool_equals_reference(count_include_pad: bool, divisor: int | None, dtype: type) -> None:
    for _ in instruction_sets():
        for seed, (shape, kernel, stride, padding, dilation, ceil_mode) in enumerate(CONFIGS):
            if dilation != (1, 1):
                continue
            rng = np.random.default_rng(seed)
            rest = (kernel, stride, padding, ceil_mode, count_include_pad, divisor)
            # Integers: sums are exact, and what is left is the rounding of the division.
            x = rng.integers(-9, 10, shape).astype(dtype)
            (y,) = check(lambda x, rest=rest: cpu.avg_pool2d_fwd(x, *rest), x)
            close(y, reference.avg_pool2d_fwd(x.astype(np.float64), *rest), 2)
            dy = rng.normal(size=y.shape).astype(dtype)
            (dx,) = check(lambda dy, shape=shape, rest=rest: cpu.avg_pool2d_bwd(dy, shape, *rest), dy)
            # Sums of at most 65 shares of size 3, each rounded, where they overlap.
            close(dx, reference.avg_pool2d_bwd(dy.astype(np.float64), shape, *rest), 65, scale=3.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_adaptive_avg_pool_equals_reference(dtype: type) -> None:
    for _ in instruction_sets():
        for seed, (shape, out) in enumerate(ADAPTIVE):
            rng = np.random.default_rng(seed)
            x = rng.integers(-9, 10, shape).astype(dtype)
            (y,) = check(lambda x, out=out: cpu.adaptive_avg_pool2d_fwd(x, out), x)
            close(y, reference.adaptive_avg_pool2d_fwd(x.astype(np.float64), out), 2)
            dy = rng.normal(size=y.shape).astype(dtype)
            (dx,) = check(lambda dy, shape=shape: cpu.adaptive_avg_pool2d_bwd(dy, shape), dy)
            # Sums of at most 6 shares of size 3.
            close(dx, reference.adaptive_avg_pool2d_bwd(dy.astype(np.float64), shape), 12, scale=3.0)


def test_avg_pool_keeps_nan_and_infinity_inside_their_windows() -> None:
    x = np.zeros((1, 1, 5, 40), np.float32)
    x[0, 0, 2, 20] = np.nan
    x[0, 0, 0, 3] = np.inf
    for _ in instruction_sets():
        for kernel, stride in (((3, 3), (1, 1)), ((3, 3), (2, 2)), ((2, 5), (1, 3))):
            rest = (kernel, stride, (1, 1, 1, 1), False, True, None)
            np.testing.assert_array_equal(cpu.avg_pool2d_fwd(x, *rest), reference.avg_pool2d_fwd(x, *rest))


def test_max_pool_equals_torch_to_the_index() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(11)
    for _ in range(60):
        kernel, stride = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
        padding, dilation = rng.integers(0, kernel // 2 + 1), rng.integers(1, 3, 2)
        x = rng.choice(np.array([0, 1, 2, np.nan, -np.inf], np.float32), (2, 2, 14, 21))
        ceil_mode = bool(rng.integers(2))
        y, indices = torch.nn.functional.max_pool2d(
            torch.from_numpy(x), *(v.tolist() for v in (kernel, stride, padding, dilation)), ceil_mode, True
        )
        sides = (int(padding[0]), int(padding[0]), int(padding[1]), int(padding[1]))
        found = cpu.max_pool2d_fwd(
            x, *(tuple(v.tolist()) for v in (kernel, stride)), sides, tuple(dilation.tolist()), ceil_mode
        )
        np.testing.assert_array_equal(found[0], y.numpy())
        np.testing.assert_array_equal(found[1], indices.numpy())


@pytest.mark.parametrize("bad", [-2, 12, 10**9, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 1, 1, 1)])
def test_an_index_outside_its_plane_raises(bad: int, place: tuple[int, ...]) -> None:
    indices = np.zeros((2, 2, 2, 2), np.int64)
    indices[place] = bad
    for backend in (cpu, reference):
        with pytest.raises(IndexError, match="indices must be flat positions inside their plane"):
            backend.max_pool2d_bwd(np.ones(indices.shape), indices, (2, 2, 3, 4), (2, 2), (1, 1), (0, 0, 0, 0), (1, 1))
        with pytest.raises(IndexError, match="indices must be flat positions inside their plane"):
            backend.adaptive_max_pool2d_bwd(np.ones(indices.shape), indices, (2, 2, 3, 4))
        with pytest.raises(IndexError, match="indices must be flat positions inside their plane"):
            backend.plane_take(np.ones((2, 2, 3, 4)), indices)
    with pytest.raises(ValueError, match=f"indices must be between -1 and 11 for planes of 3x4, got .*{bad}"):
        ops.plane_take(np.ones((2, 2, 3, 4)), indices)


@pytest.mark.parametrize(
    "call",
    [
        lambda: _cpu.max_pool2d_fwd(ONE[0].copy(), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), (2, 2), True),
        lambda: _cpu.max_pool2d_fwd(ONE, (0, 2), (2, 2), (0, 0, 0, 0), (1, 1), (2, 2), True),
        lambda: _cpu.max_pool2d_fwd(ONE, (2, 2), (0, 2), (0, 0, 0, 0), (1, 1), (2, 2), True),
        lambda: _cpu.max_pool2d_fwd(ONE, (2, 2), (2, 2), (-1, 0, 0, 0), (1, 1), (2, 2), True),
        lambda: _cpu.max_pool2d_fwd(ONE, (2, 2), (2, 2), (0, 0, 0, 0), (0, 1), (2, 2), True),
        lambda: _cpu.max_pool2d_fwd(ONE, (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), (-1, 2), True),
        lambda: _cpu.max_pool2d_fwd(ONE, (2**62, 2), (2, 2), (0, 0, 0, 0), (1, 1), (2, 2), True),
        lambda: _cpu.max_pool2d_fwd(ONE, (2, 2), (2, 2), (0, 0, 0, 0), (2**33, 1), (2, 2), True),
        lambda: _cpu.avg_pool2d_fwd(ONE, (2, 2), (2, 2), (0, 0, 0, 0), (2, 2), True, 0),
        lambda: _cpu.avg_pool2d_bwd(ONE, (2, 2, 8, 8), (2, 2), (2, 2), (0, 0, 0, 0), True, None),
        lambda: _cpu.adaptive_avg_pool2d_fwd(ONE, (0, 1)),
        lambda: _cpu.adaptive_max_pool2d_fwd(ONE, (1, -1), False),
        lambda: _cpu.adaptive_avg_pool2d_bwd(ONE, (1, 3, 8, 8)),
        lambda: _cpu.plane_add(ONE, INDEX, (1, 2, 4, 4)),
        lambda: _cpu.plane_add(ONE, np.zeros(ONE.shape, np.int64), (1, 3, 4, 4)),
        lambda: _cpu.plane_add(ONE, np.zeros(ONE.shape, np.int64), (1, 2, -4, 4)),
        lambda: _cpu.plane_take(ONE, np.zeros((1, 3, 2, 2), np.int64)),
    ],
)
def test_bad_problems_raise(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words; that none crashes is what matters
        call()


def test_indices_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError):
        _cpu.plane_take(ONE, INDEX.astype(np.int32))
