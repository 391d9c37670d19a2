"""Matrix products and linear layers of the CUDA backend, as functions of it.

float32 goes through kernels/sgemm.cu.  What tensor cores compute is a convolution of images of one pixel, whose rows
are channels-last as they lie:

    op(a) op(b)      the pass         pixels    gemm_k      the others
    a b^T            fprop            M         channels    filters N
    a b              dgrad            M         filters     channels N
    a^T b            wgrad            K         pixels      filters M, channels N
"""

from __future__ import annotations

from typing import Any

from pycnn.algorithms import precision
from pycnn.backends.cuda import tensor
from pycnn.backends.cuda.conv import ConvHost
from pycnn.backends.cuda.device import Array
from pycnn.backends.cuda.gemm import sgemm
from pycnn.backends.cuda.host import FLOAT32
from pycnn.backends.cuda.plan import Epilogue

_ONE_PIXEL = ((1, 1), (0, 0, 0, 0), (1, 1), 1)  # stride, padding, dilation, groups
_TENSOR = "im2col_tensor"


class LinearHost(ConvHost):
    """Matrix products, as those of `pycnn.backends.reference`."""

    def gemm(self, a: Array, b: Array, trans_a: bool, trans_b: bool) -> Array:
        """a' @ b', where ' transposes if asked."""
        if not self._on_tensor_cores(a.dtype):
            if a.dtype != FLOAT32:
                self._unavailable(f"gemm in {a.dtype}")
            shape = (int(a.shape[1 if trans_a else 0]), int(b.shape[0 if trans_b else 1]))
            out = self.device.alloc(shape, a.dtype)
            sgemm(self, self._dense(a), self._dense(b), out, trans_a=trans_a, trans_b=trans_b)
            return out
        if not a.size or not b.size:
            out = self.device.alloc((int(a.shape[1 if trans_a else 0]), int(b.shape[0 if trans_b else 1])), a.dtype)
            self.device.fill(out, 0.0)
            return out
        if trans_a and trans_b:
            a, trans_a = self._dense(a.T), False
        a, b = (self._dense(each) for each in (a, b))
        left, right = a[:, :, None, None], b[:, :, None, None]
        if trans_a:
            out = self.conv2d_wgrad(left, right, (a.shape[1], b.shape[1], 1, 1), *_ONE_PIXEL, algo=_TENSOR)
        elif trans_b:
            out = self.conv2d_fprop(left, right, None, *_ONE_PIXEL, algo=_TENSOR)
        else:
            out = self.conv2d_dgrad(left, right, (a.shape[0], b.shape[1], 1, 1), *_ONE_PIXEL, algo=_TENSOR)
        return out.reshape(out.shape[:2])

    def linear_fwd(self, x: Array, w: Array, b: Array | None) -> Array:
        """x (N, in) times w (out, in) transposed, plus b (out,)."""
        if self._on_tensor_cores(x.dtype):
            x, w = (self._dense(each)[:, :, None, None] for each in (x, w))
            return self.conv2d_fprop(x, w, b, *_ONE_PIXEL, algo=_TENSOR).reshape(x.shape[0], w.shape[0])
        if x.dtype != FLOAT32:
            self._unavailable(f"linear_fwd in {x.dtype}")
        y = self.device.alloc((int(x.shape[0]), int(w.shape[0])), x.dtype)
        epilogue = Epilogue(b=None if b is None else self._dense(b))
        sgemm(self, self._dense(x), self._dense(w), y, trans_b=True, epilogue=epilogue, channel="column")
        return y

    def _on_tensor_cores(self, dtype: Any) -> bool:
        """Whether products of this dtype are computed there: of float32 where that is allowed and there are any."""
        arithmetic = tensor.arithmetic_of(dtype, precision())
        return arithmetic is not None and (dtype != FLOAT32 or tensor.has(arithmetic, self.device.arch, self.sources))
