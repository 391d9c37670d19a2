"""A direct convolution of your own in Python, by numba.cuda: all three passes, any problem, float32.

One thread computes one element of the result and nothing else, in the order in which the sums are written down:

    y[n, k, p, q]  = sum over c, r, s of  x[n, c, h, v] * w[k, c, r, s]
    dx[n, c, h, v] = sum over k, r, s of  dy[n, k, p, q] * w[k, c, r, s]
    dw[k, c, r, s] = sum over n, p, q of  dy[n, k, p, q] * x[n, c, h, v]

    where   h = p*stride_h - pad_top + r*dilation_h   and   v = q*stride_w - pad_left + s*dilation_w

On a GPU (`pip install numba-cuda` beside pycnn[cuda13]):

    $ NUMBA_CUDA_ARRAY_INTERFACE_SYNC=0 pycnn bench --kernel pycnn.examples.numba_direct --problem n1c64h56_k64r3_pd1

(The variable spares a wait: numba would otherwise wait for CuPy's stream before each launch, which is in that stream.)
Without one, in numba's simulator, which runs each thread as Python and is slow:

    $ NUMBA_ENABLE_CUDASIM=1 pycnn bench --kernel pycnn.examples.numba_direct --most-macs 2000 --problem n1c2h4_k2r3_pd1

What limits it: every operand comes from global memory each time it is used, and nothing is kept in registers but one
sum.  The next steps are those of kernels/conv2d_fprop_direct.cu: several results a thread, a tile in shared memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import pycnn
from pycnn._extras import extra
from pycnn.shape import Conv2dShape

with extra("numba", "numba"):
    import numba
    from numba import cuda

THREADS = 128  # of a block


# The kernels.  `i` counts the elements of the result, and its digits are the element's place: the last axis is the
# fastest, so neighbouring threads write neighbouring addresses.  x[n, c] below says the group's channel in full.


@cuda.jit
def fprop_kernel(x, w, y, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups):  # type: ignore
    i = cuda.grid(1)
    if i >= y.size:
        return
    _, K, P, Q = y.shape
    i, q = i // Q, i % Q
    i, p = i // P, i % P
    n, k = i // K, i % K
    first = k // (K // groups) * w.shape[1]  # channel of x that filter k begins with
    total = np.float32(0)
    for c in range(w.shape[1]):
        for r in range(w.shape[2]):
            h = p * stride_h - pad_top + r * dilation_h
            if 0 <= h < x.shape[2]:  # what lies in the padding is zero
                for s in range(w.shape[3]):
                    v = q * stride_w - pad_left + s * dilation_w
                    if 0 <= v < x.shape[3]:
                        total += x[n, first + c, h, v] * w[k, c, r, s]
    y[n, k, p, q] = total


@cuda.jit
def dgrad_kernel(dy, w, dx, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups):  # type: ignore
    i = cuda.grid(1)
    if i >= dx.size:
        return
    _, C, H, W = dx.shape
    i, v = i // W, i % W
    i, h = i // H, i % H
    n, c = i // C, i % C
    filters = w.shape[0] // groups  # that see this channel
    first = c // w.shape[1] * filters
    total = np.float32(0)
    for k in range(first, first + filters):
        for r in range(w.shape[2]):
            p = h + pad_top - r * dilation_h  # stride_h times the row of y that this tap serves, if there is one
            if p >= 0 and p % stride_h == 0 and p // stride_h < dy.shape[2]:
                for s in range(w.shape[3]):
                    q = v + pad_left - s * dilation_w
                    if q >= 0 and q % stride_w == 0 and q // stride_w < dy.shape[3]:
                        total += dy[n, k, p // stride_h, q // stride_w] * w[k, c % w.shape[1], r, s]
    dx[n, c, h, v] = total


@cuda.jit
def wgrad_kernel(dy, x, dw, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups):  # type: ignore
    i = cuda.grid(1)
    if i >= dw.size:
        return
    K, C, R, S = dw.shape  # C is a group's
    i, s = i // S, i % S
    i, r = i // R, i % R
    k, c = i // C, i % C
    channel = k // (K // groups) * C + c  # of x
    total = np.float32(0)
    for n in range(dy.shape[0]):
        for p in range(dy.shape[2]):
            h = p * stride_h - pad_top + r * dilation_h
            if 0 <= h < x.shape[2]:
                for q in range(dy.shape[3]):
                    v = q * stride_w - pad_left + s * dilation_w
                    if 0 <= v < x.shape[3]:
                        total += dy[n, k, p, q] * x[n, channel, h, v]
    dw[k, c, r, s] = total


# The passes, as pycnn calls them: two arrays and the shape in, a new array out.  The arrays are CuPy's on a GPU, which
# numba takes as they are, and NumPy's in the simulator; NumPy's empty_like makes another of either.


def _launch(kernel: Any, left: Any, right: Any, out_shape: tuple[int, ...], shape: Conv2dShape) -> Any:
    out = np.empty_like(left, order="C", shape=out_shape)
    top, _, left_side, _ = shape.padding
    blocks = -(-out.size // THREADS)
    how = (*shape.stride, top, left_side, *shape.dilation, shape.groups)
    kernel[blocks, THREADS, _stream(left)](left, right, out, *how)
    return out


def _stream(array: Any) -> Any:
    """CuPy's current stream, which its arrays name: the kernel waits for what is in it, and what follows for that."""
    if isinstance(array, np.ndarray):
        return 0
    return cuda.external_stream(array.__cuda_array_interface__["stream"])


def fprop(x: Any, w: Any, shape: Conv2dShape) -> Any:
    """y of x and w."""
    return _launch(fprop_kernel, x, w, shape.y_shape, shape)


def dgrad(dy: Any, w: Any, shape: Conv2dShape) -> Any:
    """dx of dy and w."""
    return _launch(dgrad_kernel, dy, w, shape.x_shape, shape)


def wgrad(dy: Any, x: Any, shape: Conv2dShape) -> Any:
    """dw of dy and x."""
    return _launch(wgrad_kernel, dy, x, shape.w_shape, shape)


def refuses(operator: str, shape: Conv2dShape, dtype: str) -> str | None:
    """The sums above are float32's."""
    return None if dtype == "float32" else f"it is written for float32, this is {dtype}"


pycnn.register_conv2d(
    "numba_direct",
    fprop,
    dgrad,
    wgrad,
    refuses=refuses,
    backends=["cpu"] if numba.config.ENABLE_CUDASIM else ["cuda"],
)
