"""torch.nn's layers, computed by pycnn: subclasses, so that what they hold and how they are saved is torch's."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from pycnn.torch import functional as F

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "swap",
    "swapped",
    "unswap",
]

Tensor = torch.Tensor
Model = TypeVar("Model", bound=nn.Module)


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d.

    >>> Conv2d(3, 8, 3, padding=1)(torch.zeros(1, 3, 5, 5)).shape
    torch.Size([1, 8, 5, 5])
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = nn.functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d.

    >>> ConvTranspose2d(3, 8, 2, stride=2)(torch.zeros(1, 3, 5, 5)).shape
    torch.Size([1, 8, 10, 10])
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        stride: Any = self.stride
        padding: Any = self.padding
        dilation: Any = self.dilation
        kernel: Any = self.kernel_size
        extra = self._output_padding(input, output_size, stride, padding, kernel, 2, dilation)
        return F.conv_transpose2d(input, self.weight, self.bias, stride, padding, extra, self.groups, dilation)


class Linear(nn.Linear):
    """torch.nn.Linear.

    >>> Linear(3, 8)(torch.zeros(2, 3)).shape
    torch.Size([2, 8])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class MaxPool2d(nn.MaxPool2d):
    """torch.nn.MaxPool2d.

    >>> MaxPool2d(2)(torch.zeros(1, 3, 4, 4)).shape
    torch.Size([1, 3, 2, 2])
    """

    def forward(self, input: Tensor) -> Any:
        how: Any = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        return F.max_pool2d(input, *how)


class AvgPool2d(nn.AvgPool2d):
    """torch.nn.AvgPool2d.

    >>> AvgPool2d(2)(torch.zeros(1, 3, 4, 4)).shape
    torch.Size([1, 3, 2, 2])
    """

    def forward(self, input: Tensor) -> Tensor:
        window: tuple[Any, Any, Any] = self.kernel_size, self.stride, self.padding
        return F.avg_pool2d(input, *window, self.ceil_mode, self.count_include_pad, self.divisor_override)


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d.

    >>> AdaptiveAvgPool2d(1)(torch.zeros(1, 3, 4, 4)).shape
    torch.Size([1, 3, 1, 1])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)


class BatchNorm2d(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d.

    >>> BatchNorm2d(3)(torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the mean over all batches so far
                momentum = 1.0 / float(self.num_batches_tracked)
        keeps = self.training and self.track_running_stats
        by_batch = self.training or self.running_mean is None
        mean, var = (self.running_mean, self.running_var) if keeps or not by_batch else (None, None)
        return F.batch_norm(input, mean, var, self.weight, self.bias, by_batch, momentum, self.eps)


class ReLU(nn.ReLU):
    """torch.nn.ReLU, never in place.

    >>> ReLU()(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)


# torch's layer and ours.  The class alone changes hands: both hold the same parameters, buffers and hooks.
_OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: Conv2d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.Linear: Linear,
    nn.MaxPool2d: MaxPool2d,
    nn.AvgPool2d: AvgPool2d,
    nn.AdaptiveAvgPool2d: AdaptiveAvgPool2d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.ReLU: ReLU,
}


def swap(model: Model, only: type[nn.Module] | tuple[type[nn.Module], ...] | None = None) -> Model:
    """Have a PyTorch model's layers computed by pycnn, in place; `swapped` lists them.

    Each layer stays the object it was, with its parameters, buffers, hooks, state_dict and place in optimisers.  What
    pycnn has no layer for stays torch's, and so do layers of a subclass, whose forward may do something else, and
    a ReLU in place.

    Args:
        model: any module, a single layer too.
        only: layers of these classes of torch.nn; None for all that pycnn has.

    Returns:
        `model` itself.

    Raises:
        TypeError: no module, or an `only` that pycnn has no layer for.
        ValueError: a model without any such layer.

    >>> model = swap(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(32, 10)))
    >>> swapped(model)
    {'0': 'Conv2d', '3': 'Linear'}
    >>> swapped(swap(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 10)), only=nn.Linear))
    {'1': 'Linear'}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    wanted = tuple(_OURS) if only is None else only if isinstance(only, tuple) else (only,)
    for one in wanted:
        if one not in _OURS:
            names = ", ".join(known.__name__ for known in _OURS)
            raise TypeError(f"only must be layers that pycnn has ({names}), got {one!r}")
    for layer in model.modules():
        if type(layer) in wanted and not getattr(layer, "inplace", False):
            layer.__class__ = _OURS[type(layer)]
    if not swapped(model):
        raise ValueError(f"model has no layer of {', '.join(one.__name__ for one in wanted)}; nothing was swapped")
    return model


def unswap(model: Model) -> Model:
    """Have a PyTorch model's layers computed by torch again, in place: the way back from `swap`.

    For what takes torch's own layers only, such as torch.onnx.export, torch.jit.script and torch.fx, and to save a
    whole model for those who do not have pycnn (a state_dict is the same anyway).

    Args:
        model: any module.  Layers that were made as pycnn's become torch's, too.

    Returns:
        `model` itself.

    Raises:
        TypeError: no module.

    >>> swapped(unswap(swap(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 10)))))
    {}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    theirs = {mine: other for other, mine in _OURS.items()}
    for layer in model.modules():
        layer.__class__ = theirs.get(type(layer), type(layer))
    return model


def swapped(model: nn.Module) -> dict[str, str]:
    """The layers of a model that pycnn computes: what they are called in it, and their class.

    >>> swapped(nn.Sequential(nn.Conv2d(3, 8, 3), Conv2d(8, 8, 3)))
    {'1': 'Conv2d'}
    """
    ours = tuple(_OURS.values())
    return {name: type(layer).__name__ for name, layer in model.named_modules() if isinstance(layer, ours)}
