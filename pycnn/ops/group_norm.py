"""Raw normalisation of groups of channels on arrays, forward and backward."""

from __future__ import annotations

from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import expect_rank, expect_shape, flag, number
from pycnn.shape import whole

_ANY = 64  # as many dimensions as NumPy has


def group_norm(
    x: Array,
    groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    centred: bool = True,
) -> tuple[Array, Array, Array]:
    """Normalisation of each group of neighbouring channels of each sample.

        y = (x - mean[n, g]) / sqrt(var[n, g] + eps) * weight[c] + bias[c]

    Args:
        x: (N, C, ...), at least two dimensions; float16, bfloat16, float32 or float64.
        groups: how many; they divide C.
        weight, bias: (C,), or None for 1 and 0; of x's dtype, or float32 beside 16 bits.
        eps: at least 0.
        centred: False takes the mean as 0, and the variance as the mean of the squares.

    Returns:
        y of x's shape; mean and biased variance, (N, groups), float32 for an x of 16 bits.

    Raises:
        TypeError: not an array, an unsupported dtype, or arrays that do not go together.
        ValueError: a wrong rank, no channels, groups that do not divide them, a weight or bias of another size, or an
            eps out of range.

    Reference: Wu & He, "Group normalization", 2018.

    >>> import numpy as np
    >>> y, mean, var = group_norm(np.array([[1.0, 3.0, 5.0, 5.0]]), 2, eps=1e-9)
    >>> y.round(4), mean, var
    (array([[-1.,  1.,  0.,  0.]]), array([[2., 5.]]), array([[1., 0.]]))
    """
    call = Call("weight", "bias", per_channel=("weight", "bias"), x=x, weight=weight, bias=bias)
    x, weight, bias = call.arrays
    groups = _expect_groups(x, groups, weight=weight, bias=bias)
    settings = number("eps", eps, 0.0), flag("centred", centred)
    y, mean, var = call.backend.group_norm_fwd(x, groups, weight, bias, *settings)
    return call.back(y), call.back(mean, call.wide), call.back(var, call.wide)


def group_norm_backward(
    dy: Array,
    x: Array,
    groups: int,
    weight: Array | None,
    mean: Array,
    var: Array,
    eps: float = 1e-5,
    centred: bool = True,
    affine: bool = True,
) -> tuple[Array, Array | None, Array | None]:
    """Gradients of `group_norm`, whose mean and variance depend on x too.

    With u = (x - mean) / sqrt(var + eps) and means over a group:

        dx = (dy*weight - mean of dy*weight - u * mean of dy*weight*u) / sqrt(var + eps)
        dweight = sum of dy*u,  dbias = sum of dy, by channel

    Args:
        dy: gradient of y, of x's shape.
        x, groups, weight, eps, centred: as in `group_norm`.
        mean, var: (N, groups), as `group_norm` gave them; like `weight` of x's dtype, or float32 beside 16 bits.
        affine: False leaves dweight and dbias out.

    Returns:
        dx of x's shape; dweight and dbias, (C,), in the dtype of `weight`, or else of `mean`; or None.

    Raises:
        TypeError, ValueError: as `group_norm`; also a dy, mean or var of another shape.

    >>> import numpy as np
    >>> x, dy = np.array([[1.0, 3.0]]), np.array([[1.0, 0.0]])
    >>> group_norm_backward(dy, x, 1, None, np.array([[2.0]]), np.array([[1.0]]), eps=0.0)[1:]
    (array([-1.,  0.]), array([1., 0.]))
    """
    given = {"dy": dy, "x": x, "weight": weight, "mean": mean, "var": var}
    call = Call("weight", per_channel=("weight", "mean", "var"), **given)
    dtype = call.dtype_of("mean" if weight is None else "weight")
    dy, x, weight, mean, var = call.arrays
    expect_shape("dy", dy.shape, x.shape, "x's shape")
    groups = _expect_groups(x, groups, weight=weight)
    for name, array in (("mean", mean), ("var", var)):
        expect_shape(name, array.shape, (x.shape[0], groups), "one value a group of each sample, shape")
    settings = number("eps", eps, 0.0), flag("centred", centred), flag("affine", affine)
    dx, dweight, dbias = call.backend.group_norm_bwd(dy, x, groups, weight, mean, var, *settings)
    if dweight is None:
        return call.back(dx), None, None
    return call.back(dx), call.back(dweight, dtype), call.back(dbias, dtype)


def _expect_groups(x: Array, groups: int, **coefficients: Array | None) -> int:
    expect_rank("x", x.shape, 2, "(N, C, ...)", _ANY)
    channels = x.shape[1]
    if channels < 1:
        raise ValueError(f"x must have at least one channel, got shape {x.shape}")
    groups = whole("groups", groups, 1)
    if channels % groups:
        raise ValueError(f"groups must divide the {channels} channels of x, got {groups}")
    for name, array in coefficients.items():
        if array is not None:
            expect_shape(name, array.shape, (channels,), "one value a channel, shape")
    return groups
