"""Which CUDA kernels a network needs: what `pycnn warmup` compiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.autograd import no_grad
from pycnn.backends.cuda import optim, random
from pycnn.backends.plans import recording
from pycnn.jit.sources import Instance, installed
from pycnn.nn.module import Module
from pycnn.tensor import Tensor

__all__ = ["kernels_of"]


def kernels_of(
    model: Module, input_shape: Sequence[int], *, batch: int = 1, train: bool = False, arch: str = "sm_90a"
) -> list[Instance]:
    """The kernels that a forward pass launches, and with `train` a step of training with any of the optimisers.

    Nothing is computed, and nothing but the network itself takes much memory.

    Args:
        model: a classifier; its running statistics change with `train`, its mode is restored.
        input_shape: (C, H, W).
        batch: images at once; which algorithms are taken depends on it.
        train: forward in training mode, backward, optimisers and gradient clipping too.
        arch: what the kernels are for.

    >>> from pycnn.models import lenet5
    >>> [str(kernel).partition("[")[0] for kernel in kernels_of(lenet5(), (1, 32, 32))][-1]
    'sgemm'
    """
    x = np.zeros((batch, *input_shape), np.float32)
    modes = [(module, module.training) for module in model.modules()]
    try:
        with recording(arch) as launched:
            with no_grad():
                model.eval()(Tensor(x))
            if train:
                _step(model.train(), x)
    finally:
        for module, training in modes:
            module.training = training
    found = list(launched)
    if train:
        sources = installed()
        names = (*optim.KERNELS, *random.KERNELS)
        found += [instance for name in names for instance in sources.of(name).values() if instance not in launched]
    return found


def _step(model: Module, x: np.ndarray[Any, Any]) -> None:
    outputs = model(Tensor(x))
    target = Tensor(np.zeros(len(x), np.int64))
    heads = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    losses = [F.cross_entropy(head, target) for head in heads if head is not None]
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    total.backward()
