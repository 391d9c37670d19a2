"""Normalisation layers: batch norm and local response normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.nn import init
from pycnn.nn.module import Module
from pycnn.nn.parameter import Parameter, unset
from pycnn.shape import whole
from pycnn.tensor import Tensor

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LocalResponseNorm"]


class ChannelNorm(Module):
    """What batch and instance norm share: weight and bias of each channel, and running statistics, or neither."""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    _may_lack = frozenset({"num_batches_tracked"})

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = whole("num_features", num_features, 1)
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.weight = Parameter(unset((num_features,))) if affine else None
        self.bias = Parameter(unset((num_features,))) if affine else None
        for name, value in (
            ("running_mean", np.zeros(num_features, np.float32)),
            ("running_var", np.ones(num_features, np.float32)),
            ("num_batches_tracked", np.zeros((), np.int64)),
        ):
            self.register_buffer(name, Tensor(value) if track_running_stats else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Forget the running statistics; weight 1, bias 0."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"


class _BatchNorm(ChannelNorm):
    _ranks: tuple[int, ...] = ()

    def forward(self, x: Any, residual: Any = None, relu: bool = False) -> Tensor:
        if len(x.shape) not in self._ranks:
            raise ValueError(
                f"{type(self).__name__} takes input of rank {' or '.join(map(str, self._ranks))}, got shape {x.shape}"
            )
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the plain mean of all batches so far
                momentum = 1.0 / int(self.num_batches_tracked)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
            residual,
            relu,
        )


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W): each channel to mean 0, variance 1 over the batch, then weight and bias.

    Called with ``(x, residual, relu=True)``, it gives ``relu(bn(x) + residual)`` in one pass over memory, see
    `functional.batch_norm`.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: share of the new batch in the running statistics; None takes the plain mean of all batches.
        affine: whether to have weight and bias.
        track_running_stats: whether to keep running statistics for `eval`; without, batch statistics are always used.

    Attributes:
        weight, bias: (C,), 1 and 0 at first; None without `affine`.
        running_mean, running_var: (C,), 0 and 1 at first; None without `track_running_stats`.

    Raises:
        ValueError: when called, input of another rank or number of channels, or one value a channel in training.

    Reference: Ioffe & Szegedy, "Batch Normalization", 2015.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> x = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    >>> nn.BatchNorm2d(1)(x).std(correction=0).item() > 0.99
    True
    """

    _ranks = (4,)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L); arguments as `BatchNorm2d`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.BatchNorm1d(3).eval()(np.ones((2, 3), np.float32)).shape
    (2, 3)
    """

    _ranks = (2, 3)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W); arguments as `BatchNorm2d`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.BatchNorm3d(3).eval()(np.ones((2, 3, 1, 2, 2), np.float32)).shape
    (2, 3, 1, 2, 2)
    """

    _ranks = (5,)


class LocalResponseNorm(Module):
    """x / (k + alpha/size * sum of x^2 over `size` neighbouring channels)^beta, as torch.nn.LocalResponseNorm.

    Args:
        size: channels in a window, at least 1.
        alpha, beta, k: the constants.

    Reference: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep CNNs", 2012, section 3.3; its alpha
    is ours divided by `size`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.LocalResponseNorm(1, alpha=1.0, beta=1.0)(np.ones((1, 2, 1), np.float32)).tolist()
    [[[0.5], [0.5]]]
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = whole("size", size, 1)
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, x: Any) -> Tensor:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
