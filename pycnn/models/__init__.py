"""The lecture's networks and small ones that came after, by name: `create`, `list_models`, or their functions."""

from pycnn.models.alexnet import alexnet, alexnet_one_tower, alexnet_two_tower
from pycnn.models.densenet import densenet121, densenet161, densenet169, densenet201
from pycnn.models.googlenet import googlenet, googlenet_2014
from pycnn.models.lenet import lenet5, lenet5_1998
from pycnn.models.mobilenet import mobilenet_v2
from pycnn.models.overfeat import overfeat_accurate, overfeat_fast
from pycnn.models.registry import ModelInfo, create, info, list_models
from pycnn.models.resnet import (
    resnet18,
    resnet20,
    resnet32,
    resnet34,
    resnet44,
    resnet50,
    resnet50_2015,
    resnet56,
    resnet101,
    resnet101_2015,
    resnet110,
    resnet152,
    resnet152_2015,
)
from pycnn.models.shufflenet import shufflenet_v2_x0_5, shufflenet_v2_x1_0, shufflenet_v2_x1_5, shufflenet_v2_x2_0
from pycnn.models.squeezenet import squeezenet1_0, squeezenet1_1
from pycnn.models.vgg import (
    vgg11,
    vgg11_bn,
    vgg13,
    vgg13_bn,
    vgg16,
    vgg16_bn,
    vgg19,
    vgg19_bn,
    vgg_a,
    vgg_a_lrn,
    vgg_b,
    vgg_c,
    vgg_d,
    vgg_e,
)
from pycnn.models.zfnet import zfnet

__all__ = [
    "ModelInfo",
    "alexnet",
    "alexnet_one_tower",
    "alexnet_two_tower",
    "create",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "googlenet",
    "googlenet_2014",
    "info",
    "lenet5",
    "lenet5_1998",
    "list_models",
    "mobilenet_v2",
    "overfeat_accurate",
    "overfeat_fast",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet50_2015",
    "resnet56",
    "resnet101",
    "resnet101_2015",
    "resnet110",
    "resnet152",
    "resnet152_2015",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "squeezenet1_0",
    "squeezenet1_1",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "vgg_a",
    "vgg_a_lrn",
    "vgg_b",
    "vgg_c",
    "vgg_d",
    "vgg_e",
    "zfnet",
]
