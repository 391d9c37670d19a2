"""Images put together from windows."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from pycnn.movement import PutItem
from pycnn.onnx.operators._common import Value, ints, is_tensor
from pycnn.onnx.operators.shape import padded
from pycnn.onnx.operators.windows import windows
from pycnn.onnx.registry import operator


@operator("Col2Im", host=(1, 2))
def col2im(
    x: Value,
    image_shape: np.ndarray,
    block_shape: np.ndarray,
    *,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Value:
    """The sum of the windows, each put where it was taken from, tap by tap."""
    size, kernel = ints(image_shape), ints(block_shape)
    view = windows(size, kernel, strides, pads, dilations)
    n, taps = x.shape[0], math.prod(kernel)
    parts = x.reshape((n, x.shape[1] // taps, taps, *view.out))
    whole = tuple(one + a + b for one, a, b in zip(size, view.before, view.after, strict=True))
    shape = (n, x.shape[1] // taps, *whole)
    y: Any = None
    for number, place in enumerate(itertools.product(*map(range, kernel))):
        rows = zip(place, view.dilation, view.out, view.stride, strict=True)
        index: Any = (..., *(slice(k * d, k * d + (p - 1) * s + 1, s) for k, d, p, s in rows))
        part = parts[:, :, number]
        if is_tensor(part):
            put = PutItem.apply(part, index, shape)
        else:
            put = np.zeros(shape, x.dtype)
            put[index] = part
        y = put if y is None else y + put
    return padded(y, (0, 0, *(-a for a in view.before), 0, 0, *(-b for b in view.after)))
