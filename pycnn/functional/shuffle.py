"""Moving blocks between space and channels: views, and one copy."""

from __future__ import annotations

from typing import Any

from pycnn.functional._arrays import composed
from pycnn.shape import whole

__all__ = ["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]


@composed
def pixel_shuffle(x: Any, upscale_factor: int) -> Any:
    """r*r channels as the r x r pixels of one.

        y[..., c, h*r + i, w*r + j] = x[..., c*r*r + i*r + j, h, w]

    Args:
        x: (..., C*r*r, H, W); a Tensor or an array.
        upscale_factor: r, an int of at least 1.

    Returns:
        (..., C, H*r, W*r).

    Raises:
        TypeError: not an array, or a factor that is no int.
        ValueError: fewer than 3 dimensions, or channels that r*r does not divide.

    Reference: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
    Neural Network", CVPR 2016.

    >>> import numpy as np, pycnn
    >>> pycnn.pixel_shuffle(np.arange(4.0).reshape(4, 1, 1), 2)
    array([[[0., 1.],
            [2., 3.]]])
    """
    r = whole("upscale_factor", upscale_factor, 1)
    *lead, c, h, w = _image(x)
    if c % (r * r):
        raise ValueError(f"x must have a multiple of {r * r} channels for upscale_factor={r}, got {c}")
    blocks = x.reshape(*lead, c // (r * r), r, r, h, w)
    return _moved(blocks, len(lead) + 1, (2, 0, 3, 1)).reshape(*lead, c // (r * r), h * r, w * r)


@composed
def pixel_unshuffle(x: Any, downscale_factor: int) -> Any:
    """The r x r pixels of a block as r*r channels: the opposite of `pixel_shuffle`.

        y[..., c*r*r + i*r + j, h, w] = x[..., c, h*r + i, w*r + j]

    Args:
        x: (..., C, H*r, W*r); a Tensor or an array.
        downscale_factor: r, an int of at least 1.

    Returns:
        (..., C*r*r, H, W).

    Raises:
        TypeError: not an array, or a factor that is no int.
        ValueError: fewer than 3 dimensions, or a height or width that r does not divide.

    >>> import numpy as np, pycnn
    >>> pycnn.pixel_unshuffle(np.arange(4.0).reshape(1, 2, 2), 2).ravel()
    array([0., 1., 2., 3.])
    """
    r = whole("downscale_factor", downscale_factor, 1)
    *lead, c, h, w = _image(x)
    if h % r or w % r:
        raise ValueError(f"x must have a height and width that are multiples of {r}, got {h} x {w}")
    blocks = x.reshape(*lead, c, h // r, r, w // r, r)
    return _moved(blocks, len(lead) + 1, (1, 3, 0, 2)).reshape(*lead, c * r * r, h // r, w // r)


@composed
def channel_shuffle(x: Any, groups: int) -> Any:
    """The channels of `groups` groups in turn: y[:, i*groups + g] = x[:, g*(C/groups) + i].

    Args:
        x: (N, C, ...); a Tensor or an array.
        groups: an int that divides C.

    Returns:
        an array of x's shape.

    Raises:
        TypeError: not an array, or a number of groups that is no int.
        ValueError: fewer than 3 dimensions, or groups that do not divide the channels.

    Reference: Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices", CVPR
    2018.

    >>> import numpy as np, pycnn
    >>> pycnn.channel_shuffle(np.arange(4.0).reshape(1, 4, 1), 2).ravel()
    array([0., 2., 1., 3.])
    """
    g = whole("groups", groups, 1)
    if x.ndim < 3:
        raise ValueError(f"x must have at least 3 dimensions (N, C, ...), got shape {x.shape}")
    n, c, *rest = x.shape
    if c % g:
        raise ValueError(f"groups must divide the channels of x, got groups={g} for {c}")
    return x.reshape(n, g, c // g, *rest).transpose(1, 2).reshape(*x.shape)


def _image(x: Any) -> tuple[int, ...]:
    if x.ndim < 3:
        raise ValueError(f"x must have at least 3 dimensions (..., C, H, W), got shape {x.shape}")
    return tuple(x.shape)


def _moved(x: Any, lead: int, order: tuple[int, ...]) -> Any:
    """The axes behind the first `lead` in another order."""
    return x.permute(*range(lead), *[lead + axis for axis in order])
