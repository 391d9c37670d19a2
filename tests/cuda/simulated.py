"""What the kernels' tests share: a simulated device for each order of threads, and problems nobody thought of."""

from __future__ import annotations

import random

from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.shape import Conv2dShape, Problem

ORDERS = ("forward", "reverse", "random")
DEVICES = {order: Simulated(Host(SimDevice(order=order, seed=7))) for order in ORDERS}


def random_problems(count: int) -> list[Problem]:
    """Shapes that nobody thought of: filters, strides, dilations, paddings and groups mixed; the same in every run."""
    rng = random.Random(2026)
    found: list[Problem] = []
    while len(found) < count:
        groups, any_filter = rng.choice([1, 1, 2, 3]), (rng.randint(1, 6), rng.randint(1, 6))
        R, S = rng.choice([(1, 1), (3, 3), (3, 3), (5, 5), (7, 7), (11, 11), any_filter])
        stride = rng.choice([(1, 1), (2, 2), (4, 4), (rng.randint(1, 4), rng.randint(1, 4))])
        dilation = rng.choice([(1, 1), (1, 1), (rng.randint(1, 3), rng.randint(1, 3))])
        top, bottom, left, right = (rng.randint(0, 6) for _ in range(4))
        sizes = (rng.randint(1, 3), groups * rng.randint(1, 20), rng.randint(1, 40), rng.randint(1, 70))
        try:
            shape = Conv2dShape(
                *sizes, groups * rng.randint(1, 70), R, S, stride, (top, bottom, left, right), dilation, groups
            )
        except ValueError:
            continue  # the filter does not fit
        if shape.macs < 5_000_000:
            found.append(Problem(shape))
    return found
