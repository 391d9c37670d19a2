"""pycnn as a contestant beside the others: call by call, and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

import pycnn
from pycnn import nn
from pycnn.bench.cases import conv_call
from pycnn.bench.tasks import Call, Task
from pycnn.shape import Conv2dShape

__all__ = ["OWN", "Compiled", "Eager"]


class Eager:
    """pycnn as it is called, ``algo="auto"``."""

    def __init__(self, threads: int) -> None:
        pycnn.set_num_threads(threads)

    def contestants(self, task: Task) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`; convolutions only."""
        return {"pycnn": conv_call(task, "auto")} if isinstance(task.shape, Conv2dShape) else {}


class Compiled:
    """pycnn compiled ahead: one convolution as a model of one layer; forward only."""

    def __init__(self, threads: int) -> None:
        pycnn.set_num_threads(threads)

    def contestants(self, task: Task) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`."""
        shape = task.shape
        if task.operator != "fprop" or not isinstance(shape, Conv2dShape):
            return {}
        x, w = task.arrays
        padding: Any = shape.padding
        layer = nn.Conv2d(
            shape.C, shape.K, w.shape[2:], shape.stride, padding, shape.dilation, shape.groups, bias=False
        )
        layer.load_state_dict({"weight": w})
        return {"pycnn_compiled": _compiled(layer.eval(), x)}


def _compiled(model: nn.Module, x: np.ndarray) -> Call:
    run = _compile(model, x)
    return lambda: run(x)


_compile: Any = getattr(pycnn, "compile", None)
OWN: dict[str, Any] = {"pycnn": Eager} if _compile is None else {"pycnn": Eager, "pycnn_compiled": Compiled}
