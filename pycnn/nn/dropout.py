"""Dropout of whole channels, and of elements with mean and variance kept, as layers; in `eval` they do nothing."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn.linear import Dropout
from pycnn.tensor import Tensor

__all__ = ["AlphaDropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class Dropout1d(Dropout):
    """In training, zero each channel of (N, C, L) or (C, L) with probability `p` and scale the rest by 1/(1 - p).

    >>> import pycnn
    >>> pycnn.nn.Dropout1d(1.0)(pycnn.ones(1, 2)).tolist()
    [[0.0, 0.0]]
    """

    def forward(self, x: Any) -> Tensor:
        return F.dropout1d(x, self.p, self.training)


class Dropout2d(Dropout):
    """In training, zero each channel of (N, C, H, W) or (N, C, L) with probability `p`, as `Dropout1d`.

    >>> import pycnn
    >>> pycnn.nn.Dropout2d(1.0)(pycnn.ones(1, 1, 2)).tolist()
    [[[0.0, 0.0]]]
    """

    def forward(self, x: Any) -> Tensor:
        return F.dropout2d(x, self.p, self.training)


class Dropout3d(Dropout):
    """In training, zero each channel of (N, C, D, H, W) or (C, D, H, W) with probability `p`, as `Dropout1d`.

    >>> import pycnn
    >>> pycnn.nn.Dropout3d(1.0)(pycnn.ones(1, 1, 1, 2)).tolist()
    [[[[0.0, 0.0]]]]
    """

    def forward(self, x: Any) -> Tensor:
        return F.dropout3d(x, self.p, self.training)


class AlphaDropout(Dropout):
    """In training, `functional.alpha_dropout`: dropout that keeps mean 0 and variance 1.

    >>> import pycnn
    >>> pycnn.nn.AlphaDropout(0.5).eval()(pycnn.ones(2)).tolist()
    [1.0, 1.0]
    """

    def forward(self, x: Any) -> Tensor:
        return F.alpha_dropout(x, self.p, self.training)


class FeatureAlphaDropout(Dropout):
    """In training, `functional.feature_alpha_dropout`: `AlphaDropout` of whole channels.

    >>> import pycnn
    >>> pycnn.nn.FeatureAlphaDropout(0.5).eval()(pycnn.ones(1, 2)).tolist()
    [[1.0, 1.0]]
    """

    def forward(self, x: Any) -> Tensor:
        return F.feature_alpha_dropout(x, self.p, self.training)
