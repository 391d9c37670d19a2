"""torch.func's transforms over pycnn's operators: the gradients that torch's own layers have."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
nn, func = torch.nn, torch.func
ours = importlib.import_module("pycnn.torch")

# float64: sums of at most some hundred products of values under 10, in another order.
NEAR = {"rtol": 1e-9, "atol": 1e-10}


def network() -> Any:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 2, 2, stride=2),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d((2, 1)),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()


class Both:
    """A network's loss as a function of its parameters, computed by torch's layers and by ours."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        net = network()
        self.parameters = {name: one.detach() for name, one in net.named_parameters()}
        self.x = torch.randn(3, 2, 2, 6, 6, dtype=torch.float64)  # three batches of two images
        mine = ours.swap(network())
        self.losses = [lambda p, x, net=net: func.functional_call(net, p, (x,)).square().sum() for net in (net, mine)]

    def __call__(self, transform: Callable[[Any, Any, Any], Any]) -> None:
        right, found = (transform(loss, self.parameters, self.x) for loss in self.losses)
        torch.testing.assert_close(found, right, **NEAR)


TRANSFORMS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "grad": lambda loss, p, x: func.grad(loss, (0, 1))(p, x[0]),
    "grad of grad": lambda loss, p, x: func.grad(
        lambda p: sum(slope.square().sum() for slope in func.grad(loss)(p, x[0]).values())
    )(p),
    "vjp": lambda loss, p, x: func.vjp(lambda x: loss(p, x), x[0])[1](torch.ones((), dtype=x.dtype)),
    "jacrev": lambda loss, p, x: func.jacrev(lambda x: torch.stack([loss(p, x), loss(p, 2 * x)]))(x[0]),
    "a gradient a batch": lambda loss, p, x: func.vmap(func.grad(loss), (None, 0))(p, x),
    "a gradient a network": lambda loss, p, x: func.vmap(func.grad(loss), (0, None))(
        {name: torch.stack([one, 2 * one]) for name, one in p.items()}, x[0]
    ),
    "gradient of many": lambda loss, p, x: func.grad(lambda p: func.vmap(lambda x: loss(p, x))(x).sum())(p),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_give_torchs_gradients(transform: str) -> None:
    Both()(TRANSFORMS[transform])


def test_vmap_compiles_without_a_break() -> None:
    x, w = torch.randn(2, 3, 6, 6), torch.randn(2, 4, 3, 3, 3)
    many = func.vmap(lambda w: ours.conv2d(x, w))
    found = torch.compile(many, backend="eager", fullgraph=True)(w)
    torch.testing.assert_close(found, many(w), rtol=0, atol=0)
    torch._dynamo.reset()


def test_forward_mode_is_refused() -> None:
    x, w = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3)
    with pytest.raises(NotImplementedError, match="jvp"):
        func.jvp(lambda x: ours.conv2d(x, w), (x,), (x,))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        ours.conv2d(torch.autograd.forward_ad.make_dual(x, x), w)
