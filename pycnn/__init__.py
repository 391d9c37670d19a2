"""pycnn: convolution, pooling and their gradients on CPU and CUDA, under a thin autograd."""

import importlib
import importlib.util
from typing import Any

if importlib.util.find_spec("pycnn._cpu") is None:
    raise ImportError(
        f"pycnn's native module is not in {__path__[0]}: a checkout needs `pip install -e .`, "
        "or `pip install .` and Python started outside it"
    )

from pycnn import autograd as autograd
from pycnn import functional as functional
from pycnn import ops as ops
from pycnn import random as random
from pycnn import tuning as tuning
from pycnn.algorithms import use_accuracy as use_accuracy
from pycnn.algorithms import use_precision as use_precision
from pycnn.algorithms import use_workspace_limit as use_workspace_limit
from pycnn.autograd import Function as Function
from pycnn.autograd import detect_changes as detect_changes
from pycnn.autograd import enable_grad as enable_grad
from pycnn.autograd import grad as grad
from pycnn.autograd import is_grad_enabled as is_grad_enabled
from pycnn.autograd import no_grad as no_grad
from pycnn.autograd import set_debug as set_debug
from pycnn.backends import use_backend as use_backend
from pycnn.custom import register_conv2d as register_conv2d
from pycnn.custom import unregister_conv2d as unregister_conv2d
from pycnn.functional import adaptive_avg_pool1d as adaptive_avg_pool1d
from pycnn.functional import adaptive_avg_pool2d as adaptive_avg_pool2d
from pycnn.functional import adaptive_avg_pool3d as adaptive_avg_pool3d
from pycnn.functional import adaptive_max_pool1d as adaptive_max_pool1d
from pycnn.functional import adaptive_max_pool2d as adaptive_max_pool2d
from pycnn.functional import adaptive_max_pool3d as adaptive_max_pool3d
from pycnn.functional import affine_grid as affine_grid
from pycnn.functional import alpha_dropout as alpha_dropout
from pycnn.functional import avg_pool1d as avg_pool1d
from pycnn.functional import avg_pool2d as avg_pool2d
from pycnn.functional import avg_pool3d as avg_pool3d
from pycnn.functional import batch_norm as batch_norm
from pycnn.functional import batched_nms as batched_nms
from pycnn.functional import binary_cross_entropy as binary_cross_entropy
from pycnn.functional import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
from pycnn.functional import box_iou as box_iou
from pycnn.functional import cat as cat
from pycnn.functional import celu as celu
from pycnn.functional import channel_shuffle as channel_shuffle
from pycnn.functional import conv1d as conv1d
from pycnn.functional import conv2d as conv2d
from pycnn.functional import conv3d as conv3d
from pycnn.functional import conv_transpose1d as conv_transpose1d
from pycnn.functional import conv_transpose2d as conv_transpose2d
from pycnn.functional import conv_transpose3d as conv_transpose3d
from pycnn.functional import cosine_embedding_loss as cosine_embedding_loss
from pycnn.functional import cosine_similarity as cosine_similarity
from pycnn.functional import cross_entropy as cross_entropy
from pycnn.functional import deform_conv2d as deform_conv2d
from pycnn.functional import dropout as dropout
from pycnn.functional import dropout1d as dropout1d
from pycnn.functional import dropout2d as dropout2d
from pycnn.functional import dropout3d as dropout3d
from pycnn.functional import elu as elu
from pycnn.functional import erf as erf
from pycnn.functional import feature_alpha_dropout as feature_alpha_dropout
from pycnn.functional import flatten as flatten
from pycnn.functional import fold as fold
from pycnn.functional import gaussian_nll_loss as gaussian_nll_loss
from pycnn.functional import gelu as gelu
from pycnn.functional import glu as glu
from pycnn.functional import grid_sample as grid_sample
from pycnn.functional import group_norm as group_norm
from pycnn.functional import hardshrink as hardshrink
from pycnn.functional import hardsigmoid as hardsigmoid
from pycnn.functional import hardswish as hardswish
from pycnn.functional import hardtanh as hardtanh
from pycnn.functional import hinge_embedding_loss as hinge_embedding_loss
from pycnn.functional import huber_loss as huber_loss
from pycnn.functional import instance_norm as instance_norm
from pycnn.functional import interpolate as interpolate
from pycnn.functional import kl_div as kl_div
from pycnn.functional import l1_loss as l1_loss
from pycnn.functional import layer_norm as layer_norm
from pycnn.functional import leaky_relu as leaky_relu
from pycnn.functional import linear as linear
from pycnn.functional import local_response_norm as local_response_norm
from pycnn.functional import locally_connected1d as locally_connected1d
from pycnn.functional import locally_connected2d as locally_connected2d
from pycnn.functional import log_softmax as log_softmax
from pycnn.functional import logsigmoid as logsigmoid
from pycnn.functional import lp_pool1d as lp_pool1d
from pycnn.functional import lp_pool2d as lp_pool2d
from pycnn.functional import lp_pool3d as lp_pool3d
from pycnn.functional import margin_ranking_loss as margin_ranking_loss
from pycnn.functional import max_pool1d as max_pool1d
from pycnn.functional import max_pool2d as max_pool2d
from pycnn.functional import max_pool3d as max_pool3d
from pycnn.functional import max_unpool1d as max_unpool1d
from pycnn.functional import max_unpool2d as max_unpool2d
from pycnn.functional import max_unpool3d as max_unpool3d
from pycnn.functional import mish as mish
from pycnn.functional import mse_loss as mse_loss
from pycnn.functional import multi_margin_loss as multi_margin_loss
from pycnn.functional import multilabel_soft_margin_loss as multilabel_soft_margin_loss
from pycnn.functional import nll_loss as nll_loss
from pycnn.functional import nms as nms
from pycnn.functional import normalize as normalize
from pycnn.functional import one_hot as one_hot
from pycnn.functional import pad as pad
from pycnn.functional import pairwise_distance as pairwise_distance
from pycnn.functional import pixel_shuffle as pixel_shuffle
from pycnn.functional import pixel_unshuffle as pixel_unshuffle
from pycnn.functional import poisson_nll_loss as poisson_nll_loss
from pycnn.functional import prelu as prelu
from pycnn.functional import relu as relu
from pycnn.functional import relu6 as relu6
from pycnn.functional import resample as resample
from pycnn.functional import rms_norm as rms_norm
from pycnn.functional import roi_align as roi_align
from pycnn.functional import roi_pool as roi_pool
from pycnn.functional import selu as selu
from pycnn.functional import sigmoid as sigmoid
from pycnn.functional import sigmoid_focal_loss as sigmoid_focal_loss
from pycnn.functional import silu as silu
from pycnn.functional import smooth_l1_loss as smooth_l1_loss
from pycnn.functional import soft_margin_loss as soft_margin_loss
from pycnn.functional import softmax as softmax
from pycnn.functional import softplus as softplus
from pycnn.functional import softshrink as softshrink
from pycnn.functional import softsign as softsign
from pycnn.functional import stack as stack
from pycnn.functional import tanh as tanh
from pycnn.functional import tanhshrink as tanhshrink
from pycnn.functional import threshold as threshold
from pycnn.functional import triplet_margin_loss as triplet_margin_loss
from pycnn.functional import unfold as unfold
from pycnn.functional import upsample as upsample
from pycnn.functional import where as where
from pycnn.machine import get_isa as get_isa
from pycnn.machine import get_num_threads as get_num_threads
from pycnn.machine import set_isa as set_isa
from pycnn.machine import set_num_threads as set_num_threads
from pycnn.memory_format import channels_last as channels_last
from pycnn.memory_format import contiguous_format as contiguous_format
from pycnn.random import manual_seed as manual_seed
from pycnn.tensor import Tensor as Tensor
from pycnn.tensor import from_dlpack as from_dlpack
from pycnn.tensor import ones as ones
from pycnn.tensor import tensor as tensor
from pycnn.tensor import zeros as zeros

__version__ = "0.1.0"

# Imported when first used, so that `import pycnn` alone stays quick.
_LATER = ("amp", "checkpoint", "compiler", "cuda", "data", "jit", "models", "nn", "onnx", "optim", "weights")
_NAMES_LATER = {
    **dict.fromkeys(("CompileError", "CompiledModel", "compile", "load_compiled"), "pycnn.compiler"),
    "CudaKernel": "pycnn.custom.text",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return importlib.import_module(f"pycnn.{name}")
    if name in _NAMES_LATER:
        return getattr(importlib.import_module(_NAMES_LATER[name]), name)
    raise AttributeError(f"module 'pycnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *_NAMES_LATER})
