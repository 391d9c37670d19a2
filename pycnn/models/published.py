"""Published accuracy of the networks on the ImageNet (ILSVRC 2012) validation set, each with where it stands."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TOP1", "Published"]


@dataclass(frozen=True)
class Published:
    """A published result.

    Attributes:
        top1: per cent of the validation images whose class is the first guess.
        source: where it was published.
        test: how each image was shown to the network; results of different tests differ by some per cent.
    """

    top1: float
    source: str
    test: str


_CENTRE = "1 crop: the centre 224x224 of the image scaled to a smaller side of 256"
_TEN = "10 crops of 224x224: corners and centre of the middle 256x256, and their mirror images"


def _torchvision(top1: float) -> Published:
    return Published(top1, "torchvision, weights IMAGENET1K_V1", _CENTRE)


def _vgg(error: float) -> Published:
    test = "dense: all of the image and its mirror image, smaller side 256 (the same in training)"
    return Published(100 - error, "Simonyan & Zisserman 2015, table 3", test)


def _he(error: float) -> Published:
    return Published(100 - error, "He et al., github.com/KaimingHe/deep-residual-networks", _CENTRE)


TOP1: dict[str, Published] = {
    "alexnet": _torchvision(56.522),
    "alexnet_two_tower": Published(100 - 40.7, "Krizhevsky et al. 2012, table 2 (1 CNN)", _TEN),
    "zfnet": Published(
        100 - 38.4,
        "Zeiler & Fergus, arXiv 1311.2901v3, table 2 (1 convnet as per figure 3)",
        "224x224, crops not stated; the paper reproduces Krizhevsky's 40.7 % error of 10 crops as 40.5 %",
    ),
    "overfeat_fast": Published(
        100 - 39.28, "Sermanet et al. 2014, table 2", "dense, one scale (245x245), coarse stride of the classifier"
    ),
    "overfeat_accurate": Published(
        100 - 35.60, "Sermanet et al. 2014, table 2", "10 crops: corners, centre and their mirror images"
    ),
    "vgg11": _torchvision(69.020),
    "vgg11_bn": _torchvision(70.370),
    "vgg13": _torchvision(69.928),
    "vgg13_bn": _torchvision(71.586),
    "vgg16": _torchvision(71.592),
    "vgg16_bn": _torchvision(73.360),
    "vgg19": _torchvision(72.376),
    "vgg19_bn": _torchvision(74.218),
    "vgg_a": _vgg(29.6),
    "vgg_a_lrn": _vgg(29.7),
    "vgg_b": _vgg(28.7),
    "vgg_c": _vgg(28.1),
    "vgg_d": _vgg(27.0),
    "vgg_e": _vgg(27.3),
    "googlenet": _torchvision(69.778),
    "googlenet_2014": Published(
        68.7, "Caffe's replica, models/bvlc_googlenet/readme.md (the paper has no top-1)", "1 crop: the centre"
    ),
    "resnet18": _torchvision(69.758),
    "resnet34": _torchvision(73.314),
    "resnet50": _torchvision(76.130),
    "resnet101": _torchvision(77.374),
    "resnet152": _torchvision(78.312),
    "mobilenet_v2": _torchvision(71.878),
    "squeezenet1_0": _torchvision(58.092),
    "squeezenet1_1": _torchvision(58.178),
    "densenet121": _torchvision(74.434),
    "densenet161": _torchvision(77.138),
    "densenet169": _torchvision(75.600),
    "densenet201": _torchvision(76.896),
    "shufflenet_v2_x0_5": _torchvision(60.552),
    "shufflenet_v2_x1_0": _torchvision(69.362),
    "shufflenet_v2_x1_5": _torchvision(72.996),
    "shufflenet_v2_x2_0": _torchvision(76.230),
    "resnet50_2015": _he(24.7),
    "resnet101_2015": _he(23.6),
    "resnet152_2015": _he(23.0),
}
