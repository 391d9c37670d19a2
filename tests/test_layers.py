"""Every layer of nn against torch: outputs, gradients, state and settings; and bad settings."""

import numpy as np
import pytest

import pycnn
from pycnn import nn
from pycnn.tensor import Tensor

IMAGE = (2, 4, 9, 8)
VECTOR = (3, 5)

# (how to build the layer from either library, shape of its input)
LAYERS = {
    "conv": (lambda nn: nn.Conv2d(4, 6, 3), IMAGE),
    "conv_all": (lambda nn: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2, bias=False), IMAGE),
    "conv_same": (lambda nn: nn.Conv2d(4, 2, (4, 3), padding="same", dilation=2), IMAGE),
    "conv_valid": (lambda nn: nn.Conv2d(4, 2, 2, padding="valid", stride=2), IMAGE),
    "conv_transpose": (lambda nn: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1), IMAGE),
    "conv_transpose_all": (lambda nn: nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (0, 2), 2, False, 2), IMAGE),
    "conv_one_image": (lambda nn: nn.Conv2d(4, 6, 3), IMAGE[1:]),
    "conv_transpose_one_image": (lambda nn: nn.ConvTranspose2d(4, 6, 3, 2), IMAGE[1:]),
    "max_pool_one_image": (lambda nn: nn.MaxPool2d(2), IMAGE[1:]),
    "avg_pool_one_image": (lambda nn: nn.AvgPool2d(2), IMAGE[1:]),
    "adaptive_avg_one_image": (lambda nn: nn.AdaptiveAvgPool2d((None, 3)), IMAGE[1:]),
    "adaptive_max_one_image": (lambda nn: nn.AdaptiveMaxPool2d(4), IMAGE[1:]),
    "linear": (lambda nn: nn.Linear(5, 7), VECTOR),
    "linear_many": (lambda nn: nn.Linear(8, 3, bias=False), IMAGE),
    "max_pool": (lambda nn: nn.MaxPool2d(3, 2, 1), IMAGE),
    "max_pool_all": (lambda nn: nn.MaxPool2d((3, 2), None, 1, 2, ceil_mode=True), IMAGE),
    "avg_pool": (lambda nn: nn.AvgPool2d(2), IMAGE),
    "avg_pool_all": (lambda nn: nn.AvgPool2d((3, 2), (2, 1), 1, True, False), IMAGE),
    "avg_pool_divisor": (lambda nn: nn.AvgPool2d(3, divisor_override=2), IMAGE),
    "adaptive_avg": (lambda nn: nn.AdaptiveAvgPool2d((None, 3)), IMAGE),
    "adaptive_max": (lambda nn: nn.AdaptiveMaxPool2d(4), IMAGE),
    "batch_norm2d": (lambda nn: nn.BatchNorm2d(4, momentum=0.3), IMAGE),
    "batch_norm2d_mean": (lambda nn: nn.BatchNorm2d(4, 0.01, None, affine=False), IMAGE),
    "batch_norm2d_batch": (lambda nn: nn.BatchNorm2d(4, track_running_stats=False), IMAGE),
    "batch_norm1d": (lambda nn: nn.BatchNorm1d(5), VECTOR),
    "batch_norm1d_long": (lambda nn: nn.BatchNorm1d(4), (3, 4, 6)),
    "lrn": (lambda nn: nn.LocalResponseNorm(3, 0.1, 0.6, 2.0), IMAGE),
    "relu": (lambda nn: nn.ReLU(inplace=True), IMAGE),
    "tanh": (lambda nn: nn.Tanh(), IMAGE),
    "sigmoid": (lambda nn: nn.Sigmoid(), IMAGE),
    "softmax": (lambda nn: nn.Softmax(1), IMAGE),
    "log_softmax": (lambda nn: nn.LogSoftmax(dim=-1), IMAGE),
    "dropout_eval": (lambda nn: nn.Dropout(0.3).eval(), IMAGE),
    "flatten": (lambda nn: nn.Flatten(), IMAGE),
    "flatten_some": (lambda nn: nn.Flatten(2, 3), IMAGE),
    "identity": (lambda nn: nn.Identity(), IMAGE),
    "zero_pad": (lambda nn: nn.ZeroPad2d((1, 2, 0, 3)), IMAGE),
    "zero_pad_int": (lambda nn: nn.ZeroPad2d(2), IMAGE),
}


def close(a, b):
    # float64, sums of at most a hundred products in another order
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_torch(name):
    torch = pytest.importorskip("torch")
    build, shape = LAYERS[name]
    ours, theirs = build(nn).double(), build(torch.nn).double()
    rng = np.random.default_rng(0)
    state = {
        key: rng.uniform(0.5, 1.5, tuple(value.shape)) if value.is_floating_point() else value.numpy()
        for key, value in theirs.state_dict().items()
    }
    ours.load_state_dict(state)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    training = ours.training
    for modes in (training, training, False):  # twice in training: running statistics gather
        ours.train(modes)
        theirs.train(modes)
        values = rng.normal(size=shape)
        x, their_x = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
        y, their_y = ours(x), theirs(their_x.clone())
        close(y.detach(), their_y.detach())
        dy = rng.normal(size=y.shape)
        (y * dy).sum().backward()
        (their_y * torch.tensor(dy)).sum().backward()
        close(x.grad, their_x.grad)
    their_parameters = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        close(parameter.grad, their_parameters[key].grad)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key], value)


LOSSES = {
    "cross_entropy": lambda nn, w: nn.CrossEntropyLoss(),
    "cross_entropy_all": lambda nn, w: nn.CrossEntropyLoss(w, ignore_index=2, reduction="sum", label_smoothing=0.1),
    "nll": lambda nn, w: nn.NLLLoss(w, ignore_index=1),
    "nll_none": lambda nn, w: nn.NLLLoss(reduction="none"),
    "mse": lambda nn, w: nn.MSELoss(),
    "mse_sum": lambda nn, w: nn.MSELoss(reduction="sum"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_torch(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    values, factors = rng.normal(size=(6, 4)), rng.uniform(0.5, 2, 4)
    target = rng.normal(size=(6, 4)) if name.startswith("mse") else rng.integers(0, 4, 6)
    x, their_x = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    loss = LOSSES[name](nn, factors)(x, Tensor(target))
    their_loss = LOSSES[name](torch.nn, torch.tensor(factors))(their_x, torch.tensor(target))
    close(loss.detach(), their_loss.detach())
    loss.sum().backward()
    their_loss.sum().backward()
    close(x.grad, their_x.grad)


def test_a_loss_keeps_its_weights_as_state():
    loss = nn.CrossEntropyLoss(np.ones(3, np.float32))
    assert list(loss.state_dict()) == ["weight"]
    assert list(nn.CrossEntropyLoss().state_dict()) == []


@pytest.mark.parametrize(
    "padding",
    [1, (1, 2), ((1, 2), (3, 0)), (1, 2, 3, 0), "same", "valid"],
    ids=["int", "pair", "pairs", "four", "s", "v"],
)
def test_paddings_are_those_of_conv2d(padding):
    layer = nn.Conv2d(4, 2, 3, padding=padding)
    x = np.random.default_rng(0).normal(size=IMAGE).astype(np.float32)
    expected = pycnn.functional.conv2d(Tensor(x), layer.weight, layer.bias, padding=padding)
    np.testing.assert_array_equal(layer(Tensor(x)).data, expected.data)


def test_layers_take_plain_arrays_and_return_indices():
    x = np.random.default_rng(0).normal(size=IMAGE).astype(np.float32)
    assert nn.Conv2d(4, 2, 3)(x).requires_grad
    for pool in (nn.MaxPool2d(2, return_indices=True), nn.AdaptiveMaxPool2d(3, return_indices=True)):
        values, indices = pool(x)
        np.testing.assert_array_equal(x.reshape(2, 4, -1)[0, 0][indices[0, 0]], values[0, 0])


def test_dropout_draws_anew_and_from_the_seed():
    layer, x = nn.Dropout(0.25), Tensor(np.ones((100, 100), np.float32))
    pycnn.manual_seed(1)
    first, second = layer(x).data, layer(x).data
    pycnn.manual_seed(1)
    np.testing.assert_array_equal(layer(x).data, first)
    assert (first != second).any()
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75)}
    # 10,000 draws: standard error 0.0043, five of them allowed
    assert np.mean(first == 0) == pytest.approx(0.25, abs=0.022)
    np.testing.assert_array_equal(layer.eval()(x).data, x.data)


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_norm_takes_a_shortcut_and_a_relu_along(training):
    rng = np.random.default_rng(0)
    x, shortcut = (Tensor(rng.standard_normal((2, 4, 5, 3), dtype=np.float32)) for _ in range(2))
    first, second = nn.BatchNorm2d(4).train(training), nn.BatchNorm2d(4).train(training)
    np.testing.assert_array_equal(first(x, shortcut, relu=True).data, pycnn.relu(second(x) + shortcut).data)
    np.testing.assert_array_equal(first(x, relu=True).data, pycnn.relu(second(x)).data)
    for name, value in first.state_dict().items():
        np.testing.assert_array_equal(value.data, second.state_dict()[name].data)


def test_a_batch_norm_without_gradient_takes_batches_of_one_in_eval():
    layer = nn.BatchNorm2d(4).eval()
    assert layer(Tensor(np.ones((1, 4, 1, 1), np.float32))).shape == (1, 4, 1, 1)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: nn.Conv2d(0, 2, 3), ValueError, "in_channels must be between 1"),
        (lambda: nn.Conv2d(3, 2.0, 3), TypeError, "out_channels must be an int, got 2.0"),
        (lambda: nn.Conv2d(3, 2, 3, groups=2), ValueError, "groups must divide both channel counts"),
        (lambda: nn.Conv2d(3, 2, (3, 3, 3)), ValueError, "kernel_size must be an int or a pair"),
        (lambda: nn.Conv2d(3, 2, 3, stride=0), ValueError, "stride must be between 1"),
        (lambda: nn.Conv2d(3, 2, 3, padding="some"), ValueError, "padding must be 'same', 'valid'"),
        (lambda: nn.Conv2d(3, 2, 3, padding="same", stride=2), ValueError, "padding='same' needs stride 1"),
        (lambda: nn.Linear(3, -1), ValueError, "out_features must be between 1"),
        (lambda: nn.BatchNorm2d(0), ValueError, "num_features must be between 1"),
        (lambda: nn.BatchNorm2d(4)(Tensor(np.ones((2, 4)))), ValueError, "BatchNorm2d takes input of rank 4"),
        (
            lambda: nn.BatchNorm1d(4)(Tensor(np.ones((2, 4, 3, 3)))),
            ValueError,
            "BatchNorm1d takes input of rank 2 or 3",
        ),
        (lambda: nn.Dropout(1.5), ValueError, "p must be a probability"),
        (lambda: nn.ZeroPad2d((1, 2)), ValueError, "padding must be an int or"),
        (lambda: nn.Conv2d(3, 2, 3)(Tensor(np.ones((1, 4, 5, 5), np.float32))), ValueError, "channels disagree"),
    ],
)
def test_bad_settings_are_named(build, error, message):
    with pytest.raises(error, match=message):
        build()
