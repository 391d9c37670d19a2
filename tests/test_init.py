"""Initialisers: their distributions, PyTorch's defaults, and skipping."""

import math

import numpy as np
import pytest

import pycnn
from pycnn import nn
from pycnn.nn import init
from pycnn.tensor import Tensor

# 60,000 numbers: the standard error of a standard deviation is std/sqrt(2n) = 0.3 %, of a mean std/sqrt(n) = 0.4 %;
# five of them are allowed.
SHAPE = (60, 40, 5, 5)
FAN_IN, FAN_OUT = 40 * 25, 60 * 25


def made(function, *args, **kwargs):
    pycnn.manual_seed(7)
    tensor = Tensor(np.full(SHAPE, np.nan, np.float32))
    assert function(tensor, *args, **kwargs) is tensor
    return tensor.data.astype(np.float64)


NORMAL = [
    (init.normal_, {"mean": 1.0, "std": 3.0}, 1.0, 3.0),
    (init.xavier_normal_, {"gain": 2.0}, 0.0, 2 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
    (init.kaiming_normal_, {}, 0.0, math.sqrt(2 / FAN_IN)),
    (init.kaiming_normal_, {"mode": "fan_out", "nonlinearity": "relu"}, 0.0, math.sqrt(2 / FAN_OUT)),
    (init.kaiming_normal_, {"a": 1.0}, 0.0, math.sqrt(1 / FAN_IN)),
    (init.lecun_normal_, {}, 0.0, math.sqrt(1 / FAN_IN)),
]
UNIFORM = [
    (init.uniform_, {"a": -2.0, "b": 2.0}, 2.0),
    (init.xavier_uniform_, {}, math.sqrt(6 / (FAN_IN + FAN_OUT))),
    (init.kaiming_uniform_, {"a": math.sqrt(5)}, math.sqrt(1 / FAN_IN)),
    (init.kaiming_uniform_, {"nonlinearity": "tanh"}, 5 / 3 * math.sqrt(3 / FAN_IN)),
]


@pytest.mark.parametrize(("function", "settings", "mean", "std"), NORMAL)
def test_normal_initialisers(function, settings, mean, std):
    values = made(function, **settings)
    assert values.mean() == pytest.approx(mean, abs=5 * std / math.sqrt(values.size))
    assert values.std() == pytest.approx(std, rel=5 / math.sqrt(2 * values.size))
    # The share within one, two and three deviations; its standard error is below 0.002.
    for k, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert np.mean(np.abs(values - mean) < k * std) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("function", "settings", "bound"), UNIFORM)
def test_uniform_initialisers(function, settings, bound):
    values = made(function, **settings)
    assert np.abs(values).max() <= bound
    counts, _ = np.histogram(values, 10, (-bound, bound))
    # Each tenth holds 6,000 with a standard error of 73.
    assert np.abs(counts - values.size / 10).max() < 5 * math.sqrt(values.size * 0.09)


def test_truncated_normal():
    values = made(init.trunc_normal_, 0.0, 1.0, -1.0, 0.5)
    assert values.min() >= -1
    assert values.max() <= 0.5
    # Mean of the truncated distribution, (phi(-1) - phi(0.5)) / (Phi(0.5) - Phi(-1)).
    expected = (0.24197 - 0.35207) / (0.69146 - 0.15866)
    assert values.mean() == pytest.approx(expected, abs=0.01)


def test_constants():
    assert (made(init.constant_, 0.2) == np.float32(0.2)).all()
    assert (made(init.ones_) == 1).all()
    assert (made(init.zeros_) == 0).all()


@pytest.mark.parametrize("layer", [nn.Conv2d(40, 60, 5, groups=2), nn.Linear(500, 60), nn.ConvTranspose2d(60, 20, 5)])
def test_layers_start_as_in_torch(layer):
    bound = 1 / math.sqrt(500)  # fan-in of all three: 20 * 5 * 5
    for parameter in layer.parameters():
        values = np.abs(parameter.data)
        assert values.max() <= bound
        assert values.max() > 0.8 * bound


def test_a_seed_fixes_the_weights_and_steps_are_noticed():
    pycnn.manual_seed(3)
    first = nn.Linear(30, 40).weight
    pycnn.manual_seed(3)
    np.testing.assert_array_equal(nn.Linear(30, 40).weight.data, first.data)
    version = first.version
    init.normal_(first)
    assert first.version > version


def test_large_and_strided_tensors_are_filled():
    big = Tensor(np.full((700, 700), np.nan, np.float32))  # more than one block
    strided = Tensor(np.full((40, 30), np.nan, np.float32).T)
    for tensor in (big, strided):
        init.normal_(tensor)
        assert np.isfinite(tensor.data).all()
        assert np.unique(tensor.data).size > 0.99 * tensor.data.size


def test_skip_leaves_zeros_and_the_stream_alone():
    state = pycnn.random.get_state()
    with init.skip():
        layer = nn.Conv2d(3, 4, 3)
    assert not layer.weight.data.any()
    assert pycnn.random.get_state() == state
    assert nn.Conv2d(3, 4, 3).weight.data.any()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="mode must be 'fan_in' or 'fan_out', got 'fan'"):
        init.kaiming_normal_(Tensor(np.zeros((2, 2))), mode="fan")
    with pytest.raises(ValueError, match="at least two axes"):
        init.xavier_uniform_(Tensor(np.zeros(3)))
    with pytest.raises(ValueError, match="nonlinearity must be"):
        init.calculate_gain("swoosh")


def test_gains_equal_torch():
    torch = pytest.importorskip("torch")
    for name in ("linear", "conv2d", "sigmoid", "tanh", "relu", "selu", "leaky_relu"):
        assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)
