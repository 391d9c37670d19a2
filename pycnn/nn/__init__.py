"""Layers and networks of layers, with PyTorch's names, arguments and state_dict keys."""

from pycnn import functional as functional
from pycnn.nn import init as init
from pycnn.nn.activation import LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from pycnn.nn.containers import ModuleDict, ModuleList, Sequential
from pycnn.nn.conv import Conv2d, ConvTranspose2d
from pycnn.nn.linear import Dropout, Flatten, Identity, Linear, ZeroPad2d
from pycnn.nn.loss import CrossEntropyLoss, MSELoss, NLLLoss
from pycnn.nn.module import Module
from pycnn.nn.norm import BatchNorm1d, BatchNorm2d, LocalResponseNorm
from pycnn.nn.parameter import Parameter
from pycnn.nn.pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "ZeroPad2d",
    "functional",
    "init",
]
