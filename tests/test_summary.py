"""The summary of networks: receptive fields, work and memory, and the commands that print and draw them."""

import json

import numpy as np
import pytest

import pycnn
from pycnn import models, nn
from pycnn.cli import main
from pycnn.models.published import TOP1
from pycnn.models.summary import format_rows, summary
from pycnn.tensor import Tensor


def empty(name, **settings):
    with nn.init.skip():
        return models.create(name, **settings)


def rows_of(name):
    return {row.name: row for row in summary(empty(name), models.info(name).input_shape)}


def test_receptive_fields_of_alexnet_and_vgg():
    # conv1 11, pool 19, conv2 51, pool 67, conv3 99, conv4 131, conv5 163, pool 195: the known fields of AlexNet.
    alexnet = rows_of("alexnet")
    assert [alexnet[f"features.{i}"].receptive_field[0] for i in (0, 2, 3, 5, 6, 8, 10, 12)] == [
        *(11, 19, 51, 67, 99, 131, 163, 195)
    ]
    vgg = rows_of("vgg16")
    assert vgg["features.30"].receptive_field == (212, 212)
    assert vgg["classifier.0"].receptive_field == (224, 224)


FIELDS = {
    "resnet20": (49, ["conv1", "layer1.0.conv2", "layer1.2.bn2"]),
    "googlenet": (89, ["conv1.conv", "maxpool1", "conv3.conv", "maxpool2", "inception3a.branch2.1.bn", "inception3b"]),
    "lenet5_1998": (32, ["c1", "s2", "c3", "s4", "c5"]),
    "resnet18": (89, ["conv1", "maxpool", "layer1.0.conv2", "layer1.1.bn2", "layer2.0.downsample.0"]),
}


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields_are_what_gradients_reach(name):
    """Backwards from one element in the middle of a layer's output: the box of pixels whose gradient is not zero."""
    size, wanted = FIELDS[name]
    model = empty(name, **({"aux_logits": False} if name == "googlenet" else {})).eval()
    channels = 1 if name.startswith("lenet") else 3
    rows = {row.name: row for row in summary(model, (channels, size, size))}
    for parameter in model.parameters():  # positive weights: nothing cancels, no unit is cut off
        parameter.data[...] = 0.01
    for module in model.modules():  # an average passes gradients to all that the maximum looks at
        for path, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                average = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, path, average)
    outputs = {}
    for path in wanted:
        model.get_submodule(path).register_forward_hook(lambda _, __, y, path=path: outputs.update({path: y}))
    x = Tensor(np.ones((1, channels, size, size)), requires_grad=True)
    gradients = {}
    with pycnn.use_backend("reference"):  # Winograd would leave roundings all over a tile
        model.double()(x)
        for path in wanted:
            y = outputs[path]
            middle = y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum()
            (gradients[path],) = pycnn.grad(middle, [x], retain_graph=True)
    for path in wanted:
        reached = (gradients[path].data != 0).any((0, 1))
        box = tuple(int(np.ptp(np.flatnonzero(reached.any(axis)))) + 1 for axis in (1, 0))
        expected = rows[path].receptive_field if path in rows else rows["inception3b.branch3.1.bn"].receptive_field
        assert box == expected, path


def test_rows_count_work_memory_and_shared_parameters():
    layer = nn.Linear(6, 6)
    chain = nn.Sequential(
        nn.ConvTranspose2d(2, 3, 2, stride=2), nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), layer, nn.Tanh(), layer
    )
    rows = summary(chain, (2, 4, 5))
    assert [row.kind for row in rows] == ["ConvTranspose2d", "AdaptiveAvgPool2d", "Flatten", "Linear", "Tanh", "Linear"]
    assert rows[0].macs == 4 * 5 * 2 * 3 * 2 * 2
    assert rows[0].output_shape == (3, 8, 10)
    assert rows[0].activation_bytes == 4 * 3 * 8 * 10
    assert [rows[3].parameters, rows[5].parameters] == [42, 0]
    assert [rows[3].macs, rows[5].macs] == [36, 36]
    assert summary(chain.double(), (2, 4, 5))[0].activation_bytes == 8 * 3 * 8 * 10


def test_summary_leaves_the_model_as_it_was():
    model = models.resnet20()
    model.layer1.eval()
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    summary(model, (3, 32, 32))
    assert model.training
    assert not model.layer1.training
    assert not any(module._hooks or module._pre_hooks for module in model.modules())
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
    with pytest.raises(ValueError, match="channels disagree"):
        summary(model, (4, 32, 32))
    assert not any(module._hooks for module in model.modules())


def test_the_table_has_totals():
    text = format_rows(summary(empty("lenet5"), (1, 32, 32)), (1, 32, 32))
    assert "conv1" in text
    assert "input 1x32x32: 61,706 parameters, 416,520 multiply-adds" in text


def test_shapes_backend_agrees_with_the_reference():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 9, 8))
    w, v = rng.normal(size=(6, 2, 3, 2)), rng.normal(size=(4, 3, 3, 2))
    f = pycnn.functional
    calls = [
        lambda: f.conv2d(x, w, None, (2, 1), "valid", (1, 2), 2),
        lambda: f.conv_transpose2d(x, v, None, 2, 1, 1, 2, 1),
        lambda: f.max_pool2d(x, 3, 2, 1, 2, True, True)[1],
        lambda: f.avg_pool2d(x, (2, 3), None, (1, 0), True),
        lambda: f.adaptive_avg_pool2d(x, (None, 3)),
        lambda: f.adaptive_max_pool2d(x, 2),
        lambda: f.linear(x, rng.normal(size=(5, 8))),
        lambda: f.softmax(f.relu(x), 1),
        lambda: f.local_response_norm(x, 3),
        lambda: f.batch_norm(x, np.zeros(4), np.ones(4)),
        lambda: f.pad(x, (1, 2, 0, 3)),
        lambda: f.cat([x, x], 1),
        lambda: pycnn.ops.gemm(x[0, 0], x[0, 1], True, False),
    ]
    for call in calls:
        with pycnn.use_backend("reference"):
            expected = call()
        with pycnn.use_backend("shapes"):
            result = call()
        assert (result.shape, result.dtype) == (expected.shape, expected.dtype)


def test_summary_command(capsys):
    assert main(["summary", "vgg16"]) == 0
    text = capsys.readouterr().out
    assert "classifier.6" in text
    assert "138,357,544 parameters, 15,470,264,320 multiply-adds" in text
    assert main(["summary", "resnet20", "--classes", "100", "--input", "3x40x48", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layers"][0]["output_shape"] == [16, 40, 48]
    assert told["layers"][-1]["output_shape"] == [100]
    assert main(["summary"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(models.list_models())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet19"], "no network is named 'resnet19'; did you mean"),
        (["vgg16", "--input", "224"], "--input must be CxHxW"),
        (["vgg16", "--input", "3x8x8"], "smaller than 1"),
        (["vgg16", "--classes", "0"], "--classes must be between 1"),
    ],
)
def test_summary_command_with_bad_input(arguments, message, capsys):
    assert main(["summary", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_compare_command_draws_and_lists(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    picture = tmp_path / "compare.png"
    assert main(["compare", "--out", str(picture)]) == 0
    text = capsys.readouterr().out
    for name in ("alexnet", "vgg16", "googlenet", "resnet152"):
        assert any(line.startswith(name + " ") for line in text.splitlines())
    (row,) = (line.split() for line in text.splitlines() if line.startswith("resnet50 "))
    assert row[3] == "76.13"
    assert f"{row[4]}: torchvision, weights IMAGENET1K_V1; 1 crop" in text
    with image.open(picture) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    assert pixels.shape[0] > 500
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    assert main(["compare", "lenet5", "resnet18", "--out", str(picture)]) == 0
    assert "61,706" in capsys.readouterr().out


def test_published_accuracies_belong_to_networks_and_have_a_source():
    assert set(TOP1) <= set(models.list_models())
    assert all(55 < entry.top1 < 80 and entry.source and entry.test for entry in TOP1.values())
