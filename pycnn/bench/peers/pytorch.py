"""PyTorch as a peer; convolutions only."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from pycnn.bench.tasks import Call, Task
from pycnn.shape import Conv2dShape

__all__ = ["Torch", "TorchChannelsLast", "TorchFrozen"]


class Torch:
    """PyTorch, its tensors in NCHW."""

    layouts: ClassVar[dict[str, str]] = {"torch": "contiguous_format"}  # by contestant

    def __init__(self, threads: int) -> None:
        import torch

        self._torch = torch
        torch.set_num_threads(threads)

    def contestants(self, task: Task) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`."""
        shape = task.shape
        if not isinstance(shape, Conv2dShape):
            return {}
        top, bottom, side, other = shape.padding
        if (top, side) != (bottom, other):
            return {}  # torch pads asymmetrically only by a copy of its own
        found = {}
        for name, attribute in self.layouts.items():
            layout = getattr(self._torch, attribute)
            a, b = (self._tensor(array).contiguous(memory_format=layout) for array in task.arrays)
            call = self._fprop(shape, a, b) if task.operator == "fprop" else self._backward(shape, task.operator, a, b)
            if call is not None:
                found[name] = call
        return found

    def _tensor(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(array)

    def _fprop(self, shape: Conv2dShape, x: Any, w: Any) -> Call:
        torch = self._torch
        padding = (shape.padding[0], shape.padding[2])

        def fprop() -> Any:
            with torch.inference_mode():
                return torch.nn.functional.conv2d(x, w, None, shape.stride, padding, shape.dilation, shape.groups)

        return fprop

    def _backward(self, shape: Conv2dShape, operator: str, dy: Any, other: Any) -> Call | None:
        torch = self._torch
        padding = (shape.padding[0], shape.padding[2])
        # The operand a pass does not read still has to be named, with its shape.
        mask = [operator == "dgrad", operator == "wgrad", False]
        unread = torch.empty_like(other.new_empty(shape.x_shape if operator == "dgrad" else shape.w_shape))
        if other.is_contiguous(memory_format=torch.channels_last):
            unread = unread.contiguous(memory_format=torch.channels_last)
        x, w = (unread, other) if operator == "dgrad" else (other, unread)

        def backward() -> Any:
            with torch.inference_mode():
                results = torch.ops.aten.convolution_backward(
                    dy, x, w, None, shape.stride, padding, shape.dilation, False, (0, 0), shape.groups, mask
                )
                return results[mask.index(True)]

        return backward


class TorchChannelsLast(Torch):
    """PyTorch, its tensors resident in channels-last."""

    layouts: ClassVar[dict[str, str]] = {"torch_cl": "channels_last"}


class TorchFrozen(Torch):
    """PyTorch with weights packed ahead, as what torch.compile makes of a frozen model has them; forward only."""

    layouts: ClassVar[dict[str, str]] = {"torch_frozen": "channels_last"}

    def _fprop(self, shape: Conv2dShape, x: Any, w: Any) -> Call:
        torch = self._torch
        padding = [shape.padding[0], shape.padding[2]]
        how = (padding, list(shape.stride), list(shape.dilation), shape.groups)
        packed = torch.ops.mkldnn._reorder_convolution_weight(w, *how, list(shape.x_shape))

        def fprop() -> Any:
            with torch.inference_mode():
                return torch.ops.mkldnn._convolution_pointwise(x, packed, None, *how, "none", [], "")

        return fprop

    def _backward(self, shape: Conv2dShape, operator: str, dy: Any, other: Any) -> Call | None:
        return None
