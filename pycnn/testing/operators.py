"""Every operator that is no convolution and no pooling: cases of it, and one call that holds a backend to the oracle.

>>> [case.name for case in operators("lrn_fwd")]
['lrn_fwd: alexnet', 'lrn_fwd: even window']
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from pycnn import backends
from pycnn.backends import reference
from pycnn.memory_format import is_dense
from pycnn.testing.cases import CASES, Case
from pycnn.testing.halves import half_unit, in_dtype, rounded, widened

__all__ = ["Case", "check_operator", "operators"]

Arguments = tuple[Any, ...]
Shape = tuple[int, ...]

_UNIT = 2.0**-24  # half the distance from 1 to the next float32

_FLOAT32_ALONE = ("philox_uint32", "sample_fwd", "sample_dx", "sample_dw", "roi_max", "nms")

# Results with one value a channel, which are float32 for arrays of 16 bits.
_PER_CHANNEL = {"channel_sum": (0,), "batch_norm_fwd": (1, 2), "batch_norm_bwd": (1, 2)}
_PER_CHANNEL |= {"group_norm_fwd": (1, 2), "group_norm_bwd": (1, 2)}


def operators(*functions: str, dtype: Any = np.float32) -> list[Case]:
    """The cases of these functions, all of them where none is named, that there are in `dtype`."""
    without = () if np.dtype(dtype) == np.float32 else _FLOAT32_ALONE
    return [case for case in CASES if case.function not in without and (not functions or case.function in functions)]


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
