"""What `pycnn._cpu` takes: C-contiguous arrays."""

from __future__ import annotations

import numpy as np


def dense(array: np.ndarray) -> np.ndarray:
    """`array` in C order, itself if it is so already; unlike `numpy.ascontiguousarray` it leaves 0-d arrays 0-d."""
    return np.asarray(array, order="C")
