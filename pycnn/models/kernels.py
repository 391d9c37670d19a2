"""Which CUDA kernels a network launches, found out without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.autograd import no_grad
from pycnn.backends.cuda import optim
from pycnn.backends.trace import hollow, tracing
from pycnn.functional import cross_entropy
from pycnn.jit.sources import Instance, Sources, installed
from pycnn.nn.module import Module
from pycnn.tensor import Tensor

__all__ = ["kernels_of"]

_SMOOTHING = (0.0, 0.1)  # of targets: one has a fused kernel, the other is composed
# What else a step may launch: it takes any arrays, so that no plan chooses.
_STEP = (*optim.KERNELS, "advance")


def kernels_of(
    model: Module,
    input_shape: Sequence[int],
    arch: str,
    *,
    batch: int = 1,
    train: bool = False,
    sources: Sources | None = None,
) -> list[Instance]:
    """The kernels that a network launches on a GPU, each once, in the order of their first launch.

    The network's own code runs and its operators are planned as on a GPU, on arrays without memory and without
    arithmetic; afterwards its parameters and buffers are such arrays, so it is of no further use.

    Args:
        model: a network that gives logits (N, classes), or a tuple of them with auxiliary heads; one built within
            ``nn.init.skip()`` will do.
        input_shape: (C, H, W).
        arch: the GPU's, such as "sm_90a".
        batch: images at a time; the plans of some layers depend on it.
        train: besides the forward pass in evaluation mode, a step of training with cross-entropy, with and without
            smoothed targets, and the kernels of all optimisers and of captured steps.
        sources: the kernels; the installed ones by default.

    Raises:
        UnavailableError: an operator has no kernel.
        ValueError: as the network's own layers do, for an input that does not fit.

    >>> from pycnn import nn
    >>> [str(kernel) for kernel in kernels_of(nn.MaxPool2d(2), (3, 32, 32), "sm_90a")]
    ['max_pool2d_fwd[narrow]']
    """
    tensors = [*model.parameters(), *model.buffers()]
    for tensor in tensors:
        tensor.data = hollow(tensor.shape, tensor.dtype)
    dtype = next((tensor.dtype for tensor in tensors if tensor.dtype.kind == "f"), np.dtype(np.float32))
    x = Tensor(hollow((batch, *input_shape), dtype))
    with tracing(arch, sources) as device:
        model.eval()
        with no_grad():
            model(x)
        if train:
            model.train()
            for smoothing in _SMOOTHING:
                _loss(model(x), smoothing).backward()
    found = device.launches
    if train:
        found += [each for each in (sources or installed()).instances if each.kernel in _STEP and arch in each.archs]
    return list(dict.fromkeys(found))


def _loss(outputs: Any, smoothing: float) -> Any:
    """Cross-entropy of the logits, those of auxiliary heads added."""
    total: Any = 0.0
    for logits in outputs if isinstance(outputs, (tuple, list)) else (outputs,):
        if logits is not None:
            target = Tensor(np.zeros((logits.shape[0], *logits.shape[2:]), np.int64))
            total = total + cross_entropy(logits, target, label_smoothing=smoothing)
    return total
