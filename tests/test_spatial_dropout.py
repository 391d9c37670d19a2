"""Dropout of whole channels and alpha dropout: what is dropped, how it is scaled, the stream, gradients, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import functional as F
from pycnn import nn

CHANNELS = {
    "dropout1d": [((4, 50, 6), 2), ((200, 6), 1)],
    "dropout2d": [((4, 50, 3, 2), 2), ((4, 50, 6), 2)],
    "dropout3d": [((4, 50, 2, 2, 2), 2), ((200, 2, 2, 2), 1)],
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("name", "shape", "leading"), [(n, *one) for n, all_ in CHANNELS.items() for one in all_])
def test_whole_channels_are_dropped_and_the_others_scaled(name: str, shape: tuple[int, ...], leading: int) -> None:
    x = pycnn.Tensor(np.arange(1, 1 + np.prod(shape), dtype=np.float64).reshape(shape), requires_grad=True)
    pycnn.manual_seed(3)
    y = getattr(F, name)(x, 0.25)
    factor = (y.detach().numpy() / x.data).reshape(*shape[:leading], -1)
    np.testing.assert_allclose(factor, np.broadcast_to(factor[..., :1], factor.shape), rtol=1e-15)
    dropped = factor[..., 0] == 0
    np.testing.assert_allclose(factor[..., 0][~dropped], 4 / 3, rtol=1e-15)
    assert 0.15 < dropped.mean() < 0.35  # 200 draws of 1/4: three deviations are 0.09
    (dx,) = pycnn.grad(y.sum(), x)
    np.testing.assert_allclose(dx.numpy().reshape(factor.shape), factor, rtol=1e-15)
    pycnn.manual_seed(3)
    np.testing.assert_array_equal(getattr(F, name)(x.detach(), 0.25).numpy(), y.detach().numpy())


@pytest.mark.parametrize("name", ["alpha_dropout", "feature_alpha_dropout"])
def test_mean_and_variance_are_kept(name: str) -> None:
    pycnn.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((200, 300))
    y = getattr(F, name)(x, 0.3, True)
    # 60,000 draws: four deviations of their mean and of their variance are below 0.03.
    assert abs(y.mean()) < 0.03
    assert abs(y.var() - 1) < 0.05
    lowest = np.bincount(np.unique(y, return_inverse=True)[1].ravel()).max() / y.size
    assert 0.28 < lowest < 0.32  # one value for all that was dropped
    assert not getattr(F, name)(x, 1.0, True).any()


def test_alpha_dropout_is_torchs_of_the_same_mask() -> None:
    """The two values of a dropped and a kept zero, as PyTorch's own."""
    torch = pytest.importorskip("torch")
    for p in (0.1, 0.5, 0.9):
        mine = np.unique(F.alpha_dropout(np.zeros(1000), p, True))
        theirs = np.unique(torch.nn.functional.alpha_dropout(torch.zeros(1000, dtype=torch.float64), p, True).numpy())
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("Dropout1d", (2, 3, 4)),
        ("Dropout2d", (2, 3, 4, 4)),
        ("Dropout3d", (2, 3, 1, 4, 4)),
        ("AlphaDropout", (2, 3)),
        ("FeatureAlphaDropout", (2, 3, 4)),
    ],
)
def test_layers(layer: str, shape: tuple[int, ...]) -> None:
    x = pycnn.ones(*shape)
    module = getattr(nn, layer)(0.5)
    pycnn.manual_seed(1)
    y = module(x)
    pycnn.manual_seed(1)
    function = {"AlphaDropout": "alpha_dropout", "FeatureAlphaDropout": "feature_alpha_dropout"}.get(
        layer, layer.lower()
    )
    np.testing.assert_array_equal(y.numpy(), getattr(F, function)(x, 0.5, True).numpy())
    np.testing.assert_array_equal(module.eval()(x).numpy(), x.numpy())
    assert repr(module) == f"{layer}(p=0.5)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.dropout1d(np.ones(3)), "dropout1d takes input of 2 or 3 dimensions"),
        (lambda: F.dropout2d(np.ones((2, 3))), "dropout2d takes input of 3 or 4 dimensions"),
        (lambda: F.dropout3d(np.ones((2, 3, 4))), "dropout3d takes input of 4 or 5 dimensions"),
        (lambda: F.feature_alpha_dropout(np.ones(3), 0.5, True), "at least 2 dimensions"),
        (lambda: F.dropout1d(np.ones((2, 3)), 1.5), "p must be a probability"),
        (lambda: F.alpha_dropout(np.ones(3), -0.5), "p must be a probability"),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
