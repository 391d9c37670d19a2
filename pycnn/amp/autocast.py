"""`autocast`: a block in which operations are computed in the dtypes that the policy says."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import Token
from typing import Any

import numpy as np

from pycnn._extras import extra
from pycnn.amp.policy import POLICY
from pycnn.arrays import is_array
from pycnn.backends.replay import active
from pycnn.graph import Caster, Function, Variable, caster, is_grad_enabled
from pycnn.large import cast
from pycnn.movement import Cast

__all__ = ["autocast"]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


class autocast:
    """Compute in mixed precision: a context manager, or a decorator as ``@autocast("bfloat16")``.

    Operations on Tensors are computed in the dtypes that `pycnn.amp.policy` says; operands are converted on the way, by
    recorded operations whose gradients come back in the dtype of the operand.  What is given as arrays alone is left as
    it is.  A parameter that is used several times in a block is rounded once, as long as it does not change.  Holds
    for the current thread; blocks nest, and the innermost decides.  Inside `pycnn.compile` nothing is converted.

    Args:
        dtype: "float16" or "bfloat16" (which needs the package ml_dtypes), by name or as NumPy's dtype.
        enabled: False computes in the dtypes that are given, inside an outer block too.

    Raises:
        ValueError: another dtype.
        ModuleNotFoundError: bfloat16 without ml_dtypes.
        TypeError: it decorates a generator.

    Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018.

    >>> import pycnn
    >>> w = pycnn.ones(2, 3, requires_grad=True)
    >>> with autocast("float16"):
    ...     y = pycnn.linear(pycnn.ones(4, 3), w)
    >>> y.dtype
    dtype('float16')
    >>> y.sum().backward()
    >>> w.grad.dtype
    dtype('float32')
    """

    def __init__(self, dtype: Any = "float16", enabled: bool = True) -> None:
        self.dtype = _low(dtype)
        self.enabled = bool(enabled)
        self._entered: list[tuple[_Casts | None, Token[Caster | None]]] = []

    def __enter__(self) -> autocast:
        casts = _Casts(self.dtype) if self.enabled else None
        self._entered.append((casts, caster.set(casts)))
        return self

    def __exit__(self, *exc: object) -> None:
        casts, token = self._entered.pop()
        caster.reset(token)
        if casts is not None:
            casts.close()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function):
            raise TypeError(f"autocast cannot decorate the generator {function.__qualname__}")

        @functools.wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            with autocast(self.dtype, self.enabled):
                return function(*args, **options)

        return wrapped


class _Casts:
    """What one block does to operands; see `pycnn.graph.Caster`."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        # Rounded parameters: by parameter and whether a gradient is wanted, with the version that was rounded.
        self._rounded: dict[tuple[int, bool], tuple[Any, int, Any]] | None = {}
        # A step that is captured has to round for itself: what was rounded before it is not part of the graph.
        self._replay = active()

    def close(self) -> None:
        """The block has ended; a checkpointed segment of it may still be run again, and then keeps nothing."""
        self._rounded = None

    def cast(self, function: type[Function], args: tuple[Any, ...]) -> tuple[Any, ...]:
        """See `pycnn.graph.Caster`."""
        rule = POLICY.get(function, "input")
        if rule == "input" or not any(isinstance(arg, Variable) for arg in args):
            return args
        dtypes = [_floating(arg) for arg in (args[:2] if rule == "low" else args)]
        found = {dtype for dtype in dtypes if dtype is not None}
        if rule == "low":
            wanted = None if _FLOAT64 in found else self._dtype
        elif rule == "float32":
            dtypes = [None if dtype == _FLOAT64 else dtype for dtype in dtypes]
            wanted = _FLOAT32
        else:
            wanted = None if len(found) < 2 else _FLOAT64 if _FLOAT64 in found else _FLOAT32
        if wanted is None or found <= {wanted}:
            return args
        converted = list(args)
        for i, dtype in enumerate(dtypes):
            if dtype is not None and dtype != wanted:
                converted[i] = self._cast(args[i], wanted)
        return tuple(converted)

    def _cast(self, operand: Any, dtype: np.dtype[Any]) -> Any:
        if not isinstance(operand, Variable):
            return cast(operand, dtype)
        rounded = self._rounded
        is_parameter = operand._requires_grad and operand._node is None
        if rounded is None or not is_parameter or dtype != self._dtype or active() is not self._replay:
            return Cast.apply(operand, dtype)
        key = id(operand), is_grad_enabled()
        known = rounded.get(key)
        if known is None or known[1] != operand._versions.version:
            known = rounded[key] = operand, operand._versions.version, Cast.apply(operand, dtype)
        return known[2]


def _floating(arg: Any) -> np.dtype[Any] | None:
    """The dtype of a Tensor or array of floating numbers, or None."""
    array = arg._data if isinstance(arg, Variable) else arg
    if not is_array(array) or array.dtype.kind not in "fV":
        return None
    dtype: np.dtype[Any] = array.dtype
    return dtype


def _low(dtype: Any) -> np.dtype[Any]:
    if str(dtype) == "bfloat16":
        with extra("train", "bfloat16's package ml_dtypes"):
            import ml_dtypes
        return np.dtype(ml_dtypes.bfloat16)
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in ("float16", "bfloat16"):
        raise ValueError(f"dtype must be float16 or bfloat16, got {dtype!r}")
    return found
