"""Channels-last arrays on the CUDA backend: read as they lie, by every operator on images, with results that lie so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from simulated import DEVICES, ORDERS, Ends, in_every_order, results, view_off_by_one

from pycnn.backends import reference
from pycnn.backends.cuda import Host, norm
from pycnn.backends.cuda.device_sim import SimArray, SimDevice
from pycnn.backends.cuda.reduce import LastSlices
from pycnn.backends.sim import Simulated
from pycnn.memory_format import is_channels_last, new_array, wants_channels_last
from pycnn.testing import ADAPTIVE_POOLS, check_adaptive_pool2d, check_operator, check_pool2d, pools, random_pools
from pycnn.testing.halves import in_dtype
from pycnn.testing.operators import operators
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

DTYPES = [np.dtype(each) for each in (np.float32, np.float16, ml_dtypes.bfloat16)]
EPS = 1e-5

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)

# Sums whose order is that of memory, so that their last bits are not those of NCHW.
SUMS = ("channel_sum", "batch_norm_fwd", "batch_norm_bwd")
# Across channels or by class: they work on copies in C order.
COPYING = ("lrn_fwd", "lrn_bwd", "nll_fwd", "nll_bwd")


def last(value: Any) -> Any:
    """A copy of an array of four axes that lies channels-last; of a list, of each; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(last, value))
    if not isinstance(value, np.ndarray) or value.ndim != 4:
        return value
    placed = new_array(np.empty, value.shape, value.dtype, True)
    placed[...] = value
    return placed


class Watched(SimDevice):
    """Counts the copies between arrays of four axes on the device."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.copies = 0

    def fill(self, array: Any, value: Any) -> None:
        self.copies += array.ndim == 4 and isinstance(value, SimArray)
        super().fill(array, value)


class Last:
    """The simulated backend, given channels-last what it is given: holds it to what it gives for NCHW, bit for bit."""

    def __init__(self, order: str = "random") -> None:
        self._device = Watched(order=order, seed=7)
        self._backend = Simulated(Host(self._device))
        self.__name__ = "channels-last"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._device.copies = 0
            found = getattr(self._backend, name)(*map(last, arguments), **options)
            images = [y for y in results(found) if isinstance(y, np.ndarray) and y.ndim == 4]
            if name not in COPYING and any(isinstance(one, np.ndarray) and one.ndim == 4 for one in arguments):
                assert self._device.copies == 0, f"{name} copies"
                assert all(map(is_channels_last, images)), f"{name} gives {[y.strides for y in images]}"
            dense = [np.ascontiguousarray(y).reshape(y.shape) for y in results(found)]
            if name not in SUMS:
                for y, expected in zip(dense, results(getattr(self._backend, name)(*arguments, **options)), strict=True):
                    assert y.tobytes() == expected.tobytes(), f"{name} gives other bits than in NCHW"
            return tuple(dense) if isinstance(found, tuple) else dense[0]

        return call


LAST = Last()

# Channels that are whole vectors of 16 bytes in float32, in 16 bits too, and in neither; one tile of them, several and
# a part of one; one pixel, one channel, one image; slices of several threads' rows and a rest.
SHAPES = [
    (2, 5, 3, 7),
    (3, 12, 9, 5),
    (1, 8, 1, 3),
    (2, 24, 7, 7),
    (2, 328, 3, 2),
    (4, 64, 30, 41),
    (5, 16, 1, 1),
    (3, 1, 4, 5),
    (1, 1, 1, 1),
    (0, 8, 2, 2),
]


def normal(*shape: int, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, shape).astype(np.float32)


WINDOW = ((3, 2), (2, 1), (1, 0, 1, 1))


def _indices(x: np.ndarray) -> np.ndarray:
    return reference.max_pool2d_fwd(x.astype(np.float32), *WINDOW, (1, 1), False)[1]


# name: what it makes of a backend, two images (N, C, H, W) and a vector (C,)
CALLS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "relu_fwd": lambda b, x, z, c: b.relu_fwd(x),
    "relu_bwd": lambda b, x, z, c: b.relu_bwd(x, z),
    "tanh_fwd": lambda b, x, z, c: b.tanh_fwd(x),
    "sigmoid_bwd": lambda b, x, z, c: b.sigmoid_bwd(x, z),
    "add": lambda b, x, z, c: b.add(x, z),
    "dropout": lambda b, x, z, c: b.dropout(x, 0.5, 7, 3),
    "softmax_fwd": lambda b, x, z, c: b.softmax_fwd(x, 1),
    "log_softmax_fwd of rows": lambda b, x, z, c: b.log_softmax_fwd(x, 2),
    "softmax_bwd": lambda b, x, z, c: b.softmax_bwd(x, z, 1),
    "pad2d": lambda b, x, z, c: b.pad2d(x, (1, 0, 2, 3), -1.5),
    "concat of channels": lambda b, x, z, c: b.concat([x, z, x], 1),
    "concat of columns": lambda b, x, z, c: b.concat([x, z], 3),
    "concat of images": lambda b, x, z, c: b.concat([x, z], 0),
    "channel_sum": lambda b, x, z, c: b.channel_sum(x),
    "channel_affine": lambda b, x, z, c: b.channel_affine(x, c, c),
    "batch_norm_eval": lambda b, x, z, c: b.batch_norm_eval(x, c, abs(c) + 1, c, None, EPS),
    "batch_norm_fwd": lambda b, x, z, c: b.batch_norm_fwd(x, c, c, EPS, z, True),
    "batch_norm_bwd": lambda b, x, z, c: b.batch_norm_bwd(z, x, c, c, abs(c) + 1, EPS, x),
    "max_pool2d_fwd": lambda b, x, z, c: b.max_pool2d_fwd(x, *WINDOW, (1, 1), False),
    "max_pool2d_bwd": lambda b, x, z, c: b.max_pool2d_bwd(z, _indices(z), x.shape, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "avg_pool2d_fwd": lambda b, x, z, c: b.avg_pool2d_fwd(x, (1, 2), (1, 1), (0, 0, 1, 0), False, True, None),
    "avg_pool2d_bwd": lambda b, x, z, c: b.avg_pool2d_bwd(x, x.shape, (1, 1), (1, 1), (0, 0, 0, 0), False, False, 3),
    "adaptive_avg_pool2d_fwd": lambda b, x, z, c: b.adaptive_avg_pool2d_fwd(x, (1, 1)),
    "adaptive_avg_pool2d_bwd": lambda b, x, z, c: b.adaptive_avg_pool2d_bwd(x, (*x.shape[:2], 5, 9)),
    "adaptive_max_pool2d_fwd": lambda b, x, z, c: b.adaptive_max_pool2d_fwd(x, (1, 1)),
    "plane_take": lambda b, x, z, c: b.plane_take(x, np.zeros(z.shape, np.int64)),
}
