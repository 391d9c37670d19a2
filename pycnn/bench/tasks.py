"""What a contestant has to do, in plain values, so that it can be sent to a process of another framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn.shape import Conv2dShape, Pool2dShape

__all__ = ["Call", "Task"]

Call = Callable[[], Any]  # does the task once and returns the result


@dataclass(frozen=True)
class Task:
    """One pass of one layer.

    Attributes:
        op: "conv2d", "max_pool2d" or "avg_pool2d".
        operator: one of `pycnn.shape.PASSES` for a convolution; "forward" or "backward" for pooling.
        shape: the problem in plain integers.
        arrays: what the pass reads.  A convolution: as in `pycnn.testing.Operands`; pooling forward: x; backward: dy,
            and for a maximum x and y too.
        count_pad: whether an average counts the padding.
    """

    op: str
    operator: str
    shape: Conv2dShape | Pool2dShape
    arrays: tuple[np.ndarray, ...]
    count_pad: bool = True
