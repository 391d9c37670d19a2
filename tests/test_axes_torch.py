"""Operators of one and three axes, padding and shuffles against PyTorch in float64, values, gradients and refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from beside_torch import agree, draw, same

import pycnn
from pycnn import Tensor, nn
from pycnn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional

CASES = 60
pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """torch's own threads only slow such small arrays down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_conv1d_agrees() -> None:
    ran = 0
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        groups = int(rng.choice([1, 1, 2, 3]))
        n, length, window, stride, dilation = (int(v) for v in rng.integers([0, 1, 1, 1, 1], [4, 20, 5, 4, 4]))
        c, k = (groups * int(v) for v in rng.integers(1, 4, 2))
        padding = int(rng.integers(0, 4)) if rng.random() < 0.7 else str(rng.choice(["same", "valid"]))
        lead = () if rng.random() < 0.2 else (n,)
        arrays = [rng.standard_normal((*lead, c, length)), rng.standard_normal((k, c // groups, window))]
        arrays += [rng.standard_normal(k)]
        how = (stride, padding, dilation, groups)
        ran += agree(
            lambda x, w, b, how=how: F.conv1d(x, w, b, *how),
            lambda x, w, b, how=how: TF.conv1d(x, w, b, *how),
            arrays,
            (seed, [array.shape for array in arrays], how),
        )
    assert ran > CASES // 2


def test_conv_transpose1d_agrees() -> None:
    ran = 0
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        groups = int(rng.choice([1, 1, 2, 3]))
        n, length, window, stride, dilation = (int(v) for v in rng.integers([1, 1, 1, 1, 1], [4, 9, 5, 4, 4]))
        c, k = (groups * int(v) for v in rng.integers(1, 4, 2))
        padding, extra = (int(v) for v in rng.integers(0, 3, 2))
        arrays = [rng.standard_normal((n, c, length)), rng.standard_normal((c, k // groups, window))]
        arrays += [rng.standard_normal(k)]
        how = (stride, padding, extra, groups, dilation)
        ran += agree(
            lambda x, w, b, how=how: F.conv_transpose1d(x, w, b, *how),
            lambda x, w, b, how=how: TF.conv_transpose1d(x, w, b, *how),
            arrays,
            (seed, [array.shape for array in arrays], how),
        )
    assert ran > CASES // 2


@pytest.mark.parametrize("axes", [1, 3])
def test_max_pooling_agrees_on_values_places_and_nan(axes: int) -> None:
    ours, theirs = getattr(F, f"max_pool{axes}d"), getattr(TF, f"max_pool{axes}d")
    ran = 0
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        size, window, stride = draw(rng, 1, 9, axes), draw(rng, 1, 4, axes), draw(rng, 1, 3, axes)
        padding, dilation = tuple(int(rng.integers(0, w // 2 + 1)) for w in window), draw(rng, 1, 2, axes)
        lead = (int(rng.integers(1, 4)),) if rng.random() < 0.2 else (int(rng.integers(0, 3)), 2)
        ceil, nan = bool(rng.integers(2)), rng.random() < 0.3
        x = rng.integers(-2, 3, (*lead, *size)).astype(np.float64)  # few values, so that maxima are not unique
        if nan:
            x[rng.random(x.shape) < 0.1] = np.nan
        how = (window, stride, padding, dilation, ceil, True)
        # A dilated window between the pixels has no maximum: torch's place for it lies outside, ours is -1.
        if any(d > 1 and (w - 1) * d >= s + p for d, w, s, p in zip(dilation, window, size, padding, strict=True)):
            continue
        ran += agree(
            lambda x, how=how: ours(x, *how),
            lambda x, how=how: theirs(x, *how),
            [x],
            (seed, x.shape, how),
            twice=not nan,
        )
    assert ran > CASES // 3


@pytest.mark.parametrize("axes", [1, 3])
def test_average_pooling_agrees(axes: int) -> None:
    ours, theirs = getattr(F, f"avg_pool{axes}d"), getattr(TF, f"avg_pool{axes}d")
    ran = 0
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        size, window, stride = draw(rng, 1, 9, axes), draw(rng, 1, 4, axes), draw(rng, 1, 3, axes)
        padding = tuple(int(rng.integers(0, w // 2 + 1)) for w in window)
        lead = (int(rng.integers(1, 4)),) if rng.random() < 0.2 else (int(rng.integers(0, 3)), 2)
        how = (window, stride, padding, bool(rng.integers(2)), bool(rng.integers(2)))
        if axes == 3:
            how += (int(rng.integers(1, 9)) if rng.random() < 0.4 else None,)
        if axes == 3 and any(s < w for s, w in zip(size, window, strict=True)):
            continue  # torch does not count the padding there, and refuses
        x = rng.standard_normal((*lead, *size))
        ran += agree(lambda x, how=how: ours(x, *how), lambda x, how=how: theirs(x, *how), [x], (seed, x.shape, how))
    assert ran > CASES // 3


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_adaptive_pooling_agrees(kind: str, axes: int) -> None:
    ours, theirs = getattr(F, f"adaptive_{kind}_pool{axes}d"), getattr(TF, f"adaptive_{kind}_pool{axes}d")
    rest = (True,) if kind == "max" else ()
    for seed in range(CASES // 2):
        rng = np.random.default_rng(seed)
        size, out = draw(rng, 1, 7, axes), draw(rng, 1, 5, axes)
        lead = (int(rng.integers(1, 4)),) if rng.random() < 0.2 else (int(rng.integers(1, 3)), 2)
        x = rng.integers(-3, 4, (*lead, *size)).astype(np.float64)
        assert agree(lambda x, out=out: ours(x, out, *rest), lambda x, out=out: theirs(x, out, *rest), [x], (seed, out))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("norm", [1, 2, 3.5, float("inf")])
def test_lp_pooling_agrees(norm: float, axes: int) -> None:
    ours, theirs = getattr(F, f"lp_pool{axes}d"), getattr(TF, f"lp_pool{axes}d")
    for seed in range(8):
        rng = np.random.default_rng(seed)
        size, window, stride = draw(rng, 4, 7, axes), draw(rng, 1, 3, axes), draw(rng, 1, 3, axes)
        x = np.abs(rng.standard_normal((2, 3, *size))) + 0.1  # a root of nearly 0 has no second derivative to speak of
        given = [one[0] if axes == 1 else one for one in (window, stride)]
        how = (norm, *given, bool(rng.integers(2)))
        assert agree(lambda x, how=how: ours(x, *how), lambda x, how=how: theirs(x, *how), [x], (seed, x.shape, how))


def test_lp_pooling_of_nothing_has_no_gradient_and_of_negative_sums_no_value() -> None:
    x = Tensor(np.array([[0.0, 0.0, -1.0, -1.0]]), requires_grad=True)
    y = F.lp_pool1d(x, 3, 2)
    y[:, :1].sum().backward()
    assert y.tolist()[0][0] == 0.0
    assert np.isnan(y.tolist()[0][1])
    assert x.grad is not None
    assert x.grad.tolist()[0][:2] == [0.0, 0.0]


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_padding_agrees(axes: int, mode: str) -> None:
    for seed in range(CASES // 2):
        rng = np.random.default_rng(seed)
        size = draw(rng, 1, 6, axes)
        most = {"reflect": 6, "circular": 7}.get(mode, 3)
        sides = [int(v) for v in rng.integers(0, most, 2 * axes)]
        x = rng.standard_normal((2, 3, *size))
        what = (seed, size, sides)
        agree(lambda x, s=sides: F.pad(x, s, mode), lambda x, s=sides: TF.pad(x, s, mode), [x], what)


def test_padding_of_edges_keeps_a_layout_and_rounds_16_bits_once() -> None:
    x = Tensor(np.zeros((2, 4, 5, 6), np.float32)).contiguous(memory_format=pycnn.channels_last)
    assert F.pad(x, (1, 2, 2, 1), "reflect").is_contiguous(pycnn.channels_last)
    x = Tensor(np.ones((1, 1, 1), np.float16), requires_grad=True)
    F.pad(x, (1500, 1500), "replicate").sum().backward()  # 16 bits alone stand still at 2048
    assert x.grad is not None
    assert x.grad.tolist() == [[[3001.0 // 2 * 2]]]  # an even neighbour: numbers of this size are 2 apart


@pytest.mark.parametrize("name", ["pixel_shuffle", "pixel_unshuffle", "channel_shuffle"])
def test_shuffles_agree(name: str) -> None:
    for seed, shape in enumerate([(8, 2, 4), (2, 12, 4, 2), (3, 2, 4, 6, 8)]):
        x = np.random.default_rng(seed).standard_normal(shape)
        theirs = TF.channel_shuffle if name == "channel_shuffle" else getattr(TF, name)
        agree(lambda x: getattr(F, name)(x, 2), lambda x, f=theirs: f(x, 2), [x], shape)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolution_layers_take_torchs_weights_and_padding_modes(axes: int, mode: str) -> None:
    arguments: dict[str, Any] = {"stride": 2, "padding": (1, 2, 1)[:axes], "dilation": 1, "groups": 2}
    theirs = getattr(torch.nn, f"Conv{axes}d")(4, 6, 3, padding_mode=mode, **arguments).double()
    ours = getattr(nn, f"Conv{axes}d")(4, 6, 3, padding_mode=mode, **arguments)
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.state_dict().items()})
    ours = ours.to(np.float64)
    x = np.random.default_rng(0).standard_normal((2, 4, 7, 8, 5)[: 2 + axes])
    theirs.load_state_dict({name: torch.from_numpy(value.numpy()) for name, value in ours.state_dict().items()})
    same(ours(Tensor(x)).detach(), theirs(torch.from_numpy(x)), mode)
    assert f"padding_mode='{mode}'" in repr(ours) or mode == "zeros"


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_transposed_layer_finds_the_padding_for_an_output_size(axes: int) -> None:
    theirs = getattr(torch.nn, f"ConvTranspose{axes}d")(4, 6, 3, stride=3, padding=1, bias=False).double()
    ours = getattr(nn, f"ConvTranspose{axes}d")(4, 6, 3, stride=3, padding=1, bias=False).to(np.float64)
    theirs.load_state_dict({name: torch.from_numpy(value.numpy()) for name, value in ours.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 6, 2)[: 2 + axes])
    size = (15, 18, 5)[:axes]
    same(ours(Tensor(x), size).detach(), theirs(torch.from_numpy(x), list(size)), size)
    with pytest.raises(ValueError, match="output_size must lie between 13 and 15"):
        ours(Tensor(x), (16, 18, 5)[:axes])


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: F.conv1d(np.ones((1, 2, 3, 4)), np.ones((1, 2, 1))),
        ValueError,
        r"3 dimensions \(N, C, L\) or 2",
    ),
    (lambda: F.conv1d(np.ones((1, 2, 3)), np.ones((1, 2, 1, 1))), ValueError, "w must have 3 dimensions"),
    (lambda: F.conv1d(np.ones((1, 2, 3)), np.ones((1, 2, 5))), ValueError, "smaller than 1"),
    (
        lambda: F.conv1d(np.ones((1, 2, 3)), np.ones((1, 2, 1)), None, (1, 1)),
        ValueError,
        "an int or one int",
    ),
    (
        lambda: F.conv1d(np.ones((1, 2, 3)), np.ones((1, 2, 1)), padding="most"),
        ValueError,
        "'valid' or numbers",
    ),
    (lambda: F.conv1d(np.ones((1, 2, 3)), np.ones((1, 2, 1)), None, 2, "same"), ValueError, "needs stride 1"),
    (lambda: F.conv1d([1.0], np.ones((1, 2, 1))), TypeError, "x must be a Tensor or an array"),
    (lambda: F.conv_transpose1d(np.ones((1, 2, 3)), np.ones((2, 1, 1)), padding="same"), ValueError, "must be numbers"),
    (lambda: F.max_pool1d(np.ones((1, 2, 3)), 2, 1, 2), ValueError, "at most half the window"),
    (lambda: F.max_pool3d(np.ones((1, 2, 3, 4)), (1, 2)), ValueError, "kernel_size must be an int or three ints"),
    (lambda: F.max_pool3d(np.ones((2, 3, 4)), 1), ValueError, r"5 dimensions \(N, C, D, H, W\) or 4"),
    (lambda: F.max_pool3d(np.ones((1, 2, 0, 4, 4)), 1), ValueError, "at least one channel, slice"),
    (lambda: F.adaptive_avg_pool3d(np.ones((1, 2, 3, 4)), (1, 2)), ValueError, "None or three of them"),
    (lambda: F.adaptive_max_pool1d(np.ones((2, 3)), 0), ValueError, "output_size must be between 1"),
    (lambda: F.lp_pool2d(np.ones((1, 2, 2)), 0, 1), ValueError, "norm_type must be a number other than 0"),
    (lambda: F.pixel_shuffle(np.ones((6, 1, 1)), 2), ValueError, "a multiple of 4 channels"),
    (lambda: F.pixel_unshuffle(np.ones((1, 2, 3)), 2), ValueError, "multiples of 2, got 2 x 3"),
    (lambda: F.channel_shuffle(np.ones((1, 3, 1)), 2), ValueError, "groups must divide the channels"),
    (lambda: nn.Conv1d(2, 2, 1, padding_mode="mirror"), ValueError, "padding_mode must be one of"),
    (lambda: nn.ConvTranspose1d(2, 2, 1, padding_mode="reflect"), ValueError, "'zeros' alone"),
    (lambda: nn.ReflectionPad3d((1, 2)), ValueError, "left, right, top, bottom, front, back"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_bad_input_is_refused_by_name(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("kind", ["Zero", "Constant", "Reflection", "Replication", "Circular"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_padding_layers_agree(kind: str, axes: int) -> None:
    sides = (1, 2, 0, 1, 2, 1)[: 2 * axes]
    value = (1.5,) if kind == "Constant" else ()
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 4, 5)[: 2 + axes])
    for given in (sides, 1):
        ours = getattr(nn, f"{kind}Pad{axes}d")(given, *value)
        theirs = getattr(torch.nn, f"{kind}Pad{axes}d")(given, *value)
        same(ours(Tensor(x)), theirs(torch.from_numpy(x)), (kind, axes, given))
        assert "padding" in repr(ours) or str(ours.padding) in repr(ours)


@pytest.mark.parametrize(
    "layer",
    [
        lambda nn: nn.MaxPool1d(3, 2, 1),
        lambda nn: nn.AvgPool1d(3, 2, 1),
        lambda nn: nn.LPPool1d(2, 3, 2),
        lambda nn: nn.AdaptiveAvgPool1d(3),
        lambda nn: nn.AdaptiveMaxPool1d(3),
    ],
)
def test_pooling_layers_of_sequences_agree(layer: Callable[[Any], Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 11))
    same(layer(nn)(Tensor(x)), layer(torch.nn)(torch.from_numpy(x)), layer)


@pytest.mark.parametrize(
    "layer",
    [
        lambda nn: nn.MaxPool3d((1, 2, 3), 2),
        lambda nn: nn.AvgPool3d(2, divisor_override=3),
        lambda nn: nn.LPPool3d(2, 2, 1),
        lambda nn: nn.AdaptiveAvgPool3d((2, None, 1)),
        lambda nn: nn.AdaptiveMaxPool3d(2),
    ],
)
def test_pooling_layers_of_volumes_agree(layer: Callable[[Any], Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6))
    same(layer(nn)(Tensor(x)), layer(torch.nn)(torch.from_numpy(x)), layer)


SIMULATED: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "conv1d": (lambda x: F.conv1d(x, WEIGHTS[0], None, 2, (2, 1), groups=2), (2, 4, 9)),
    "conv_transpose1d": (lambda x: F.conv_transpose1d(x, WEIGHTS[1], None, 2, 1, 1), (2, 4, 5)),
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, 2, 1), (2, 3, 9)),
    "max_pool3d": (lambda x: F.max_pool3d(x, (2, 3, 2), (2, 1, 2), (1, 1, 0), ceil_mode=True), (2, 3, 4, 5, 6)),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2, 1, divisor_override=4), (2, 3, 4, 5, 6)),
    "adaptive_max_pool3d": (lambda x: F.adaptive_max_pool3d(x, (2, 3, 4)), (2, 3, 4, 5, 6)),
    "adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x, (2, 3, 2)), (1, 2, 4, 6, 8)),
    "max_unpool1d": (lambda x: F.max_unpool1d(x, np.array([[[0, 3, 4]] * 3] * 2), 2), (2, 3, 3)),
    "pad": (lambda x: F.pad(x, (2, 1, 0, 3), "reflect"), (2, 3, 4, 5)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), (2, 8, 3, 4)),
}
WEIGHTS = [np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32) for shape in ((6, 2, 3), (4, 2, 3))]


@pytest.mark.simulator
@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_kernels_compute_them_exactly(name: str) -> None:
    """Values, and gradients of a sum of squares, of small integers: equal to the reference's, float32 alone."""
    function, shape = SIMULATED[name]
    x, found = 8 * np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32), []
    for backend in ("sim", "reference"):
        leaf = Tensor(x.copy(), requires_grad=True)
        with pycnn.use_backend(backend):
            y = function(leaf)
            (y * y).sum().backward()
        assert leaf.grad is not None
        found.append((y.detach().numpy(), leaf.grad.numpy()))
    for ours, right in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, right)
