"""The lecture's networks: parameter counts and sizes against the papers, keys, outputs and gradients against torch."""

import math

import numpy as np
import packages
import pytest

import pycnn
from pycnn import models, nn
from pycnn.models.densenet import DenseNet
from pycnn.models.googlenet import Inception, InceptionNaive
from pycnn.models.lenet import CONNECTIONS
from pycnn.models.summary import summary
from pycnn.tensor import Tensor

# torchvision's counts as its documentation lists them (`num_params` of each set of weights); of the others, the sums of
# the papers' tables: LeNet-5 section II.B, AlexNet "60 million", OverFeat table 4 (145M, 144M), VGG table 2 (133 to
# 144 million), Caffe's replica of GoogLeNet with two heads, and the CIFAR ResNets' table 6 (0.27M ... 1.7M).
PARAMETERS = {
    "lenet5": 61_706,
    "lenet5_1998": 60_000,
    "alexnet": 61_100_840,
    "alexnet_one_tower": 62_378_344,
    "alexnet_two_tower": 60_965_224,
    "zfnet": 62_357_608,
    "overfeat_fast": 145_920_872,
    "overfeat_accurate": 144_656_488,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
    "vgg_a": 132_863_336,
    "vgg_a_lrn": 132_863_336,
    "vgg_b": 133_047_848,
    "vgg_c": 133_638_952,
    "vgg_d": 138_357_544,
    "vgg_e": 143_667_240,
    "googlenet": 13_004_888,
    "googlenet_2014": 6_998_552 + 6_379_728,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50_2015": 25_557_032,
    "resnet101_2015": 44_549_160,
    "resnet152_2015": 60_192_808,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "mobilenet_v2": 3_504_872,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "shufflenet_v2_x0_5": 1_366_792,
    "shufflenet_v2_x1_0": 2_278_604,
    "shufflenet_v2_x1_5": 3_503_624,
    "shufflenet_v2_x2_0": 7_393_996,
}


def empty(name, **settings):
    with nn.init.skip():
        return models.create(name, **settings)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_list_is_complete():
    assert sorted(models.list_models()) == sorted(PARAMETERS)
    names = models.list_models()
    assert names.index("resnet20") < names.index("resnet101")


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    assert count(empty(name)) == PARAMETERS[name]


def test_parameter_counts_of_parts():
    old = empty("lenet5_1998")
    layers = {name: count(layer) for name, layer in old.named_children() if count(layer)}
    assert layers == {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert count(empty("googlenet", aux_logits=False)) == 6_624_904
    assert count(empty("googlenet_2014", aux_logits=False)) == 6_998_552
    assert count(empty("resnet18", num_classes=10)) == 11_689_512 - 990 * 513


def test_googlenet_has_the_papers_rows():
    """The column "params" of table 1, in thousands of 1,024."""
    net = empty("googlenet_2014")
    rows = {"3a": 159, "3b": 380, "4a": 364, "4b": 437, "4c": 463, "4d": 580, "4e": 840, "5a": 1072, "5b": 1388}
    for row, thousands in rows.items():
        # The paper's numbers for 4c, 5a and some others are not what its own widths give, by up to 8 %.
        assert count(net.get_submodule(f"inception{row}")) / 1024 == pytest.approx(thousands, rel=0.08)
    # 22 layers deep: three before the modules, two in each of nine, and the output.
    assert 3 + 2 * len(rows) + 1 == 22


def test_lenet_connections_are_table_1():
    # Each map of S2 feeds ten maps of C3, and no two maps of C3 see the same.
    assert [sum(c in seen for seen in CONNECTIONS) for c in range(6)] == [10] * 6
    assert len(set(CONNECTIONS)) == 16
    assert [len(seen) for seen in CONNECTIONS] == [3] * 6 + [4] * 9 + [6]


def test_the_digits_of_lenets_output_are_told_apart():
    code = empty("lenet5_1998").output.code.numpy()
    assert code.shape == (10, 84)
    assert set(np.unique(code)) == {-1.0, 1.0}
    distances = (code[:, None] != code[None]).sum(-1)
    assert distances[~np.eye(10, dtype=bool)].min() >= 4
    assert empty("lenet5_1998", num_classes=7).output.code.shape == (7, 84)


# (C, H, W) or features after the layers named, from the papers' figures and tables.
SIZES = {
    "lenet5_1998": {"c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5), "c5": (120, 1, 1)},
    "lenet5": {"conv1": (6, 28, 28), "conv2": (16, 10, 10), "fc1": (120,), "fc2": (84,), "fc3": (10,)},
    "alexnet": {
        **{"features.0": (64, 55, 55), "features.2": (64, 27, 27), "features.3": (192, 27, 27)},
        **{"features.5": (192, 13, 13), "features.6": (384, 13, 13), "features.12": (256, 6, 6)},
    },
    "alexnet_two_tower": {
        **{"features.0": (96, 55, 55), "features.3": (96, 27, 27), "features.4": (256, 27, 27)},
        **{"features.7": (256, 13, 13), "features.8": (384, 13, 13), "features.10": (384, 13, 13)},
        **{"features.12": (256, 13, 13), "features.14": (256, 6, 6), "classifier.0": (4096,)},
    },
    "zfnet": {
        **{"features.0": (96, 110, 110), "features.2": (96, 55, 55), "features.4": (256, 26, 26)},
        **{"features.6": (256, 13, 13), "features.8": (384, 13, 13), "features.14": (256, 6, 6)},
    },
    "overfeat_fast": {
        **{"features.0": (96, 56, 56), "features.2": (96, 28, 28), "features.3": (256, 24, 24)},
        **{"features.5": (256, 12, 12), "features.8": (1024, 12, 12), "features.12": (1024, 6, 6)},
    },
    "overfeat_accurate": {
        **{"features.0": (96, 108, 108), "features.2": (96, 36, 36), "features.5": (256, 15, 15)},
        **{"features.10": (1024, 15, 15), "features.14": (1024, 5, 5), "classifier.1": (4096,)},
    },
    "vgg16": {
        **{"features.0": (64, 224, 224), "features.4": (64, 112, 112), "features.9": (128, 56, 56)},
        **{"features.16": (256, 28, 28), "features.23": (512, 14, 14), "features.30": (512, 7, 7)},
        **{"classifier.0": (4096,), "classifier.6": (1000,)},
    },
    "vgg_c": {"features.14": (256, 56, 56), "features.16": (256, 28, 28), "features.30": (512, 7, 7)},
    "googlenet_2014": {
        **{"conv1": (64, 112, 112), "maxpool1": (64, 56, 56), "conv3": (192, 56, 56), "maxpool2": (192, 28, 28)},
        **{"inception3a": (256, 28, 28), "inception3b": (480, 28, 28), "maxpool3": (480, 14, 14)},
        **{f"inception4{letter}": (512, 14, 14) for letter in "abc"},
        **{"inception4d": (528, 14, 14), "inception4e": (832, 14, 14), "maxpool4": (832, 7, 7)},
        **{"inception5a": (832, 7, 7), "inception5b": (1024, 7, 7), "avgpool": (1024, 1, 1), "fc": (1000,)},
    },
    "resnet50": {
        **{"conv1": (64, 112, 112), "maxpool": (64, 56, 56), "layer1": (256, 56, 56), "layer2": (512, 28, 28)},
        **{"layer3": (1024, 14, 14), "layer4": (2048, 7, 7), "avgpool": (2048, 1, 1), "fc": (1000,)},
    },
    "resnet18": {"layer1": (64, 56, 56), "layer2": (128, 28, 28), "layer3": (256, 14, 14), "layer4": (512, 7, 7)},
    "mobilenet_v2": {  # table 2
        **{"features.0": (32, 112, 112), "features.1": (16, 112, 112), "features.3": (24, 56, 56)},
        **{"features.6": (32, 28, 28), "features.10": (64, 14, 14), "features.13": (96, 14, 14)},
        **{"features.16": (160, 7, 7), "features.17": (320, 7, 7), "features.18": (1280, 7, 7)},
    },
    "resnet20": {"layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8), "fc": (10,)},
}
SIZES["googlenet"] = {key: size for key, size in SIZES["googlenet_2014"].items() if key != "conv3"}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_at_every_stage(name):
    model, seen = empty(name).eval(), {}
    for path, module in model.named_modules():
        module.register_forward_hook(lambda _, __, y, path=path: seen.update({path: y.shape}))
    with pycnn.no_grad(), pycnn.use_backend("shapes"):
        model(Tensor(np.zeros((1, *models.info(name).input_shape), np.float32)))
    assert {path: seen[path][1:] for path in SIZES[name]} == SIZES[name]


# Multiply-adds in millions: ResNet table 1, OverFeat table 4 ("connections"), AlexNet and VGG as torchvision's
# documentation lists them, GoogLeNet "1.5 billion" (section 1), MobileNetV2 table 4, ShuffleNetV2 table 5, DenseNet
# again torchvision's documentation, CIFAR ResNet-20 as widely reported.
WORK = {
    "alexnet": (714, 0.01),
    "vgg16": (15_470, 0.01),
    "googlenet_2014": (1_550, 0.05),
    "resnet18": (1_800, 0.02),
    "resnet34": (3_600, 0.03),
    "resnet50": (4_090, 0.01),
    "resnet50_2015": (3_800, 0.03),
    "resnet101_2015": (7_600, 0.03),
    "resnet152_2015": (11_300, 0.03),
    "overfeat_fast": (2_810, 0.01),
    "overfeat_accurate": (5_369, 0.01),
    "resnet20": (41, 0.02),
    "mobilenet_v2": (300, 0.01),
    "shufflenet_v2_x0_5": (41, 0.02),
    "shufflenet_v2_x1_0": (146, 0.02),
    "shufflenet_v2_x1_5": (299, 0.02),
    "shufflenet_v2_x2_0": (591, 0.02),
    "densenet121": (2_834, 0.02),
}


@pytest.mark.parametrize("name", WORK)
def test_multiply_adds_are_the_papers(name):
    millions, tolerance = WORK[name]
    rows = summary(empty(name), models.info(name).input_shape)
    assert sum(row.macs for row in rows) / 1e6 == pytest.approx(millions, rel=tolerance)


def test_reductions_make_an_inception_module_cheap():
    """The lecture's example: 28x28x256 in, 128 1x1, 192 3x3 and 96 5x5 filters; reductions to 64."""
    with nn.init.skip():
        naive, reduced = InceptionNaive(256, 128, 192, 96), Inception(256, 128, 64, 192, 64, 96, 64)
    shapes = {}
    for module in (naive, reduced):
        module.register_forward_hook(lambda m, _, y: shapes.update({m: y.shape}))
    work = [sum(row.macs for row in summary(module, (256, 28, 28))) for module in (naive, reduced)]
    assert (shapes[naive], shapes[reduced]) == ((1, 672, 28, 28), (1, 480, 28, 28))
    # 854M as in the lecture; its 358M for the other counts the 3x3 filters twice (358 - 87 = 271).
    assert [round(macs / 1e6) for macs in work] == [854, 271]


def test_registry_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"no network is named 'resnet51'; did you mean resnet5"):
        models.create("resnet51")
    with pytest.raises(ValueError, match="there are alexnet"):
        models.create("?")
    with pytest.raises(TypeError, match="nonsense"):
        models.create("resnet18", nonsense=3)
    with pytest.raises(ValueError, match="at most 32x32, got 33x20"):
        models.lenet5()(np.zeros((1, 1, 33, 20), np.float32))


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998"])
def test_lenet_centres_small_images(name):
    net = models.create(name)
    small = np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype(np.float32)
    with pycnn.no_grad():
        whole = net(Tensor(np.pad(small, ((0, 0), (0, 0), (2, 2), (2, 2)))))
        np.testing.assert_array_equal(net(Tensor(small)).data, whole.data)
        assert net(Tensor(small[:, :, :8, :9])).shape == (2, 10)


def test_initialisation_follows_the_papers():
    pycnn.manual_seed(0)
    two = models.alexnet_two_tower(num_classes=10)
    layers = [m for m in two.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert [float(layer.bias.data[0]) for layer in layers] == [0, 1, 0, 1, 1, 1, 1, 0]
    # Standard errors of a deviation from n numbers are 1/sqrt(2n): below 0.5 % for all of these.
    assert layers[0].weight.data.std() == pytest.approx(0.01, rel=0.03)
    assert layers[4].weight.data.std() == pytest.approx(0.01, rel=0.03)
    small = models.resnet20()
    assert small.layer3[0].conv2.weight.data.std() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.03)
    assert (small.bn1.weight.data == 1).all()
    old = models.lenet5_1998()
    assert 0.9 * 2.4 / 25 < np.abs(old.c1.weight.data).max() <= np.float32(2.4 / 25)
    assert 0.9 * 2.4 / 75 < np.abs(old.c3.weight.data[:3]).max() <= np.float32(2.4 / 75)
    assert np.abs(old.c3.weight.data[-6:]).max() <= np.float32(2.4 / 150)


# -- against torch ---------------------------------------------------------------------------------------------------

TORCHVISION = [
    *("alexnet", "googlenet", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *("squeezenet1_0", "squeezenet1_1", *(f"densenet{depth}" for depth in (121, 161, 169, 201))),
    *(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
]


def torch_net(name, num_classes=None):
    import torch_nets

    return torch_nets.BUILDERS[name]()


@pytest.mark.parametrize("name", TORCHVISION)
def test_state_dict_keys_are_torchvisions(name):
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        theirs = torch_net(name).state_dict()
    ours = empty(name).state_dict()
    assert list(ours) == list(theirs)
    assert {key: value.shape for key, value in ours.items()} == {k: tuple(v.shape) for k, v in theirs.items()}


def test_some_torchvision_keys_by_heart():
    keys = empty("resnet50").state_dict()
    assert len(keys) == 320
    assert keys["layer2.0.downsample.0.weight"].shape == (512, 256, 1, 1)
    assert keys["layer4.2.bn3.num_batches_tracked"].shape == ()
    keys = empty("googlenet").state_dict()
    assert keys["inception4a.branch3.1.conv.weight"].shape == (48, 16, 3, 3)
    assert keys["inception3a.branch4.1.bn.running_var"].shape == (32,)
    assert keys["aux2.conv.conv.weight"].shape == (128, 528, 1, 1)
    keys = empty("vgg16_bn").state_dict()
    assert keys["features.41.running_mean"].shape == (512,)
    assert keys["classifier.6.weight"].shape == (1000, 4096)
    assert empty("alexnet").state_dict()["classifier.4.weight"].shape == (4096, 4096)


def narrow(net, layers, flat=None):
    """Put 24 features where a classifier has thousands: the widths are the business of the tests above."""
    linear = layers.Linear
    places = [name for name, layer in net.classifier.named_children() if isinstance(layer, linear)]
    sizes = [flat or net.classifier.get_submodule(places[0]).in_features, 24, 24, 10]
    for i, name in enumerate(places):
        setattr(net.classifier, name, linear(sizes[i], sizes[i + 1]))
    return net


# What is compared: batch of 2, a side at which every layer still has something to do, and, where the classifier's input
# depends on it, its new width.
CASES = {
    "lenet5": (28, None),
    "lenet5_1998": (32, None),
    "alexnet": (80, None),
    "alexnet_two_tower": (67, 256),
    "zfnet": (80, 1024),
    "overfeat_fast": (71, 1024),
    "vgg11_bn": (32, None),
    "vgg_a_lrn": (32, None),
    "vgg_c": (32, None),
    "googlenet": (64, None),
    "resnet18": (48, None),
    "resnet50": (48, None),
    "resnet50_2015": (48, None),
    "resnet20": (32, None),
    "mobilenet_v2": (48, None),
    "squeezenet1_1": (48, None),
    "shufflenet_v2_x0_5": (48, None),
}
SLOW_CASES = {
    "alexnet_one_tower": (67, 256),
    "overfeat_accurate": (77, 1024),
    "googlenet_2014": (224, None),
    **{f"vgg{depth}{norm}": (48, None) for depth in (11, 13, 16, 19) for norm in ("", "_bn")},
    **{f"vgg_{column}": (48, None) for column in "abde"},
    **{f"resnet{depth}": (64, None) for depth in (34, 101, 152)},
    **{f"resnet{depth}_2015": (64, None) for depth in (101, 152)},
    **{f"resnet{depth}": (32, None) for depth in (32, 44, 56, 110)},
    **{f"densenet{depth}": (64, None) for depth in (121, 161, 169, 201)},
    **{f"shufflenet_v2_x{width}": (48, None) for width in ("1_0", "1_5", "2_0")},
    "squeezenet1_0": (48, None),
}


def test_widths_of_mobilenet_are_the_papers():
    """Table 4: 585M multiply-adds at a width of 1.4; channels are multiples of 8, and the last layer never shrinks."""
    wide = empty("mobilenet_v2", width_mult=1.4)
    assert sum(row.macs for row in summary(wide, (3, 224, 224))) / 1e6 == pytest.approx(585, rel=0.01)
    assert all(m.in_channels % 8 == 0 for m in wide.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 3)
    assert empty("mobilenet_v2", width_mult=0.35).classifier[1].in_features == 1280
    with pytest.raises(ValueError, match="width_mult must be positive, got 0"):
        models.mobilenet_v2(width_mult=0)


def pair_of(name, flat):
    torch = pytest.importorskip("torch")
    import torch_nets

    ours = empty(name)
    if name == "lenet5_1998":
        theirs = torch_nets.LeNet5Of1998(torch.tensor(ours.output.code.numpy()))
    else:
        theirs = torch_nets.BUILDERS[name]()
    if any(isinstance(layer, nn.Linear) for layer in getattr(ours, "classifier", nn.Sequential()).children()):
        narrow(ours, nn, flat)
        theirs.avgpool = torch.nn.Identity() if flat else theirs.avgpool
        for i in range(len(theirs.classifier)):
            if isinstance(theirs.classifier[i], torch.nn.Linear):
                layer = ours.classifier[i]
                theirs.classifier[i] = torch.nn.Linear(layer.in_features, layer.out_features)
    for net in (ours.modules(), theirs.modules()):
        for module in net:
            if type(module).__name__ == "Dropout":
                module.p = 0.0
    return ours.double(), theirs.double()


def weights_for(net):
    """Weights with which signals neither fade nor grow, biases and statistics away from their defaults."""
    rng, values = np.random.default_rng(5), {}
    for key, value in net.state_dict().items():
        shape = tuple(value.shape)
        if key.endswith("num_batches_tracked"):
            values[key] = np.array(3)
        elif key.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "bn.weight")) or shape == (6,):
            values[key] = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1 and not key.endswith("code"):
            values[key] = rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
        elif key.endswith("code"):
            values[key] = value.numpy()
        else:
            values[key] = rng.normal(0.1, 0.1, shape)
    return values


def compare(name, side, flat):
    import torch

    ours, theirs = pair_of(name, flat)
    values = weights_for(ours)
    ours.load_state_dict(values)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in values.items()})
    channels = 1 if name.startswith("lenet") else 3
    x = np.random.default_rng(6).normal(size=(2, channels, side, side))
    # float64: some hundred layers of sums of up to 25,088 products, each rounded at 1e-16, in another order.
    close = {"rtol": 0, "atol": 1e-9}

    def scaled(a, b, what):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(a, b, **{**close, "atol": 1e-9 * max(np.abs(b).max(), 1e-3)}, err_msg=what)

    with pycnn.no_grad():
        y = ours.eval()(Tensor(x))
    scaled(y.data, theirs.eval()(torch.tensor(x)).detach(), "output in eval mode")
    mine, their_x = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    outs, their_outs = ours.train()(mine), theirs.train()(their_x)
    if not isinstance(outs, tuple):
        outs, their_outs = (outs,), (their_outs,)
    assert len(outs) == len(their_outs)
    total, their_total = 0.0, 0.0
    for i, (out, their_out) in enumerate(zip(outs, their_outs, strict=True)):
        scaled(out.detach(), their_out.detach(), f"output {i} in training mode")
        weight = np.random.default_rng(i).normal(size=out.shape)
        total, their_total = (out * weight).sum() + total, (their_out * torch.tensor(weight)).sum() + their_total
    total.backward()
    their_total.backward()
    scaled(mine.grad, their_x.grad, "gradient of the input")
    gradients = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        scaled(parameter.grad, gradients[key].grad, f"gradient of {key}")
    for key, buffer in theirs.named_buffers():
        scaled(dict(ours.named_buffers())[key].data, buffer, key)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_equal_torch(name):
    pytest.importorskip("torch")
    compare(name, *CASES[name])


def test_a_small_densenet_equals_torchvisions():
    theirs = packages.torchvision_models().DenseNet(8, (2, 3, 1, 2), 16, num_classes=10).double().eval()
    import torch

    ours = DenseNet(8, (2, 3, 1, 2), 16, 10).double().eval()
    values = weights_for(ours)
    ours.load_state_dict(values)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in values.items()})
    x = np.random.default_rng(6).normal(size=(2, 3, 64, 48))
    with torch.no_grad(), pycnn.no_grad():
        wanted = theirs(torch.tensor(x)).numpy()
        np.testing.assert_allclose(ours(Tensor(x)).data, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())  # float64


def test_densenet_takes_the_names_of_torchvisions_published_files():
    net = DenseNet(8, (2, 1), 16, 10)
    values = weights_for(net)
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in key else key: value
        for key, value in values.items()
    }
    assert "features.denseblock1.denselayer2.norm.1.running_var" in old
    net.load_state_dict(old)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.data, values[key].astype(value.dtype))
    with pytest.raises(RuntimeError, match=r"missing keys: features\.conv0\.weight"):
        net.load_state_dict({})
    with pytest.raises(TypeError, match="state_dict must be a mapping"):
        net.load_state_dict([])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_CASES)
def test_outputs_and_gradients_of_the_rest_equal_torch(name):
    pytest.importorskip("torch")
    compare(name, *SLOW_CASES[name])


def test_googlenet_transforms_its_input_as_torchvision_does():
    net = empty("googlenet", transform_input=True, aux_logits=False).eval()
    seen = []
    net.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0].data))
    x = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    with pycnn.no_grad():
        net(Tensor(x))
    for i, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        pixels = x[:, i] * std + mean  # as the image was, 0 to 1; then to -1 to 1
        np.testing.assert_allclose(seen[0][:, i], (pixels - 0.5) / 0.5, atol=1e-6)  # float32, a few roundings near 1
