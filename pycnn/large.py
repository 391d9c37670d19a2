"""What Tensors do with whole arrays: by the CPU engine where these are large and dense, else by their own library.

Arrays of 16 bits on a GPU are added, converted and multiplied as matrices by our own kernels: CuPy knows bfloat16 in
parts.  So are channels-last ones added and joined.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import backends
from pycnn.arrays import is_array, is_half, is_host, module_of
from pycnn.backends import cpu
from pycnn.backends.cpu import half
from pycnn.memory_format import wants_channels_last

__all__ = ["add_to", "by_element", "cast", "concatenate", "plus", "product"]

Array = Any

# Elements from which several threads, and memory that is kept for reuse, gain more than the engine's call costs over
# NumPy's.
_LARGE = 32768
_STORED = {"float32", "float16", "bfloat16"}  # what kernels convert on a GPU
_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def plus(a: Array, b: Array) -> Array:
    """a + b."""
    if _are_halves(a, b):
        return _sum_of_halves(a, b)
    if _are_channels_last(a, b):
        return backends.get("cuda").add(a, b)
    return cpu.add(a, b) if _is_large(a) and _is_like(b, a) and a.shape == b.shape else by_element(operator.add, a, b)


def add_to(a: Array, b: Array) -> None:
    """a += b."""
    if _are_halves(a, b):
        a[...] = _sum_of_halves(a, b)
        return
    alike = _is_large(a) and _is_like(b, a) and a.shape == b.shape
    if alike and (a is b or not np.may_share_memory(a, b)):  # the engine does not look for overlaps
        cpu.add_to(a, b)
    else:
        a += b


def by_element(function: Callable[..., Array], *operands: Any) -> Array:
    """``function(*operands)`` of NumPy's or CuPy's, element by element; channels-last where operands on a GPU are.

    CuPy's own results come in C order; so it is shown channels-last arrays with their axes in the order of memory.
    """
    if type(operands[0]) is np.ndarray:
        return function(*operands)
    images = [one for one in operands if getattr(one, "ndim", 0) == 4]
    others = any(getattr(one, "ndim", 0) not in (0, 4) for one in operands)
    if not images or others or not all(map(_is_on_a_gpu, images)) or not wants_channels_last(*images):
        return function(*operands)
    views = [one.transpose(0, 2, 3, 1) if getattr(one, "ndim", 0) else one for one in operands]
    return function(*views).transpose(0, 3, 1, 2)


def product(a: Array, b: Array) -> Array:
    """a @ b; sums of 16 bits are kept in float32 and rounded once."""
    if not is_half(a) or a.dtype != b.dtype:
        return a @ b
    if not is_host(a) and a.ndim == b.ndim == 2:
        return backends.get("cuda").gemm(a, b, False, False)
    if not is_host(a) and a.dtype == np.float16:
        return a @ b
    wide = cast(a, np.float32) @ cast(b, np.float32)
    return cast(wide if is_array(wide) else np.asarray(wide), a.dtype)


def cast(array: Array, dtype: Any) -> Array:
    """A copy in another dtype; what is too large for it is infinite, without a word."""
    dtype = np.dtype(dtype)
    if _is_large(array) and array.dtype == np.float32 and dtype.name in ("float16", "bfloat16"):
        return half.narrow(array, dtype)
    if is_half(array) and dtype == np.float32 and _is_for_the_engine(array):
        return half.widen(array)
    if _is_on_a_gpu(array) and array.dtype != dtype and {array.dtype.name, dtype.name} <= _STORED:
        return backends.get("cuda").convert(array, dtype)
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def concatenate(arrays: Sequence[Array], axis: int) -> Array:
    """The arrays one after another along `axis`."""
    first = arrays[0]
    if all(_are_channels_last(array, array) and array.dtype == first.dtype for array in arrays):
        return backends.get("cuda").concat(arrays, axis)
    if any(map(_is_large, arrays)) and all(_is_like(array, first) for array in arrays):
        return cpu.concat(arrays, axis)
    return module_of(first).concatenate(arrays, axis)


def _is_large(array: Array) -> bool:
    """Whether the engine may do it, and gains by it."""
    return _is_for_the_engine(array) and array.dtype in _DTYPES


def _are_halves(a: Array, b: Array) -> bool:
    """Whether they are arrays of one kind of 16 bits that kernels add: large ones, or on a GPU."""
    if a.dtype.itemsize != 2 or not is_half(a) or type(b) is not type(a) or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return _is_on_a_gpu(a) or (_is_for_the_engine(a) and _is_like(b, a))


def _are_channels_last(a: Array, b: Array) -> bool:
    """Whether they are arrays on a GPU, alike in shape and dtype, of which kernels make a channels-last one."""
    if type(a) is np.ndarray or getattr(a, "ndim", 0) != 4 or not _is_on_a_gpu(a) or type(b) is not type(a):
        return False
    alike = a.shape == b.shape and a.dtype == b.dtype and a.dtype.name in _STORED
    return alike and wants_channels_last(a, b)


def _is_on_a_gpu(array: Array) -> bool:
    return is_array(array) and not is_host(array)


def _sum_of_halves(a: Array, b: Array) -> Array:
    """a + b of float16 or bfloat16: in float32, rounded once, as NumPy does it one by one."""
    if not is_host(a):
        return backends.get("cuda").add(a, b)
    total = half.widen(a)
    cpu.add_to(total, half.widen(b))
    return half.narrow(total, a.dtype)


def _is_for_the_engine(array: Array) -> bool:
    return (
        type(array) is np.ndarray
        and array.size >= _LARGE
        and array.flags.c_contiguous
        and array.dtype.isnative
        and backends.selected() in (None, "cpu")
    )


def _is_like(array: Array, large: Array) -> bool:
    return type(array) is np.ndarray and array.dtype == large.dtype and array.flags.c_contiguous
