"""What the tests of mixed precision share: a small network, and optimisers that are given their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import Tensor, nn, optim
from pycnn import functional as F

RNG = np.random.default_rng(0)


def normal(*shape: int, dtype: Any = np.float32, grad: bool = False) -> Tensor:
    return Tensor(RNG.standard_normal(shape, np.float32).astype(dtype), requires_grad=grad)


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.fc = nn.BatchNorm2d(8), nn.Linear(8 * 16, 5)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.norm(self.conv1(x)))
        return self.fc(F.flatten(F.max_pool2d(F.relu(self.conv2(x)) + x, 2), 1))


def of(gradients: Any, dtype: Any = np.float32, kind: Any = optim.SGD, **options: Any) -> tuple[Any, Any]:
    """Parameters of these shapes with an optimiser, float32 if not said."""
    params = [Tensor(np.ones(np.shape(one)).astype(dtype), requires_grad=True) for one in gradients]
    return params, kind(params, **({"lr": 0.1} | options))


def give(params: list[Tensor], gradients: Any, factor: float) -> None:
    for parameter, gradient in zip(params, gradients, strict=True):
        parameter.grad = Tensor((np.asarray(gradient, np.float32) * np.float32(factor)).astype(parameter.dtype))
