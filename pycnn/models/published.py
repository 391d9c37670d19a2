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


def _torchvision(top1: float) -> Published:
    return Published(top1, "torchvision, documentation of the weights IMAGENET1K_V1", "1 crop")


def _vgg(error: float) -> Published:
    return Published(100 - error, "Simonyan & Zisserman 2015, table 3", "dense, scale 256")


def _he(error: float) -> Published:
    return Published(100 - error, "He et al., github.com/KaimingHe/deep-residual-networks", "1 crop")


TOP1: dict[str, Published] = {
    "alexnet": _torchvision(56.522),
    "alexnet_two_tower": Published(100 - 40.7, "Krizhevsky et al. 2012, table 2", "10 crops"),
    "zfnet": Published(100 - 38.4, "Zeiler & Fergus 2014, table 2", "10 crops"),
    "overfeat_fast": Published(100 - 39.28, "Sermanet et al. 2014, table 2", "dense, 1 scale"),
    "overfeat_accurate": Published(100 - 35.74, "Sermanet et al. 2014, table 2", "dense, 4 scales"),
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
    "googlenet_2014": Published(68.7, "its replica in Caffe, models/bvlc_googlenet/readme.md", "1 crop"),
    "resnet18": _torchvision(69.758),
    "resnet34": _torchvision(73.314),
    "resnet50": _torchvision(76.130),
    "resnet101": _torchvision(77.374),
    "resnet152": _torchvision(78.312),
    "resnet50_2015": _he(24.7),
    "resnet101_2015": _he(23.6),
    "resnet152_2015": _he(23.0),
}
