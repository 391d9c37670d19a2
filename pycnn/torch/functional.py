"""torch.nn.functional's names and arguments, computed by pycnn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pycnn.torch import _operators

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "conv_transpose2d",
    "linear",
    "max_pool2d",
    "relu",
]

Tensor = torch.Tensor
IntPair = int | Sequence[int]


def _pair(name: str, value: IntPair) -> list[int]:
    if not isinstance(value, (tuple, list)):
        return [value, value]  # type: ignore[list-item]
    if len(value) == 1:
        return [value[0], value[0]]
    if len(value) != 2:
        raise ValueError(f"{name} must be an int or a pair (height, width), got {value!r}")
    return list(value)


def _casts(*tensors: Tensor | None) -> list[Any]:
    """In autocast's dtype, where it is on; what else is 64 bits wide stays so."""
    first: Any = tensors[0]
    if first.device.type == "meta" or not torch.is_autocast_enabled(first.device.type):
        return list(tensors)
    dtype = torch.get_autocast_dtype(first.device.type)
    narrow = {torch.float16, torch.bfloat16, torch.float32}
    return [None if one is None else one.to(dtype) if one.dtype in narrow else one for one in tensors]


def _of_one_image(function: Callable[[Tensor], Any], x: Tensor) -> Any:
    """`function` of batches, of `x` or of the one image that it is."""
    if x.ndim != 3:
        return function(x)
    result = function(x.unsqueeze(0))
    return tuple([one.squeeze(0) for one in result]) if isinstance(result, tuple) else result.squeeze(0)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair | str = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
) -> Tensor:
    """As torch.nn.functional.conv2d; `algo` is that of `pycnn.conv2d`, for all three passes.

    >>> conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2)).shape
    torch.Size([1, 1, 2, 2])
    """
    steps, reach = _pair("stride", stride), _pair("dilation", dilation)
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f'padding must be ints, "same" or "valid", got {padding!r}')
        if padding == "same" and steps != [1, 1]:
            raise ValueError(f'padding="same" needs a stride of 1, got {stride!r}')
        spans = [reach[i] * (weight.shape[2 + i] - 1) if padding == "same" else 0 for i in range(2)]
        sides = [spans[0] // 2, spans[0] - spans[0] // 2, spans[1] // 2, spans[1] - spans[1] // 2]
    else:
        h, w = _pair("padding", padding)
        sides = [h, h, w, w]
    x, weight, bias = _casts(input, weight, bias)
    return _of_one_image(lambda x: _operators.conv2d(x, weight, bias, steps, sides, reach, groups, algo), x)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    *,
    algo: str = "auto",
) -> Tensor:
    """As torch.nn.functional.conv_transpose2d; `algo` is that of `pycnn.conv_transpose2d`, for all three passes.

    >>> conv_transpose2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), stride=2).shape
    torch.Size([1, 1, 4, 4])
    """
    h, w = _pair("padding", padding)
    how = _pair("stride", stride), [h, h, w, w], _pair("output_padding", output_padding), groups
    reach = _pair("dilation", dilation)
    x, weight, bias = _casts(input, weight, bias)
    return _of_one_image(lambda x: _operators.conv_transpose2d(x, weight, bias, *how, reach, algo), x)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As torch.nn.functional.linear, of inputs of any number of dimensions.

    >>> linear(torch.ones(2, 5, 3), torch.ones(4, 3)).shape
    torch.Size([2, 5, 4])
    """
    x, weight, bias = _casts(input, weight, bias)
    if weight.ndim != 2:
        raise ValueError(f"weight must have 2 dimensions (out, in), got shape {tuple(weight.shape)}")
    flat = _operators.linear(x.reshape(-1, x.shape[-1]), weight, bias)
    return flat.reshape(*x.shape[:-1], weight.shape[0])


def max_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """As torch.nn.functional.max_pool2d.

    >>> max_pool2d(torch.arange(4.0).reshape(1, 1, 2, 2), 2).item()
    3.0
    """
    kernel = _pair("kernel_size", kernel_size)
    steps = kernel if stride is None or stride == [] else _pair("stride", stride)
    sides, reach = _pair("padding", padding), _pair("dilation", dilation)
    found = _of_one_image(lambda x: _operators.max_pool2d(x, kernel, steps, sides, reach, ceil_mode), input)
    return found if return_indices else found[0]


def avg_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """As torch.nn.functional.avg_pool2d.

    >>> avg_pool2d(torch.arange(4.0).reshape(1, 1, 2, 2), 2).item()
    1.5
    """
    kernel = _pair("kernel_size", kernel_size)
    steps = kernel if stride is None or stride == [] else _pair("stride", stride)
    how = kernel, steps, _pair("padding", padding), ceil_mode, count_include_pad, divisor_override
    return _of_one_image(lambda x: _operators.avg_pool2d(x, *how), input)


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """As torch.nn.functional.adaptive_avg_pool2d.

    >>> adaptive_avg_pool2d(torch.ones(1, 2, 5, 7), 1).shape
    torch.Size([1, 2, 1, 1])
    """
    wanted: Any = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(wanted) != 2:
        raise ValueError(f"output_size must be an int, a pair of ints or None, got {output_size!r}")
    sizes = [input.shape[i - 2] if size is None else size for i, size in enumerate(wanted)]
    return _of_one_image(lambda x: _operators.adaptive_avg_pool2d(x, sizes), input)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As torch.nn.functional.batch_norm, of 4 dimensions.

    >>> batch_norm(torch.arange(4.0).reshape(1, 1, 2, 2), None, None, training=True).mean().item()
    0.0
    """
    if input.ndim != 4:
        raise ValueError(f"input must have 4 dimensions (N, C, H, W), got shape {tuple(input.shape)}")
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("running_mean and running_var are needed outside training")
        scale = (running_var + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -running_mean * scale if bias is None else bias - running_mean * scale
        return _operators.channel_affine(input, scale, shift)
    count = input.numel() // input.shape[1]
    if count == 0:  # as torch: no statistics, and the running ones stay as they are
        ones = torch.ones(input.shape[1], dtype=input.dtype, device=input.device)
        scale = ones if weight is None else weight
        return _operators.channel_affine(input, scale, torch.zeros_like(scale) if bias is None else bias)
    if count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    y, mean, var = _operators.batch_norm(input, weight, bias, eps)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
    return y


def relu(input: Tensor) -> Tensor:
    """As torch.nn.functional.relu.

    >>> relu(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    return _operators.relu(input)
