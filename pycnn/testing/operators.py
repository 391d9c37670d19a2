"""Every operator that is no convolution and no pooling: cases of it, and one call that holds a backend to the oracle.

>>> [case.name for case in operators("lrn_fwd")]
['lrn_fwd: alexnet', 'lrn_fwd: even window']
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from pycnn import backends
from pycnn.backends import reference
from pycnn.memory_format import is_dense, new_array
from pycnn.testing.halves import half_unit, in_dtype, rounded, widened

__all__ = ["Case", "check_operator", "operators"]

Arguments = tuple[Any, ...]
Shape = tuple[int, ...]

_UNIT = 2.0**-24  # half the distance from 1 to the next float32

_FLOAT32_ALONE = ("philox_uint32",)

# Results with one value a channel, which are float32 for arrays of 16 bits.
_PER_CHANNEL = {"channel_sum": (0,), "batch_norm_fwd": (1, 2), "batch_norm_bwd": (1, 2)}


@dataclass(frozen=True)
class Case:
    """One call of one backend function.

    Attributes:
        function: the backend's function.
        about: what the arguments are like.
        arguments: makes them, the same in every run.
        factor: the largest error allowed, in units of 2^-24 times the largest magnitude of the result; 0: none at all.
    """

    function: str
    about: str
    arguments: Callable[[], Arguments]
    factor: float = 0.0

    @property
    def name(self) -> str:
        """What it is, unique."""
        return f"{self.function}: {self.about}"


def operators(*functions: str, dtype: Any = np.float32) -> list[Case]:
    """The cases of these functions, all of them where none is named, that there are in `dtype`."""
    without = () if np.dtype(dtype) == np.float32 else _FLOAT32_ALONE
    return [case for case in _CASES if case.function not in without and (not functions or case.function in functions)]


def check_operator(backend: str | ModuleType, case: Case, dtype: Any = np.float32) -> None:
    """Assert that a backend's result is the oracle's, within the case's bound, NaN and infinities in the same places.

    Also: the inputs keep their bytes, a second call gives the same bits, and the result is fresh, dense and of `dtype`.

    Args:
        backend: a name ("cpu", "cuda", ...) or a module that has the backends' functions.
        case: one of `operators`.
        dtype: float32; for a backend whose kernels read them also float16 or bfloat16, to which the case's arrays are
            then rounded, and to which the result is: its one rounding more is allowed.

    Raises:
        AssertionError: naming the backend, the case and the worst element.

    >>> check_operator("cpu", operators("softmax_fwd")[0])
    """
    module = backends.get(backend) if isinstance(backend, str) else backend
    dtype = np.dtype(dtype)
    arguments = case.arguments() if dtype == np.float32 else in_dtype(case.arguments(), dtype)
    before = _bytes(arguments)
    found, again = (_several(getattr(module, case.function)(*arguments)) for _ in range(2))
    where = f"{module.__name__} {case.name}" + ("" if dtype == np.float32 else f" in {dtype}")
    assert _bytes(arguments) == before, f"{where}: an input was modified"
    expected = _several(getattr(reference, case.function)(*map(widened, arguments)))
    assert len(found) == len(expected), f"{where}: {len(found)} results, expected {len(expected)}"
    for number, (y, second, right) in enumerate(zip(found, again, expected, strict=True)):
        narrow = right.dtype == np.float32 and number not in _PER_CHANNEL.get(case.function, ())
        _compare(y, second, right, dtype if narrow else right.dtype, case.factor, f"{where}, result {number}")


def _compare(
    y: np.ndarray, again: np.ndarray, right: np.ndarray, dtype: np.dtype[Any], factor: float, where: str
) -> None:
    stored = rounded(right, dtype)
    assert (y.shape, y.dtype) == (stored.shape, dtype), f"{where}: {y.dtype} {y.shape}, not {right.shape}"
    assert is_dense(y), f"{where}: the result is not dense"
    assert y.tobytes() == again.tobytes(), f"{where}: two runs differ"
    if factor == 0:
        wrong = int((~((y == stored) | ((y != y) & (stored != stored)))).sum())
        assert wrong == 0, f"{where}: {wrong} of {y.size} elements differ"
        return
    plain = np.isfinite(stored)
    unlike = y[~plain].astype(np.float32), stored[~plain].astype(np.float32)
    assert np.array_equal(*unlike, equal_nan=True), f"{where}: NaN or infinities elsewhere"
    scale = float(np.abs(right[plain]).max(initial=0.0))
    bound = factor * _UNIT * scale
    errors = np.abs(y[plain].astype(np.float64) - right[plain])
    errors[np.isnan(errors)] = np.inf
    errors = np.maximum(errors - half_unit(np.abs(right[plain]) + bound, dtype), 0.0)
    worst = float(errors.max(initial=0.0))
    assert worst <= bound, f"{where}: an error of {worst:.3g} exceeds the bound {bound:.3g}"


def _several(result: Any) -> tuple[np.ndarray, ...]:
    return tuple(result) if isinstance(result, tuple) else (result,)


def _bytes(arguments: Arguments) -> list[bytes]:
    found: list[bytes] = []
    for value in arguments:
        if isinstance(value, np.ndarray):
            found.append(value.tobytes())
        elif isinstance(value, (list, tuple)):
            found += _bytes(tuple(value))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Operands


def _normal(*shape: int, seed: int = 0, mean: float = 0.0, spread: float = 1.0) -> np.ndarray:
    return (mean + spread * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _whole(*shape: int, seed: int = 0, most: int = 9) -> np.ndarray:
    """Small integers, whose sums and products are exact."""
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(np.float32)


def _special(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers among which are NaN, both infinities, both zeros, the largest and the smallest."""
    x = _normal(*shape, seed=seed)
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3.4e38, -3.4e38, 1e-38, 90.0, -90.0], np.float32)
    places = np.random.default_rng(seed).choice(x.size, min(x.size, 2 * values.size), replace=False)
    x.ravel()[places] = np.resize(values, places.size)
    return x


def _classes(*shape: int, classes: int, ignored: int = -100, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.2, ignored, rng.integers(0, classes, shape)).astype(np.int64)


def _gap(array: np.ndarray) -> np.ndarray:
    """The same values in an array with gaps."""
    room = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    room[..., ::2] = array
    return room[..., ::2]


def _last(array: np.ndarray) -> np.ndarray:
    """The same values in an array that lies channels-last."""
    placed = new_array(np.empty, array.shape, array.dtype, True)
    placed[...] = array
    return placed


def _statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    axes = (0, *range(2, x.ndim))
    return x.mean(axes, dtype=np.float64).astype(np.float32), x.var(axes, dtype=np.float64).astype(np.float32)


def _batch_norm_bwd(*shape: int, mean: float = 0.0, weight: bool = True) -> Arguments:
    x, c = _normal(*shape, seed=1, mean=mean), shape[1]
    return (_normal(*shape, seed=2), x, _normal(c, seed=3) if weight else None, *_statistics(x), 1e-5)


# Factors with their reasons.  One function of the mathematical library: CUDA's and libm's own errors are up to 2 units
# in the last place (CUDA C++ Programming Guide, "Mathematical Functions", table of maximum errors), a unit being
# 2 * 2^-24 of the value, and a product or quotient or two come on top.
_FUNCTION = 12.0
# Sums of terms of which each carries such errors, added in some sixteen or more partial sums: they partly cancel.
_SUM = 40.0
# Differences of such sums, divided by a deviation.
_STATISTICS = 100.0


def _activations() -> Iterator[Case]:
    shapes: dict[str, Shape] = {"plane": (2, 3, 9, 11), "one": (1,), "long": (40_001,), "empty": (0, 3, 2)}
    for name, factor in (("relu", 0.0), ("tanh", _FUNCTION), ("sigmoid", _FUNCTION)):
        for about, shape in shapes.items():
            yield Case(f"{name}_fwd", about, partial(_on_normal, shape), factor)
        yield Case(
            f"{name}_bwd", "plane", lambda: (_normal(2, 3, 9, 11), np.tanh(_normal(2, 3, 9, 11, seed=1))), factor / 3
        )


def _softmaxes() -> Iterator[Case]:
    asked: dict[str, tuple[Shape, int, float]] = {
        "classes": ((5, 10), 1, 1.0),
        "many classes": ((3, 1000), 1, 5.0),
        "inner axis": ((2, 7, 5, 6), 1, 1.0),
        "first axis": ((9, 33), 0, 1.0),
        "one class": ((4, 1), 1, 1.0),
        "large scores": ((3, 40), 1, 1e4),
        "empty": ((0, 10), 1, 1.0),
    }
    for name in ("softmax", "log_softmax"):
        for about, (shape, axis, spread) in asked.items():
            yield Case(f"{name}_fwd", about, partial(_on_normal, shape, axis, spread=spread), _SUM)
            if spread < 100:
                forward = getattr(reference, f"{name}_fwd")
                yield Case(f"{name}_bwd", about, partial(_softmax_bwd, forward, shape, axis), _SUM)


def _losses() -> Iterator[Case]:
    for reduction in ("none", "mean", "sum"):
        for about, weights, images in (("weights", True, 9), ("plain", False, 400)):
            for function in (_nll_fwd, _nll_bwd):
                arguments = partial(function, reduction, weights, images)
                yield Case(function.__name__[1:], f"{reduction}, {about}", arguments, _SUM)


def _on_normal(shape: Shape, *settings: Any, spread: float = 1.0) -> Arguments:
    return (_normal(*shape, spread=spread), *settings)


def _softmax_bwd(forward: Callable[..., np.ndarray], shape: Shape, axis: int) -> Arguments:
    return (_normal(*shape), forward(_normal(*shape, seed=1), axis), axis)


def _nll_fwd(reduction: str, weights: bool, images: int) -> Arguments:
    weight = abs(_normal(10, seed=2)) if weights else None
    return (_normal(images, 10, 3, mean=-2.0), _classes(images, 3, classes=10), weight, -100, reduction)


def _nll_bwd(reduction: str, weights: bool, images: int) -> Arguments:
    dy = _normal(images, 3) if reduction == "none" else _normal(1).reshape(())
    weight = abs(_normal(10, seed=2)) if weights else None
    return (dy, _classes(images, 3, classes=10), weight, (images, 10, 3), -100, reduction)


def _channels_last() -> Iterator[Case]:
    """Whole vectors of channels, and channels that are none."""
    for about, shape in (("vectors", (3, 24, 9, 11)), ("odd", (3, 5, 9, 11))):
        c = shape[1]
        yield Case("relu_fwd", f"channels-last, {about}", partial(_on_last, _special, shape))
        yield Case("dropout", f"channels-last, {about}", partial(_on_last, _normal, shape, 0.5, 2**40 + 3, 17))
        yield Case("channel_sum", f"channels-last, {about}", partial(_on_last, _whole, shape))
        yield Case("pad2d", f"channels-last, {about}", partial(_on_last, _special, shape, (1, 0, 2, 3), -1.5))
        yield Case("softmax_fwd", f"channels-last, {about}", partial(_on_last, _normal, shape, 1), _SUM)
        yield Case(
            "channel_affine",
            f"channels-last, {about}",
            partial(_on_last, _whole, shape, _whole(c, seed=1), _whole(c, seed=2)),
        )
        yield Case(
            "batch_norm_fwd",
            f"channels-last, residual, relu, {about}",
            partial(_batch_norm_fwd_last, *shape),
            _STATISTICS,
        )
        yield Case("batch_norm_bwd", f"channels-last, {about}", partial(_batch_norm_bwd_last, *shape), _STATISTICS)
    yield Case("concat", "channels-last", lambda: ([_last(_special(2, c, 5, 7, seed=c)) for c in (8, 1, 16)], 1))


def _on_last(values: Callable[..., np.ndarray], shape: Shape, *settings: Any) -> Arguments:
    return (_last(values(*shape)), *settings)


def _batch_norm_fwd_last(*shape: int) -> Arguments:
    weight, bias = _normal(shape[1], seed=1), _normal(shape[1], seed=2)
    return (_last(_normal(*shape)), weight, bias, 1e-5, _last(_normal(*shape, seed=3)), True)


def _batch_norm_bwd_last(*shape: int) -> Arguments:
    dy, x, *rest = _batch_norm_bwd(*shape)
    return (_last(dy), _last(x), *rest)


_CASES: tuple[Case, ...] = (
    *_activations(),
    *_softmaxes(),
    *_losses(),
    Case("relu_fwd", "special", lambda: (_special(5, 31),)),
    Case("relu_bwd", "gaps", lambda: (_gap(_normal(3, 5, 7)), _gap(_normal(3, 5, 7, seed=1)))),
    Case("add", "special", lambda: (_special(3, 5, 17), _special(3, 5, 17, seed=1))),
    Case("add", "long, gaps", lambda: (_gap(_normal(7, 4001)), _normal(7, 4001, seed=1))),
    Case("lrn_fwd", "alexnet", lambda: (_normal(2, 20, 5, 7, spread=30.0), 5, 1e-4, 0.75, 2.0), _SUM),
    Case("lrn_fwd", "even window", lambda: (_normal(1, 3, 40), 4, 0.1, 0.5, 1.0), _SUM),
    Case(
        "lrn_bwd",
        "alexnet",
        lambda: (_normal(2, 20, 5, 7), _normal(2, 20, 5, 7, seed=1, spread=30.0), 5, 1e-4, 0.75, 2.0),
        _SUM,
    ),
    Case("lrn_bwd", "even window", lambda: (_normal(1, 3, 40), _normal(1, 3, 40, seed=1), 4, 0.1, 0.5, 1.0), _SUM),
    Case("channel_sum", "integers", lambda: (_whole(5, 7, 11, 13),)),
    Case("channel_sum", "integers, many", lambda: (_whole(2, 3, 200, 301),)),
    Case("channel_sum", "rows", lambda: (_whole(300, 17),)),
    Case("channel_sum", "no images", lambda: (_whole(0, 4, 3, 3),)),
    Case(
        "batch_norm_fwd",
        "plane",
        lambda: (_normal(3, 5, 9, 11), _normal(5, seed=1), _normal(5, seed=2), 1e-5),
        _STATISTICS,
    ),
    Case("batch_norm_fwd", "rows, no weight", lambda: (_normal(64, 9), None, None, 1e-5), _STATISTICS),
    # The mean is 300 times the deviation: a sum of squares minus the square of the sum would keep 7 bits of it.
    Case("batch_norm_fwd", "far from zero", lambda: (_normal(4, 3, 40, 41, mean=300.0), None, None, 1e-5), 3e4),
    Case(
        "batch_norm_fwd",
        "residual, relu",
        lambda: (
            *(_normal(3, 5, 9, 11), _normal(5, seed=1), _normal(5, seed=2), 1e-5),
            *(_normal(3, 5, 9, 11, seed=3), True),
        ),
        _STATISTICS,
    ),
    Case(
        "batch_norm_bwd",
        "relu",
        lambda: (*_batch_norm_bwd(3, 5, 9, 11), np.maximum(_normal(3, 5, 9, 11, seed=4), 0)),
        _STATISTICS,
    ),
    Case("batch_norm_bwd", "plane", lambda: _batch_norm_bwd(3, 5, 9, 11), _STATISTICS),
    Case("batch_norm_bwd", "rows, no weight", lambda: _batch_norm_bwd(64, 9, weight=False), _STATISTICS),
    Case(
        "batch_norm_eval",
        "plane",
        lambda: (_normal(2, 5, 9, 7), _normal(5, seed=1), abs(_normal(5, seed=2)), _normal(5, seed=3), None, 1e-5),
        _FUNCTION,
    ),
    Case("channel_affine", "integers", lambda: (_whole(2, 5, 9, 7), _whole(5, seed=1), _whole(5, seed=2))),
    Case("channel_affine", "shift alone", lambda: (_whole(3, 4), None, _whole(4, seed=2))),
    Case("pad2d", "sides differ", lambda: (_special(2, 3, 5, 7), (1, 0, 2, 3), -1.5)),
    Case("pad2d", "none", lambda: (_normal(1, 2, 3, 5), (0, 0, 0, 0), 0.0)),
    Case("concat", "channels", lambda: ([_special(2, c, 5, 7, seed=c) for c in (3, 1, 4)], 1)),
    Case("concat", "images, gaps", lambda: ([_gap(_normal(n, 3, 5)) for n in (1, 2)], 0)),
    Case("concat", "last axis", lambda: ([_normal(4, n) for n in (5, 3, 9)], 1)),
    Case("dropout", "half", lambda: (_normal(3, 5, 7, 11), 0.5, 2**40 + 3, 17)),
    Case("dropout", "all", lambda: (_normal(3, 5), 1.0, 1, 0)),
    Case("dropout", "carry into the upper counter", lambda: (_normal(1001), 0.75, 2**64 - 1, 2**64 - 3)),
    Case("philox_uint32", "words", lambda: (1003, 0x299F31D0A4093822, 2**64 - 2)),
    Case("gemm", "integers", lambda: (_whole(37, 65), _whole(65, 21, seed=1), False, False)),
    Case("gemm", "transposed", lambda: (_whole(65, 37), _whole(21, 65, seed=1), True, True)),
    Case("gemm", "first transposed", lambda: (_whole(72, 40), _whole(72, 136, seed=1), True, False)),
    Case("gemm", "second transposed", lambda: (_whole(130, 400), _whole(24, 400, seed=1), False, True)),
    Case("gemm", "empty sum", lambda: (_whole(3, 0), _whole(0, 5), False, False)),
    Case("linear_fwd", "integers", lambda: (_whole(5, 400), _whole(120, 400, seed=1), _whole(120, seed=2))),
    Case("linear_fwd", "no bias", lambda: (_whole(129, 33), _whole(70, 33, seed=1), None)),
    *_channels_last(),
)
