"""How the networks draw the weights of a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycnn import nn
from pycnn.nn import init
from pycnn.tensor import Tensor

__all__ = ["draw"]


def draw(layer: nn.Conv2d | nn.Linear, weight: Callable[..., Tensor], *settings: Any, bias: float = 0.0) -> None:
    """Draw the layer's weights as ``weight(tensor, *settings)`` does, and set its biases, if it has them, to `bias`."""
    weight(layer.weight, *settings)
    if layer.bias is not None:
        init.constant_(layer.bias, bias)
