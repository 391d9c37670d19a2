"""Optimisers, learning-rate schedules and gradient clipping, with PyTorch's names and numbers."""

from pycnn.optim import lr_scheduler as lr_scheduler
from pycnn.optim.adam import Adam, AdamW
from pycnn.optim.clip import clip_grad_norm_, clip_grad_value_
from pycnn.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from pycnn.optim.optimizer import Optimizer
from pycnn.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "Optimizer",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
]
