"""Matrix products and linear layers of the CUDA backend, as functions of it.

float32 goes through kernels/sgemm.cu.  What tensor cores compute is a convolution of images of one pixel, whose rows
are channels-last as they lie; so are 16 bits where a GPU has no tensor cores for them, by the direct kernels:

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
from pycnn.backends.cuda.convert import convert
from pycnn.backends.cuda.device import Array
from pycnn.backends.cuda.gemm import sgemm
from pycnn.backends.cuda.host import FLOAT32
from pycnn.backends.cuda.plan import Epilogue

_ONE_PIXEL = ((1, 1), (0, 0, 0, 0), (1, 1), 1)  # stride, padding, dilation, groups


class LinearHost(ConvHost):
    """Matrix products, as those of `pycnn.backends.reference`."""

    def gemm(self, a: Array, b: Array, trans_a: bool, trans_b: bool) -> Array:
        """a' @ b', where ' transposes if asked."""
        algo = self._convolution(a.dtype)
        if algo is None:
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
            out = self.conv2d_wgrad(left, right, (a.shape[1], b.shape[1], 1, 1), *_ONE_PIXEL, algo=algo)
        elif trans_b:
            out = self.conv2d_fprop(left, right, None, *_ONE_PIXEL, algo=algo)
        else:
            out = self.conv2d_dgrad(left, right, (a.shape[0], b.shape[1], 1, 1), *_ONE_PIXEL, algo=algo)
        return out.reshape(out.shape[:2])

    def linear_fwd(self, x: Array, w: Array, b: Array | None) -> Array:
        """x (N, in) times w (out, in) transposed, plus b (out,)."""
        algo = self._convolution(x.dtype)
        if algo is not None:
            if not w.size:  # a convolution has channels and filters
                y = self.device.alloc((int(x.shape[0]), int(w.shape[0])), x.dtype)
                self.device.fill(y, 0.0 if b is None else convert(self, b, x.dtype))
                return y
            x, w = (self._dense(each)[:, :, None, None] for each in (x, w))
            return self.conv2d_fprop(x, w, b, *_ONE_PIXEL, algo=algo).reshape(x.shape[0], w.shape[0])
        if x.dtype != FLOAT32:
            self._unavailable(f"linear_fwd in {x.dtype}")
        y = self.device.alloc((int(x.shape[0]), int(w.shape[0])), x.dtype)
        epilogue = Epilogue(b=None if b is None else self._dense(b))
        sgemm(self, self._dense(x), self._dense(w), y, trans_b=True, epilogue=epilogue, channel="column")
        return y

    def _convolution(self, dtype: Any) -> str | None:
        """The algorithm of the convolution that products of this dtype are; None where they are none.

        Those of float32 are one where tensor cores may compute them, and do.
        """
        arithmetic = tensor.arithmetic_of(dtype, precision())
        if arithmetic is None:
            return None
        if tensor.has(arithmetic, self.device.arch, self.sources):
            return "im2col_tensor"
        return None if dtype == FLOAT32 else "direct"
