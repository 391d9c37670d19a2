"""The ReLU family and its relatives as layers; `functional` has their equations and references.

`inplace` is accepted for PyTorch's sake and has no effect: the result is always a new tensor.
"""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn import init
from pycnn.nn.module import Module
from pycnn.nn.parameter import Parameter, unset
from pycnn.shape import whole
from pycnn.tensor import Tensor

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "Mish",
    "PReLU",
    "ReLU6",
    "SiLU",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanhshrink",
    "Threshold",
]


class LeakyReLU(Module):
    """x where x > 0, else negative_slope * x.

    >>> import pycnn
    >>> pycnn.nn.LeakyReLU(0.5)(pycnn.tensor([-1.0, 2.0])).tolist()
    [-0.5, 2.0]
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where x > 0, else alpha * (e^x - 1).

    >>> import pycnn
    >>> pycnn.nn.ELU()(pycnn.tensor([-1000.0, 2.0])).tolist()
    [-1.0, 2.0]
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Any) -> Tensor:
        return F.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class CELU(Module):
    """x where x > 0, else alpha * (e^(x / alpha) - 1).

    >>> import pycnn
    >>> pycnn.nn.CELU(3.0)(pycnn.tensor([-1000.0, 2.0])).tolist()
    [-3.0, 2.0]
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Any) -> Tensor:
        return F.celu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class SELU(Module):
    """ELU with the two constants that keep mean 0 and variance 1.

    >>> import pycnn
    >>> pycnn.nn.SELU()(pycnn.tensor([0.0])).tolist()
    [0.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Any) -> Tensor:
        return F.selu(x)


class GELU(Module):
    """x * Phi(x); `approximate` is "none" or "tanh".

    >>> import pycnn
    >>> pycnn.nn.GELU()(pycnn.tensor([0.0])).tolist()
    [0.0]
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x * sigmoid(x).

    >>> import pycnn
    >>> pycnn.nn.SiLU()(pycnn.tensor([0.0])).tolist()
    [0.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Any) -> Tensor:
        return F.silu(x)


class Mish(Module):
    """x * tanh(log(1 + e^x)).

    >>> import pycnn
    >>> pycnn.nn.Mish()(pycnn.tensor([0.0])).tolist()
    [0.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Any) -> Tensor:
        return F.mish(x)


class Softplus(Module):
    """log(1 + e^(beta x)) / beta, and x where beta * x > threshold.

    >>> import pycnn
    >>> pycnn.nn.Softplus()(pycnn.tensor([100.0])).tolist()
    [100.0]
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, x: Any) -> Tensor:
        return F.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardtanh(Module):
    """x, at least min_val and at most max_val.

    >>> import pycnn
    >>> pycnn.nn.Hardtanh()(pycnn.tensor([-3.0, 0.5])).tolist()
    [-1.0, 0.5]
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.min_val = min_val
        self.max_val = max_val

    def forward(self, x: Any) -> Tensor:
        return F.hardtanh(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"


class ReLU6(Module):
    """x, at least 0 and at most 6.

    >>> import pycnn
    >>> pycnn.nn.ReLU6()(pycnn.tensor([-3.0, 9.0])).tolist()
    [0.0, 6.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Any) -> Tensor:
        return F.relu6(x)


class Hardsigmoid(Module):
    """relu6(x + 3) / 6.

    >>> import pycnn
    >>> pycnn.nn.Hardsigmoid()(pycnn.tensor([0.0, 4.0])).tolist()
    [0.5, 1.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Any) -> Tensor:
        return F.hardsigmoid(x)


class Hardswish(Module):
    """x * relu6(x + 3) / 6.

    >>> import pycnn
    >>> pycnn.nn.Hardswish()(pycnn.tensor([0.0, 4.0])).tolist()
    [0.0, 4.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Any) -> Tensor:
        return F.hardswish(x)


class LogSigmoid(Module):
    """log(sigmoid(x)).

    >>> import pycnn
    >>> pycnn.nn.LogSigmoid()(pycnn.tensor([-1000.0])).tolist()
    [-1000.0]
    """

    def forward(self, x: Any) -> Tensor:
        return F.logsigmoid(x)


class Softsign(Module):
    """x / (1 + |x|).

    >>> import pycnn
    >>> pycnn.nn.Softsign()(pycnn.tensor([-1.0, 3.0])).tolist()
    [-0.5, 0.75]
    """

    def forward(self, x: Any) -> Tensor:
        return F.softsign(x)


class Hardshrink(Module):
    """0 where |x| <= lambd, else x.

    >>> import pycnn
    >>> pycnn.nn.Hardshrink()(pycnn.tensor([0.5, 1.0])).tolist()
    [0.0, 1.0]
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, x: Any) -> Tensor:
        return F.hardshrink(x, self.lambd)

    def extra_repr(self) -> str:
        return f"lambd={self.lambd}"


class Softshrink(Module):
    """0 where |x| <= lambd, else x, closer to 0 by lambd.

    >>> import pycnn
    >>> pycnn.nn.Softshrink()(pycnn.tensor([0.5, 1.0])).tolist()
    [0.0, 0.5]
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, x: Any) -> Tensor:
        return F.softshrink(x, self.lambd)

    def extra_repr(self) -> str:
        return f"lambd={self.lambd}"


class Tanhshrink(Module):
    """x - tanh(x).

    >>> import pycnn
    >>> pycnn.nn.Tanhshrink()(pycnn.tensor([0.0])).tolist()
    [0.0]
    """

    def forward(self, x: Any) -> Tensor:
        return F.tanhshrink(x)


class Threshold(Module):
    """x where x > threshold, else value.

    >>> import pycnn
    >>> pycnn.nn.Threshold(0.5, 7.0)(pycnn.tensor([0.5, 1.0])).tolist()
    [7.0, 1.0]
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value

    def forward(self, x: Any) -> Tensor:
        return F.threshold(x, self.threshold, self.value)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}"


class GLU(Module):
    """The first half along `dim`, times the sigmoid of the second.

    >>> import pycnn
    >>> pycnn.nn.GLU()(pycnn.tensor([4.0, 0.0])).tolist()
    [2.0]
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return F.glu(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class PReLU(Module):
    """x where x > 0, else weight * x, the weight learned.

    Args:
        num_parameters: 1, or as many as there are channels.
        init: what the weight is at first.

    Attributes:
        weight: (num_parameters,).

    Raises:
        ValueError: fewer than one parameter; when called, input of another number of channels.

    >>> import pycnn
    >>> pycnn.nn.PReLU()(pycnn.tensor([-1.0, 2.0])).tolist()
    [-0.25, 2.0]
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.num_parameters = whole("num_parameters", num_parameters, 1)
        self.init = init
        self.weight = Parameter(unset((num_parameters,)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The weight as it is at first."""
        init.constant_(self.weight, self.init)

    def forward(self, x: Any) -> Tensor:
        return F.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"
