"""`Parameter`: a tensor that a module registers and an optimiser updates."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.tensor import Tensor

__all__ = ["Parameter", "changed", "unset"]


class Parameter(Tensor):
    """A tensor that, assigned to a `Module`, becomes one of its parameters.

    >>> Parameter([1.0, 2.0])
    Parameter containing: tensor([1., 2.], requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad=requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing: {super().__repr__()}"


def unset(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A float32 array for an initialiser to fill: zeros, which take no memory until they are written."""
    return np.zeros(shape, np.float32)


def changed(tensor: Tensor) -> None:
    """Tell autograd that the array of `tensor` was written to, so that a stale saved value is noticed."""
    tensor.data = tensor.data
