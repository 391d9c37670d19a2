"""THE table of mixed precision: in which dtype each operation is computed inside `pycnn.amp.autocast`.

    "low"       in the 16 bits of the block: what multiplies matrices, where a GPU's tensor cores gain.  Only the first
                two operands, which are the large ones, are rounded; a bias stays as it is.  Sums are kept in float32.
    "float32"   operands of 16 bits are widened: sums over many elements, and what turns small differences into large
                ones.  So is the result, whatever came in.
    "widest"    operands of different dtypes are brought to the wider one (float16 and bfloat16 to float32).
    "input"     as its input came; batch and group norm of 16 bits take float32 parameters and statistics, give 16 bits,
                and have their own sums in float32.

Operands of float64 are never rounded.  What is not in the table, a `pycnn.Function` of the user's, is computed in the
dtypes that it is given.

Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018; the lists of torch.autocast, from which this one
departs where it says so: a bias is not rounded, and batch norm's input may be of 16 bits on the CPU too.
"""

from __future__ import annotations

from typing import Literal

from pycnn import arithmetic as op
from pycnn import movement as move
from pycnn.functional.activation import LogSoftmax, Relu, ReluBackward, Sigmoid, Softmax, Tanh
from pycnn.functional.boxes import RoiMax
from pycnn.functional.conv import Conv2d, Conv2dDgrad, Conv2dWgrad, ConvTranspose2d
from pycnn.functional.conv3d import Conv3d, Conv3dDgrad, Conv3dWgrad
from pycnn.functional.dropout import Dropout
from pycnn.functional.edges import PadEdges, PadEdgesBackward
from pycnn.functional.elementwise_loss import BinaryCrossEntropy
from pycnn.functional.group_norm import GroupNorm
from pycnn.functional.linear import Bias, ChannelSum, Gemm, Linear
from pycnn.functional.loss import Mse, Nll, NllBackward, SquaredError
from pycnn.functional.norm import BatchNorm, BatchNormEval, ChannelAffine, ChannelWindow, LocalResponseNorm
from pycnn.functional.pool import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool2dBackward,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool2dBackward,
    AvgPool2d,
    AvgPool2dBackward,
    MaxPool2d,
    MaxPool2dBackward,
    PlaneTake,
)
from pycnn.functional.rectifier import Activation
from pycnn.functional.sampling import Resample, Sample, SampleDot, SampleScatter
from pycnn.functional.shaping import Pad
from pycnn.functional.unfold import Fold2d, Unfold2d
from pycnn.functional.unpool import MaxUnpool, MaxUnpoolBackward
from pycnn.graph import Function

__all__ = ["POLICY", "Rule"]

Rule = Literal["low", "float32", "widest", "input"]

_LOW = [Conv2d, ConvTranspose2d, Conv3d, Conv3dDgrad, Linear, Gemm, op.Matmul]
_FLOAT32 = [
    *(op.Exp, op.Log, op.Pow, op.PowNumber, op.Sum),
    *(Softmax, LogSoftmax, LocalResponseNorm),
    *(Nll, Mse, SquaredError, BinaryCrossEntropy),
]
_WIDEST = [op.Add, op.Sub, op.Mul, op.Div, op.Bigger, op.Where, move.Concat, Sample]
_INPUT = [
    *(op.Neg, op.Abs, op.Sqrt, op.Clamp, op.Extreme, move.Cast, move.Move, move.Clone, move.Full),
    *(move.Reshape, move.Permute, move.Expand, move.GetItem, move.SetItem, move.TakeAlong, Pad, PadEdges, Dropout),
    *(Relu, Tanh, Sigmoid, Activation),
    *(BatchNorm, BatchNormEval, GroupNorm, ChannelAffine, Bias),
    *(MaxPool2d, AvgPool2d, AdaptiveMaxPool2d, AdaptiveAvgPool2d, Resample),
    *(MaxPool2d, AvgPool2d, AdaptiveMaxPool2d, AdaptiveAvgPool2d, Resample, RoiMax),
    # Backward's own, which runs in the dtypes of forward.
    *(Conv2dDgrad, Conv2dWgrad, Conv3dWgrad, ChannelSum, ChannelWindow, ReluBackward),
    *(MaxPool2dBackward, AvgPool2dBackward, AdaptiveMaxPool2dBackward, AdaptiveAvgPool2dBackward),
    *(SampleDot, SampleScatter),
    *(PlaneTake, NllBackward, move.SumTo, move.PutAlong, move.PutItem),
    *(PadEdgesBackward, Unfold2d, Fold2d, MaxUnpool, MaxUnpoolBackward),
]

POLICY: dict[type[Function], Rule] = {
    **dict.fromkeys(_LOW, "low"),
    **dict.fromkeys(_FLOAT32, "float32"),
    **dict.fromkeys(_WIDEST, "widest"),
    **dict.fromkeys(_INPUT, "input"),
}
