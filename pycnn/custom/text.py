"""`CudaKernel`: a pass of a convolution that is CUDA C++ text, compiled and cached as pycnn's own kernels are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn.backends.cuda.device import Argument, Array, Extent, Reads, Writes
from pycnn.backends.cuda.host import HostBase, grid_of
from pycnn.backends.cuda.layout import pack_conv2d_shape
from pycnn.custom.registry import DevicePass, result_shape
from pycnn.shape import DTYPES, Conv2dShape

__all__ = ["CudaKernel"]

Size = int | Sequence[int]
Arguments = Callable[[Array, Array, Array, Conv2dShape], Sequence[Any]]

_NAMES = {"fprop": ("x", "w", "y"), "dgrad": ("dy", "w", "dx"), "wgrad": ("dy", "x", "dw")}
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


class CudaKernel(DevicePass):
    """One pass of a convolution as CUDA C++ text, for `pycnn.register_conv2d`.

    On a GPU the text is compiled by NVRTC and launched in CuPy's current stream.  On the ``sim`` backend g++ compiles
    the same text, and every CUDA thread is run on the CPU, with each memory access checked: so a kernel is verified
    where there is no GPU.  Both results are cached on disk under the hash of the text.

    The text may include pycnn's headers: ``#include "common.cuh"`` brings `pycnn::Conv2dShape`, which has the fields of
    `pycnn.shape.Conv2dShape` as 64-bit integers (``stride_h``, ``stride_w``, ``pad_top``, ``pad_left``, ...), and
    ``PYCNN_SHARED(Type, name)``, the way to shared memory that the simulator can follow.

    Args:
        text: CUDA C++ with one ``__global__`` function, no host code and no inline assembly.
        name: of that function, as C++ has it: ``"mine"``, ``"of::mine"``, ``"mine<3>"``.
        blocks: of the shape: how many blocks, a number or (x, y, z).
        threads: of a block: a number, (x, y, z), or a function of the shape that gives one of these.
        arguments: of the left operand, the right one, the result and the shape: what the function is given, in its
            order; the arrays are pointers, a `Conv2dShape` is passed by value as `pycnn::Conv2dShape`, NumPy's scalars
            (``np.int32(3)``) and bytes are passed as they are.  By default (shape, left, right, result), which are x,
            w, y in fprop, dy, w, dx in dgrad and dy, x, dw in wgrad.
        shared: bytes of dynamic shared memory of a block; what fits into 48 KiB needs none.
        dtype: of the arrays that it is written for: "float32", "float64", "float16" or "bfloat16" (`pycnn::float16` and
            `pycnn::bfloat16` of ``arch/half.cuh``).

    Raises:
        TypeError, ValueError: an argument that is not of this kind, or a text with no ``__global__`` function or many.

    A launch raises `pycnn.jit.CompileError` with the compiler's log where the text does not compile.

    >>> import numpy as np, pycnn
    >>> text = '''
    ... #include "common.cuh"
    ... __global__ void scaled(const pycnn::Conv2dShape shape, const float* x, const float* w, float* y) {
    ...     const long long i = blockIdx.x * 32ll + threadIdx.x;
    ...     if (i < shape.N * shape.K * shape.P * shape.Q) y[i] = w[0] * x[i];
    ... }'''
    >>> def blocks(shape):
    ...     return -(-shape.N * shape.K * shape.P * shape.Q // 32)
    >>> scaled = pycnn.CudaKernel(text, "scaled", blocks=blocks, threads=32)
    >>> pycnn.register_conv2d("scaled", fprop=scaled)  # right for one channel and one 1x1 filter
    >>> pycnn.unregister_conv2d("scaled")
    """

    def __init__(
        self,
        text: str,
        name: str,
        *,
        blocks: Callable[[Conv2dShape], Size],
        threads: Size | Callable[[Conv2dShape], Size] = 256,
        arguments: Arguments | None = None,
        shared: int = 0,
        dtype: str = "float32",
    ) -> None:
        for what, value in (("text", text), ("name", name)):
            if not isinstance(value, str) or not value.strip():
                raise TypeError(f"{what} must be a string that is not empty, got {value!r:.60}")
        if not callable(blocks):
            raise TypeError(f"blocks must be a function of the shape, got {blocks!r:.60}")
        if dtype not in DTYPES.values():
            raise ValueError(f"dtype must be one of {', '.join(DTYPES.values())}, got {dtype!r}")
        found = len(re.findall(r"\b__global__\b", _COMMENT.sub("", text)))
        if found != 1:
            raise ValueError(f"text must have one __global__ function, found {found}; one CudaKernel is one of them")
        self._text, self._name = text, name
        self._blocks, self._threads = blocks, threads
        self._arguments = arguments or (lambda left, right, out, shape: (shape, left, right, out))
        self._shared = shared
        self._dtype = dtype

    def __repr__(self) -> str:
        return f"CudaKernel({self._name})"

    def refuses(self, dtype: str) -> str | None:
        """Why it does not take arrays of this dtype, or None."""
        return None if dtype == self._dtype else f"its CUDA C++ is for {self._dtype}, this is {dtype}"

    def run(self, host: HostBase, operator: str, left: Array, right: Array, shape: Conv2dShape) -> Array:
        """Compile it if need be, and start it on the device of `host`."""
        device = host.device
        out = device.alloc(result_shape(operator, shape), left.dtype)
        pointers = dict(zip(_NAMES[operator], (left, right, out), strict=True))
        given = self._arguments(left, right, out, shape)
        packed = [self._packed(i, value, pointers, out) for i, value in enumerate(given)]
        blocks = self._blocks(shape)
        grid = grid_of(blocks) if isinstance(blocks, int) else _extent("blocks", blocks)
        block = _extent("threads", self._threads(shape) if callable(self._threads) else self._threads)
        kernel = device.load(host.sources.given(self._name, self._text))
        device.launch(kernel, grid, block, self._shared, packed)
        return out

    def _packed(self, index: int, value: Any, pointers: dict[str, Array], out: Array) -> Argument:
        for name, array in pointers.items():
            if value is array:
                return Writes(name, array) if array is out else Reads(name, array)
        if isinstance(value, Conv2dShape):
            return pack_conv2d_shape(value)
        if isinstance(value, np.generic):
            return value.tobytes()
        if isinstance(value, bytes):
            return value
        raise TypeError(
            f"argument {index} of {self!r} must be an operand, the result, the shape, a NumPy scalar such as "
            f"np.int32(3) or bytes, got {value!r:.60} of type {type(value).__name__}"
        )


def _extent(what: str, size: Size) -> Extent:
    """(x, y, z) of a number or of up to three."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    if not 1 <= len(sizes) <= 3 or not all(isinstance(one, int) and one >= 1 for one in sizes):
        raise ValueError(f"{what} must be one to three ints of at least 1, got {size!r:.60}")
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z
