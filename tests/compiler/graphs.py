"""Small networks, each awkward in its own way, and weights that are not trivial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pycnn
from pycnn import functional as F
from pycnn import nn


class Net(nn.Module):
    """A network of these layers, whose forward is `function(self, *inputs)`."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def varied(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with batch norms that do something, in training mode as it came."""
    rng = np.random.default_rng(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            size = module.num_features
            module.running_mean.data[...] = 0.2 * rng.standard_normal(size)
            module.running_var.data[...] = rng.uniform(0.5, 1.5, size)
            if module.affine:
                module.weight.data[...] = rng.uniform(0.5, 1.5, size)
                module.bias.data[...] = 0.2 * rng.standard_normal(size)
    return model


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def conv(c: int, k: int, size: Any = 3, **options: Any) -> nn.Conv2d:
    if "padding" not in options:
        options["padding"] = size // 2
    return nn.Conv2d(c, k, size, **options)


def _block(c: int, k: int) -> nn.Sequential:
    return nn.Sequential(conv(c, k, bias=False), nn.BatchNorm2d(k), nn.ReLU())


def _clamped(net: Any, x: Any) -> Any:
    y = net.a(x)
    return y.clamp(-0.5, 0.3), y.clamp(max=0.2) * y.clamp(min=-0.1)


def _inverted(net: Any, x: Any) -> Any:
    x = F.relu6(net.bn(net.stem(x)))
    return x + net.down(F.relu6(net.depthwise(F.relu6(net.up(x))))), F.relu6(x + net.down(x.clamp(-0.5, 0.25)))


def _squeezed(net: Any, x: Any) -> Any:
    x = net.a(x)
    s = F.hardsigmoid(net.up(F.relu(net.down(F.adaptive_avg_pool2d(x, 1)))))
    return net.b(F.relu(s * x)), x * F.sigmoid(F.adaptive_avg_pool2d(x, 1))


def _shuffled(net: Any, x: Any) -> Any:
    x = net.b(net.a(x))
    n, c, h, w = x.shape
    return net.c(x.reshape(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w))


def _turned(net: Any, x: Any) -> Any:
    x = net.a(x)
    return net.fc(x.permute(0, 2, 3, 1).flatten(1)), x.transpose(2, 3)


def _residual_both(net: Any, x: Any) -> Any:
    x = net.stem(x)
    first = F.relu(net.a(x) + x)  # the convolution is the first operand
    return F.relu(first + net.b(first))  # and the second


def _late_first(net: Any, x: Any) -> Any:
    x = net.stem(x)
    late, early = net.a(x), net.b(x)
    return early + late  # the operand that is computed last stands first


def _two_convs_into_one_sum(net: Any, x: Any) -> Any:
    return net.a(x) + net.b(x) + net.a(x)


def _relu_twice(net: Any, x: Any) -> Any:
    x = net.a(x)
    return F.relu(x) + F.relu(F.relu(x) - 0.25) + x


def _shared(net: Any, x: Any) -> Any:
    x = net.stem(x)
    return F.cat([net.a(x), x, net.b(x), F.max_pool2d(x, 3, 1, 1)], 1) * 0.5


def _concat_of_concat(net: Any, x: Any) -> Any:
    x = net.stem(x)
    inner = F.cat([net.a(x), net.b(x)], 1)
    outer = F.cat([inner, F.cat([net.c(x), inner], 1), x, x], 1)
    return net.out(outer)


def _part_used_later(net: Any, x: Any) -> Any:
    a, b = net.a(x), net.b(x)
    whole = F.cat([a, b], 1)
    return whole + F.cat([F.relu(b), F.tanh(a)], 1)


def _spatial(net: Any, x: Any) -> Any:
    x = net.a(x)
    rows = F.cat([x, F.relu(x), x[:, :, 1:-1]], 2)
    return net.b(F.cat([rows, rows[:, :, :, ::2]], 3))


def _intermediate_output(net: Any, x: Any) -> Any:
    hidden = net.a(x)
    return {"logits": net.fc(hidden.flatten(1)), "hidden": hidden, "again": [hidden, None]}


def _gates(net: Any, x: Any) -> Any:
    x = net.a(x)
    return x * F.sigmoid(x) - 2.0 * x / 3.0 + x**2


def _option_a(net: Any, x: Any) -> Any:
    x = net.stem(x)
    c = x.shape[1]
    return F.relu(net.a(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, c)))


def _pads(net: Any, x: Any) -> Any:
    x = net.a(F.pad(x, (1, 2, 3, 0)))
    y = F.pad(x, (2, 1, 0, 1, 3, 2))
    return net.b(y), F.relu(F.pad(x, (1, 1)))


def _slices(net: Any, x: Any) -> Any:
    x = net.a(x)
    c = x.shape[1]
    return x[:, 1 : c - 1], x[:, 0], x[:, : c // 2, 1:, 2:-1], x[..., -1], x[:, None, :, ::3]


def _input_slices(net: Any, x: Any) -> Any:
    parts = [x[:, i : i + 1] * (0.5 + i) + 0.25 for i in range(x.shape[1])]
    return net.a(F.cat(parts, 1))


def _features(net: Any, x: Any) -> Any:
    x = net.fc(x)
    x = F.tanh(net.bn(x))
    y = F.cat([x, F.relu(x), x[:, 1:4]], 1)
    return F.log_softmax(net.out(y), 1), y.sum(1, keepdim=True), (x - net.fc.bias).mean(1)


def _flat_twice(net: Any, x: Any) -> Any:
    x = net.a(x)
    return net.fc(x.flatten(1)) + net.fc2(F.relu(x).flatten(1)), net.b(x)


def _back_to_images(net: Any, x: Any) -> Any:
    y = net.fc(x.flatten(1))
    return net.a(y.reshape(-1, 5, 4, 4)) + 1.0


def _rank_three(net: Any, x: Any) -> Any:
    x = net.a(x)
    n, c, h, w = x.shape
    y = F.relu(x.reshape(n, c, h * w) * 2.0)
    return F.softmax(y, 1), y.reshape(n, c * 2, -1), F.softmax(x, 3), y.transpose(1, 2).permute(0, 2, 1) + 0.5


def _two_inputs(net: Any, x: Any, y: Any) -> Any:
    return net.a(x) + net.b(y), x


def _means(net: Any, x: Any) -> Any:
    x = net.a(x)
    return x.mean((2, 3)), x.sum((2, 3), keepdim=True), F.adaptive_avg_pool2d(x, 1), x.amax((2, 3)), F.avg_pool2d(x, 7)


def _pools(net: Any, x: Any) -> Any:
    x = net.a(x)
    return (
        F.max_pool2d(x, 3, 2, ceil_mode=True),
        F.max_pool2d(x, (2, 3), (1, 2), (1, 0), dilation=2),
        F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        F.avg_pool2d(x, (1, 2), divisor_override=3),
        F.avg_pool2d(x, 1, divisor_override=3),
        F.avg_pool2d(x, 1),
        F.adaptive_avg_pool2d(x, (3, 2)),
        F.adaptive_max_pool2d(x, (2, 3)),
        F.adaptive_avg_pool2d(x, 9),
    )


def _groups(net: Any, x: Any) -> Any:
    x = net.stem(x)
    return net.two(x), F.relu(net.many(x)), F.relu(net.depthwise(x)), net.multiplier(x)


def _normalised(net: Any, x: Any) -> Any:
    x = F.local_response_norm(net.a(x), 5, 5e-4, 0.75, 2.0)
    return F.local_response_norm(net.bn(F.max_pool2d(x, 2)), 3)


def _pre_activation(net: Any, x: Any) -> Any:
    x = net.stem(x)
    return x + net.a(F.relu(net.bn(x)))


def _mixed_paddings(net: Any, x: Any) -> Any:
    """One activation read with a padding of 1, of 2 and of 3, by Winograd, and as features."""
    x = net.stem(x)
    return net.three(x) + net.five(x) + net.seven(x) + net.strided(F.pad(x, (2, 2, 2, 2))), net.fc(x.flatten(1))


def _part_as_features(net: Any, x: Any) -> Any:
    a = net.a(x)
    return F.cat([net.b(x), a], 1), net.fc(a.flatten(1))


def _inside_of_a_padding(net: Any, x: Any) -> Any:
    x = net.a(x)
    return F.max_pool2d(F.pad(x, (2, 1, 1, 2)), 3, 2), net.b(x)


def _inside_of_a_stack(net: Any, x: Any) -> Any:
    x = net.a(x)
    below, y = net.c(x), net.b(x)
    return F.cat([x, below], 2), y


def _half_of_a_vector(net: Any, x: Any) -> Any:
    half = net.bn(net.fc(x))
    return F.cat([half, F.relu(half)], 1), net.out(half), F.cat([F.tanh(half), half], 1)


def _squashed_late(net: Any, x: Any) -> Any:
    x = net.a(x)
    return net.b(x), F.tanh(x)


def _sum_over_a_part(net: Any, x: Any) -> Any:
    """A convolution whose input lies within the residual that its output is to replace."""
    u = F.relu(net.p(x))
    return F.relu(net.c(u) + F.cat([u, net.q(x)], 1))


def _sum_over_a_padding(net: Any, x: Any) -> Any:
    u = F.relu(net.p(x))
    return F.relu(net.c(u) + F.pad(u, (0, 0, 0, 0, 0, 32)))


def _part_after_its_whole(net: Any, x: Any) -> Any:
    """A part that is read once more after a step in the place of the whole."""
    a = F.relu(net.p(x))
    b = F.relu(net.q(x))
    return F.relu(net.bn(F.cat([a, b], 1))).mean((2, 3)), F.max_pool2d(a, 2)


def _parts_within_parts(net: Any, x: Any) -> Any:
    y = F.max_pool2d(net.p(x), 2)
    z = F.pad(F.cat([y, y], 1), (1, 1))
    return F.max_pool2d(z + z, 1), F.max_pool2d(y, 1)


def _input_again(net: Any, x: Any) -> Any:
    return F.tanh(F.pad(x, (1, 1, 1, 1))), x


def _twice_an_output(net: Any, x: Any) -> Any:
    y = F.softmax(x, 1)
    return y.reshape((y.shape[0], 8, 1, 3)), y, y


Case = tuple[Callable[[], nn.Module], list[tuple[int, ...]]]

# Name: (network, shapes of its inputs, without the batch).  Channels of 5, 17 and 33 fill no vector up.
GRAPHS: dict[str, Case] = {
    "input returned": (lambda: Net(lambda net, x: x), [(3, 4, 5)]),
    "input twice": (lambda: Net(lambda net, x: (x, [x, F.relu(x)])), [(3, 4, 5)]),
    "plain": (lambda: nn.Sequential(_block(3, 33), nn.MaxPool2d(2), _block(33, 17)), [(3, 9, 11)]),
    "wide input": (lambda: nn.Sequential(_block(40, 33), nn.Dropout(0.5), _block(33, 64)), [(40, 7, 7)]),
    "residual both ways": (
        lambda: Net(_residual_both, stem=_block(3, 17), a=conv(17, 17), b=conv(17, 17)),
        [(3, 9, 9)],
    ),
    "late first": (lambda: Net(_late_first, stem=_block(3, 32), a=conv(32, 5), b=conv(32, 5, 1)), [(3, 8, 8)]),
    "three sums": (lambda: Net(_two_convs_into_one_sum, a=conv(3, 20), b=conv(3, 20, 5)), [(3, 8, 8)]),
    "relu twice": (lambda: Net(_relu_twice, a=conv(3, 33)), [(3, 5, 5)]),
    "shared": (lambda: Net(_shared, stem=_block(3, 16), a=conv(16, 32), b=conv(16, 48, 5)), [(3, 8, 8)]),
    "shared, odd": (lambda: Net(_shared, stem=_block(3, 17), a=conv(17, 33), b=conv(17, 5, 5)), [(3, 7, 9)]),
    "concat of concat": (
        lambda: Net(
            _concat_of_concat, stem=_block(3, 16), a=conv(16, 32), b=conv(16, 16), c=conv(16, 64), out=conv(192, 8)
        ),
        [(3, 6, 6)],
    ),
    "concat of concat, odd": (
        lambda: Net(_concat_of_concat, stem=_block(3, 5), a=conv(5, 3), b=conv(5, 17), c=conv(5, 16), out=conv(66, 33)),
        [(3, 6, 6)],
    ),
    "part used later": (lambda: Net(_part_used_later, a=conv(3, 32), b=conv(3, 32)), [(3, 6, 6)]),
    "joined along rows and columns": (lambda: Net(_spatial, a=conv(3, 17), b=conv(17, 5)), [(3, 6, 7)]),
    "intermediate output": (lambda: Net(_intermediate_output, a=_block(3, 17), fc=nn.Linear(17 * 30, 7)), [(3, 5, 6)]),
    "squared errors": (
        lambda: Net(lambda net, x: F.mse_loss(net.a(x), x[:, :2], "none"), a=conv(3, 2)),
        [(3, 6, 6)],
    ),
    "gates": (lambda: Net(_gates, a=conv(3, 17)), [(3, 6, 6)]),
    "gates on whole vectors": (lambda: Net(_gates, a=conv(3, 32)), [(3, 6, 6)]),
    "option A": (lambda: Net(_option_a, stem=_block(3, 16), a=conv(16, 32, stride=2)), [(3, 9, 9)]),
    "option A, odd": (lambda: Net(_option_a, stem=_block(3, 5), a=conv(5, 10, stride=2)), [(3, 9, 9)]),
    "pads": (lambda: Net(_pads, a=conv(3, 17), b=conv(22, 5, 5)), [(3, 6, 7)]),
    "slices": (lambda: Net(_slices, a=conv(3, 33)), [(3, 6, 7)]),
    "slices on whole vectors": (lambda: Net(_slices, a=conv(3, 34)), [(3, 6, 7)]),
    "slices of the input": (lambda: Net(_input_slices, a=conv(3, 17, 5)), [(3, 6, 7)]),
    "features": (
        lambda: Net(_features, fc=nn.Linear(20, 10), bn=nn.BatchNorm1d(10), out=nn.Linear(23, 9)),
        [(20,)],
    ),
    "features on whole vectors": (
        lambda: Net(_features, fc=nn.Linear(32, 16), bn=nn.BatchNorm1d(16), out=nn.Linear(35, 16)),
        [(32,)],
    ),
    "flattened twice": (
        lambda: Net(_flat_twice, a=conv(3, 17), b=conv(17, 5), fc=nn.Linear(17 * 12, 6), fc2=nn.Linear(17 * 12, 6)),
        [(3, 3, 4)],
    ),
    "back to images": (lambda: Net(_back_to_images, fc=nn.Linear(36, 80), a=conv(5, 9)), [(4, 3, 3)]),
    "rank three": (lambda: Net(_rank_three, a=conv(3, 6)), [(3, 4, 5)]),
    "inverted residual": (
        lambda: Net(
            _inverted,
            stem=conv(3, 17),
            bn=nn.BatchNorm2d(17),
            up=conv(17, 17, 1),
            depthwise=conv(17, 17, groups=17),
            down=conv(17, 17, 1),
        ),
        [(3, 6, 7)],
    ),
    "sum of first layers": (
        lambda: Net(lambda net, x: F.relu(net.a(x) + net.b(x)), a=conv(3, 20), b=conv(3, 20, 5)),
        [(3, 6, 6)],
    ),
    "features of a part": (
        lambda: Net(_part_as_features, a=conv(3, 32), b=conv(3, 32), fc=nn.Linear(384, 5)),
        [(3, 3, 4)],
    ),
    "inside of a padding": (lambda: Net(_inside_of_a_padding, a=conv(3, 32), b=conv(32, 5, 5)), [(3, 6, 6)]),
    "inside of a stack": (
        lambda: Net(_inside_of_a_stack, a=conv(3, 32), b=conv(32, 5, 5), c=conv(32, 32, 1)),
        [(3, 6, 6)],
    ),
    "half of a vector": (
        lambda: Net(_half_of_a_vector, fc=nn.Linear(7, 32), bn=nn.BatchNorm1d(32), out=nn.Linear(32, 5)),
        [(7,)],
    ),
    "squashed before a padding": (lambda: nn.Sequential(conv(3, 32), nn.Tanh(), conv(32, 5, 5)), [(3, 6, 6)]),
    "squashed behind a padding": (lambda: Net(_squashed_late, a=conv(3, 32), b=conv(32, 5, 5)), [(3, 6, 6)]),
    "norm behind a ReLU": (
        lambda: nn.Sequential(conv(3, 17), nn.ReLU(), nn.BatchNorm2d(17), nn.BatchNorm2d(17, affine=False)),
        [(3, 6, 6)],
    ),
    "two inputs": (lambda: Net(_two_inputs, a=conv(3, 17), b=conv(20, 17, 1)), [(3, 6, 6), (20, 6, 6)]),
    "means": (lambda: Net(_means, a=conv(3, 17)), [(3, 7, 7)]),
    "pools": (lambda: Net(_pools, a=conv(3, 17)), [(3, 7, 8)]),
    "groups": (
        lambda: Net(
            _groups,
            stem=_block(3, 32),
            two=conv(32, 64, groups=2),
            many=conv(32, 24, groups=8, stride=2),
            depthwise=conv(32, 32, 5, groups=32),
            multiplier=conv(32, 64, groups=32),
        ),
        [(3, 7, 8)],
    ),
    "depthwise, odd": (lambda: nn.Sequential(_block(3, 17), conv(17, 17, stride=2, groups=17), nn.ReLU()), [(3, 7, 8)]),
    "normalised": (lambda: Net(_normalised, a=conv(3, 17), bn=nn.BatchNorm2d(17)), [(3, 8, 8)]),
    "pre-activation": (
        lambda: Net(_pre_activation, stem=conv(3, 17), a=conv(17, 17), bn=nn.BatchNorm2d(17)),
        [(3, 6, 6)],
    ),
    "mixed paddings": (
        lambda: Net(
            _mixed_paddings,
            stem=_block(3, 17),
            three=conv(17, 5, dilation=2, padding=2),
            five=conv(17, 5, 5),
            seven=conv(17, 5, (7, 1), padding=(3, 0)),
            strided=conv(17, 5, 5, padding=0),
            fc=nn.Linear(17 * 49, 4),
        ),
        [(3, 7, 7)],
    ),
    "first layers": (
        lambda: nn.Sequential(
            conv(3, 17, 7, stride=2), nn.ReLU(), conv(17, 9, (3, 5), padding=((0, 1), (2, 0)), dilation=(1, 2))
        ),
        [(3, 17, 19)],
    ),
    "sum over a part": (
        lambda: Net(_sum_over_a_part, p=conv(3, 32), q=conv(3, 32), c=conv(32, 64)),
        [(3, 6, 7)],
    ),
    "sum over a padding": (lambda: Net(_sum_over_a_padding, p=conv(3, 32), c=conv(32, 64)), [(3, 6, 7)]),
    "part after its whole": (
        lambda: Net(_part_after_its_whole, p=conv(3, 32), q=conv(3, 32), bn=nn.BatchNorm2d(64)),
        [(3, 6, 7)],
    ),
    "parts within parts": (lambda: Net(_parts_within_parts, p=conv(3, 32)), [(3, 6, 8)]),
    "the input again": (lambda: Net(_input_again), [(32, 4, 5)]),
    "an output twice": (lambda: Net(_twice_an_output), [(4, 2, 3)]),
    "array to array by Winograd": (lambda: conv(32, 32, algo="winograd_f4x4_3x3"), [(32, 9, 11)]),
    "array to array, strided": (lambda: nn.Sequential(conv(32, 17, stride=2), nn.ReLU()), [(32, 9, 11)]),
    "array to array, depthwise": (lambda: conv(32, 32, 5, stride=2, groups=32), [(32, 9, 21)]),
    "array to array, a pixel": (lambda: conv(17, 33, 1), [(17, 1, 1)]),
    "rectified": (
        lambda: nn.Sequential(
            *(conv(3, 17), nn.ReLU6(), conv(17, 17, groups=17), nn.Hardswish(), conv(17, 32, 1), nn.LeakyReLU(0.1)),
            *(nn.Softplus(), conv(32, 5), nn.GELU()),
        ),
        [(3, 6, 7)],
    ),
    "clamped": (lambda: Net(_clamped, a=conv(3, 17)), [(3, 5, 6)]),
    "squeezed and excited": (
        lambda: Net(_squeezed, a=conv(3, 17), down=conv(17, 5, 1), up=conv(5, 17, 1), b=conv(17, 8)),
        [(3, 6, 7)],
    ),
    "shuffled": (
        lambda: Net(_shuffled, a=conv(3, 32), b=conv(32, 32, groups=4), c=conv(32, 8, 1)),
        [(3, 6, 7)],
    ),
    "turned": (lambda: Net(_turned, a=conv(3, 17), fc=nn.Linear(17 * 30, 4)), [(3, 5, 6)]),
    "Winograd": (
        lambda: nn.Sequential(
            *(layer for tile in (2, 4, 6) for layer in (conv(17, 17, algo=f"winograd_f{tile}x{tile}_3x3"), nn.ReLU())),
        ),
        [(17, 13, 11)],
    ),
}


def make(name: str, batch: int = 2) -> tuple[nn.Module, list[np.ndarray]]:
    """The network of that name, always with the same weights, and inputs."""
    build, shapes = GRAPHS[name]
    pycnn.manual_seed(5)
    return varied(build()), [images(batch, *shape, seed=i) for i, shape in enumerate(shapes)]
