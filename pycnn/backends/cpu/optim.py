"""Optimiser steps over many arrays in one parallel loop on the CPU engine, in place, of dense float32 arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense

Arrays = Sequence[np.ndarray]


def sgd_step(
    params: Arrays,
    grads: Arrays,
    buffers: Arrays | None,
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
) -> None:
    """One step of `pycnn.optim.SGD`, bit for bit.

    Args:
        params: changed in place.
        grads: of the same shapes.
        buffers: of momentum, changed in place; None for none.
        lr, momentum, dampening, weight_decay, nesterov: as there.
        first: the buffers hold nothing yet.
    """
    _cpu.sgd_step(
        list(params),
        [dense(grad) for grad in grads],
        [] if buffers is None else list(buffers),
        lr,
        momentum,
        1.0 - dampening,
        weight_decay,
        nesterov,
        first,
    )


def adam_step(
    params: Arrays,
    grads: Arrays,
    first_moments: Arrays,
    second_moments: Arrays,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """One step of `pycnn.optim.Adam`, or of `AdamW` where `decoupled`, bit for bit.

    Args:
        params, first_moments, second_moments: changed in place; the moments zeros before the first step.
        grads: of the same shapes.
        step: the number of this step, the first being 1.
        lr, betas, eps, weight_decay: as there.
    """
    b1, b2 = betas
    _cpu.adam_step(
        list(params),
        [dense(grad) for grad in grads],
        list(first_moments),
        list(second_moments),
        lr / (1.0 - b1**step),
        math.sqrt(1.0 - b2**step),
        1.0 - b1,
        b2,
        1.0 - b2,
        eps,
        0.0 if decoupled else weight_decay,
        1.0 - lr * weight_decay if decoupled else 1.0,
    )
