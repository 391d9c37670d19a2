"""Group, instance, layer and root-mean-square normalisation as layers; `functional` has their equations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.nn import init
from pycnn.nn.module import Module
from pycnn.nn.norm import ChannelNorm
from pycnn.nn.parameter import Parameter, unset
from pycnn.shape import whole
from pycnn.tensor import Tensor

__all__ = ["GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LayerNorm", "RMSNorm"]


class _Scaled(Module):
    """A layer whose weight is 1 and whose bias is 0 at first, where it has them."""

    weight: Parameter | None
    bias: Parameter | None

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class GroupNorm(_Scaled):
    """Each group of neighbouring channels of each sample to mean 0, variance 1, then weight and bias by channel.

    Args:
        num_groups: how many groups the channels make.
        num_channels: C.
        eps: added to the variance.
        affine: whether to have weight and bias.

    Attributes:
        weight, bias: (C,), 1 and 0 at first; None without `affine`.

    Raises:
        ValueError: groups that do not divide the channels; when called, input of another number of channels.

    Reference: Wu & He, "Group normalization", ECCV 2018.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.GroupNorm(2, 4)(np.ones((1, 4, 2), np.float32)).shape
    (1, 4, 2)
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.num_groups = whole("num_groups", num_groups, 1)
        self.num_channels = whole("num_channels", num_channels, 1)
        if num_channels % num_groups:
            raise ValueError(f"num_groups must divide num_channels, got {num_groups} and {num_channels}")
        self.eps = eps
        self.affine = affine
        self.weight = Parameter(unset((num_channels,))) if affine else None
        self.bias = Parameter(unset((num_channels,))) if affine else None
        self.reset_parameters()

    def forward(self, x: Any) -> Tensor:
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LayerNorm(_Scaled):
    """The last dimensions of each sample to mean 0, variance 1, then weight and bias by element.

    Args:
        normalized_shape: the sizes of the last dimensions, an int for one.
        eps: added to the variance.
        elementwise_affine: whether to have a weight.
        bias: whether to have a bias beside it.

    Attributes:
        weight, bias: of `normalized_shape`, 1 and 0 at first; or None.

    Raises:
        ValueError: when called, input whose last dimensions are others.

    Reference: Ba, Kiros & Hinton, "Layer normalization", 2016.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.LayerNorm(2, elementwise_affine=False)(np.array([[1.0, 3.0]])).round(3).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.normalized_shape = _sizes(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight = Parameter(unset(self.normalized_shape)) if elementwise_affine else None
        self.bias = Parameter(unset(self.normalized_shape)) if elementwise_affine and bias else None
        self.reset_parameters()

    def forward(self, x: Any) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(_Scaled):
    """The last dimensions of each sample over their root mean square, then a weight by element.

    Args:
        normalized_shape: the sizes of the last dimensions, an int for one.
        eps: added to the mean of the squares; None for the distance from 1 to the next number of the input's dtype.
        elementwise_affine: whether to have a weight.

    Attributes:
        weight: of `normalized_shape`, 1 at first; or None.

    Raises:
        ValueError: when called, input whose last dimensions are others.

    Reference: Zhang & Sennrich, "Root mean square layer normalization", 2019.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.RMSNorm(2, elementwise_affine=False)(np.array([[1.0, -1.0]])).round(3).tolist()
    [[1.0, -1.0]]
    """

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None, elementwise_affine: bool = True
    ) -> None:
        super().__init__()
        self.normalized_shape = _sizes(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight = Parameter(unset(self.normalized_shape)) if elementwise_affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Any) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class _InstanceNorm(ChannelNorm):
    momentum: float
    _rank = 0  # with the dimension of the batch

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Any) -> Tensor:
        if len(x.shape) not in (self._rank - 1, self._rank):
            raise ValueError(
                f"{type(self).__name__} takes input of rank {self._rank - 1} or {self._rank}, got shape {x.shape}"
            )
        batch = x if len(x.shape) == self._rank else x.reshape(1, *x.shape)
        if batch.shape[1] != self.num_features:
            raise ValueError(f"x must have {self.num_features} channels, as num_features says, got shape {x.shape}")
        use_input_stats = self.training or self.running_mean is None
        statistics = (self.running_mean, self.running_var)
        y = F.instance_norm(batch, *statistics, self.weight, self.bias, use_input_stats, self.momentum, self.eps)
        return y if batch is x else y.reshape(*x.shape)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, track_running_stats={self.track_running_stats}"


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (N, C, L) or (C, L); arguments as `InstanceNorm2d`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.InstanceNorm1d(3)(np.ones((2, 3, 4), np.float32)).shape
    (2, 3, 4)
    """

    _rank = 3


class InstanceNorm2d(_InstanceNorm):
    """Each channel of each sample of (N, C, H, W) or (C, H, W) to mean 0, variance 1, then weight and bias.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: share of the new batch in the running statistics.
        affine: whether to have weight and bias.
        track_running_stats: whether to keep running statistics, by which it normalises in `eval`.

    Attributes:
        weight, bias: (C,), 1 and 0 at first; None without `affine`.
        running_mean, running_var: (C,), 0 and 1 at first; None without `track_running_stats`.

    Raises:
        ValueError: when called, input of another rank or number of channels, or one value a channel.

    Reference: Ulyanov, Vedaldi & Lempitsky, "Instance normalization", 2016.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.InstanceNorm2d(3)(np.ones((2, 3, 4, 4), np.float32)).shape
    (2, 3, 4, 4)
    """

    _rank = 4


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of (N, C, D, H, W) or (C, D, H, W); arguments as `InstanceNorm2d`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.InstanceNorm3d(3)(np.ones((2, 3, 1, 4, 4), np.float32)).shape
    (2, 3, 1, 4, 4)
    """

    _rank = 5


def _sizes(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (normalized_shape,) if isinstance(normalized_shape, (int, np.integer)) else tuple(normalized_shape)
    return tuple([whole(f"normalized_shape[{i}]", size, 0) for i, size in enumerate(sizes)])
