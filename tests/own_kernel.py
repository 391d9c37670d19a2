"""A kernel of one's own that is right, the reference's, and a problem for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.backends import reference
from pycnn.shape import Conv2dShape, Problem

SMALL = Problem.parse("n2c4h5w6_k6r3s2_st2x1pd1.0.2.1dl1x2g2")


def how(shape: Conv2dShape) -> tuple[Any, ...]:
    return shape.stride, shape.padding, shape.dilation, shape.groups


def fprop(x: Any, w: Any, shape: Conv2dShape) -> Any:
    return reference.conv2d_fprop(x, w, None, *how(shape))


def dgrad(dy: Any, w: Any, shape: Conv2dShape) -> Any:
    return reference.conv2d_dgrad(dy, w, shape.x_shape, *how(shape))


def wgrad(dy: Any, x: Any, shape: Conv2dShape) -> Any:
    return reference.conv2d_wgrad(dy, x, shape.w_shape, *how(shape))


def whole(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Small integers: any order of summation gives the same float32."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


X, W, DY = whole(SMALL.shape.x_shape, 1), whole(SMALL.shape.w_shape, 2), whole(SMALL.shape.y_shape, 3)
HOW = how(SMALL.shape)
