"""Raw normalisation on arrays: across channels (LRN), over the batch, and by given coefficients a channel."""

from __future__ import annotations

from typing import Any

from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import expect_rank, expect_shape, flag, number
from pycnn.shape import whole

_ANY = 64  # as many dimensions as NumPy has


def lrn(x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """Local response normalisation across neighbouring channels, as `torch.nn.LocalResponseNorm`.

        y[c] = x[c] / (k + alpha/size * sum of x[i]^2 over i = c - size//2 .. c + (size - 1)//2)^beta

    Args:
        x: (N, C, ...), at least three dimensions; float16, bfloat16, float32 or float64.
        size: channels in a window, at least 1.
        alpha, beta, k: finite numbers.  The paper's alpha is this one's over `size`.

    Returns:
        An array of x's shape.

    Raises:
        TypeError: not an array, an unsupported dtype, or a parameter of a wrong type.
        ValueError: a wrong rank, or a parameter out of range.

    Reference: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012,
    section 3.3.

    >>> import numpy as np
    >>> lrn(np.full((1, 1, 1), 2.0), size=1, alpha=1.0, beta=0.5, k=0.0)
    array([[[1.]]])
    """
    call = Call(x=x)
    (x,) = call.arrays
    return call.back(call.backend.lrn_fwd(x, *_lrn_parameters(x, size, alpha, beta, k)))


def lrn_backward(dy: Array, x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """Gradient of `lrn`, with s[c] the base of its power:

        dx[c] = dy[c] / s[c]^beta - 2*alpha*beta/size * x[c] * sum of dy[i]*x[i] / s[i]^(beta + 1) over i that see c

    Args:
        dy: gradient of the output, of x's shape.
        x, size, alpha, beta, k: as in `lrn`.

    Returns:
        dx of x's shape.

    Raises:
        TypeError, ValueError: as `lrn`; also a dy of another shape.

    >>> import numpy as np
    >>> lrn_backward(np.ones((1, 1, 1)), np.full((1, 1, 1), 3.0), size=1, alpha=0.0)
    array([[[1.]]])
    """
    call = Call(dy=dy, x=x)
    dy, x = call.arrays
    expect_shape("dy", dy.shape, x.shape, "x's shape")
    return call.back(call.backend.lrn_bwd(dy, x, *_lrn_parameters(x, size, alpha, beta, k)))


def batch_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    residual: Array | None = None,
    relu: bool = False,
) -> tuple[Array, Array, Array]:
    """Batch normalisation by the statistics of this batch.

        y = (x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]

    Args:
        x: (N, C, ...), at least two dimensions; float16, bfloat16, float32 or float64.
        weight, bias: (C,), or None for 1 and 0; of x's dtype, or float32 beside 16 bits.
        eps: at least 0.
        residual: added to y, of its shape; on the CPU in the same pass over memory.
        relu: max(y, 0) at the end, likewise.

    Returns:
        y of x's shape; mean and var, (C,): over all axes but the second, the variance biased (divided by the count);
        float32 for an x of 16 bits, which they would lose their digits in.

    Raises:
        TypeError: not an array, an unsupported dtype, or arrays that do not go together.
        ValueError: a wrong rank, no channels, a weight or bias of another size, or an eps out of range.

    Reference: Ioffe & Szegedy, "Batch normalization", 2015, algorithm 1.

    >>> import numpy as np
    >>> y, mean, var = batch_norm(np.array([[1.0], [3.0]]), eps=0.0)
    >>> y.ravel(), mean, var
    (array([-1.,  1.]), array([2.]), array([1.]))
    """
    given = {"x": x, "weight": weight, "bias": bias, "residual": residual}
    call = Call("weight", "bias", "residual", per_channel=("weight", "bias"), **given)
    x, weight, bias, residual = call.arrays
    _expect_channels(x, weight=weight, bias=bias)
    if residual is not None:
        expect_shape("residual", residual.shape, x.shape, "x's shape")
    y, mean, var = call.backend.batch_norm_fwd(x, weight, bias, number("eps", eps, 0.0), residual, flag("relu", relu))
    return call.back(y), call.back(mean, call.wide), call.back(var, call.wide)


def batch_norm_backward(
    dy: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    var: Array,
    eps: float = 1e-5,
    y: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients of `batch_norm`, whose mean and variance depend on x too; u = (x - mean) / sqrt(var + eps):

        dx = weight / sqrt(var + eps) * (dy - mean of dy - u * mean of dy*u),  dweight = sum of dy*u,  dbias = sum of dy

    Args:
        dy: gradient of y, of x's shape.
        x, weight, eps: as in `batch_norm`.
        mean, var: (C,), as `batch_norm` gave them; like `weight` of x's dtype, or float32 beside 16 bits.
        y: what `batch_norm` gave with `relu`: dy is taken as 0 where y <= 0.

    Returns:
        dx of x's shape; dweight and dbias, (C,), in the dtype of `weight`, or else of `mean`.

    Raises:
        TypeError, ValueError: as `batch_norm`; also a dy, mean or var of another shape.

    >>> import numpy as np
    >>> x, dy = np.array([[1.0], [3.0]]), np.array([[1.0], [0.0]])
    >>> batch_norm_backward(dy, x, None, np.array([2.0]), np.array([1.0]), eps=0.0)[1:]
    (array([-1.]), array([1.]))
    """
    given = {"dy": dy, "x": x, "weight": weight, "mean": mean, "var": var, "y": y}
    call = Call("weight", "y", per_channel=("weight", "mean", "var"), **given)
    dtype = call.dtype_of("mean" if weight is None else "weight")
    dy, x, weight, mean, var, y = call.arrays
    expect_shape("dy", dy.shape, x.shape, "x's shape")
    if y is not None:
        expect_shape("y", y.shape, x.shape, "x's shape")
    _expect_channels(x, weight=weight, mean=mean, var=var)
    dx, dweight, dbias = call.backend.batch_norm_bwd(dy, x, weight, mean, var, number("eps", eps, 0.0), y)
    return call.back(dx), call.back(dweight, dtype), call.back(dbias, dtype)


def batch_norm_eval(
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Batch normalisation by statistics that are given, as a trained network's are.

        y = (x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]

    Args:
        x: (N, C, ...), at least two dimensions; float16, bfloat16, float32 or float64.
        mean, var: (C,); of x's dtype, or float32 beside 16 bits.
        weight, bias: (C,), or None for 1 and 0; likewise.
        eps: at least 0.

    Returns:
        An array of x's shape.

    Raises:
        TypeError, ValueError: as `batch_norm`; also a mean or var of another shape.

    >>> import numpy as np
    >>> batch_norm_eval(np.array([[1.0], [5.0]]), np.array([3.0]), np.array([4.0]), eps=0.0).ravel()
    array([-1.,  1.])
    """
    given = {"x": x, "mean": mean, "var": var, "weight": weight, "bias": bias}
    call = Call("weight", "bias", per_channel=("mean", "var", "weight", "bias"), **given)
    x, mean, var, weight, bias = call.arrays
    _expect_channels(x, mean=mean, var=var, weight=weight, bias=bias)
    return call.back(call.backend.batch_norm_eval(x, mean, var, weight, bias, number("eps", eps, 0.0)))


def channel_affine(x: Array, scale: Array | None, shift: Array) -> Array:
    """y = x * scale[c] + shift[c]: batch normalisation with known statistics, LeNet-5's trainable subsampling.

    Args:
        x: (N, C, ...), at least two dimensions; float16, bfloat16, float32 or float64.
        scale, shift: (C,); a scale of None stands for 1; of x's dtype, or float32 beside 16 bits.

    Returns:
        An array of x's shape.

    Raises:
        TypeError: not an array, an unsupported dtype, or arrays that do not go together.
        ValueError: a wrong rank, or coefficients of another size.

    >>> import numpy as np
    >>> channel_affine(np.array([[1.0, 1.0]]), np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    array([[2., 4.]])
    """
    call = Call("scale", per_channel=("scale", "shift"), x=x, scale=scale, shift=shift)
    x, scale, shift = call.arrays
    _expect_channels(x, scale=scale, shift=shift)
    return call.back(call.backend.channel_affine(x, scale, shift))


def channel_sum(dy: Array, dtype: Any = None) -> Array:
    """Sum over all axes but the second: the gradient of a bias.

    Args:
        dy: (N, C, ...), at least two dimensions.
        dtype: of the sums: None for dy's, or "float32" beside 16 bits.

    Returns:
        (C,).

    Raises:
        TypeError: not an array, or an unsupported dtype.
        ValueError: a wrong rank.

    >>> import numpy as np
    >>> channel_sum(np.ones((2, 3, 4, 5)))
    array([40., 40., 40.])
    """
    call = Call(dy=dy)
    (dy,) = call.arrays
    expect_rank("dy", dy.shape, 2, "(N, C, ...)", _ANY)
    dtype = call.dtype_for("dtype", dtype)
    return call.back(call.backend.channel_sum(dy), dtype)


def _lrn_parameters(x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[int, float, float, float]:
    expect_rank("x", x.shape, 3, "(N, C, ...)", _ANY)
    return whole("size", size, 1), number("alpha", alpha), number("beta", beta), number("k", k)


def _expect_channels(x: Array, **coefficients: Array | None) -> None:
    expect_rank("x", x.shape, 2, "(N, C, ...)", _ANY)
    if x.shape[1] < 1:
        raise ValueError(f"x must have at least one channel, got shape {x.shape}")
    for name, array in coefficients.items():
        if array is not None:
            expect_shape(name, array.shape, (x.shape[1],), "one value a channel, shape")
