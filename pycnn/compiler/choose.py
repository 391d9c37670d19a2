"""Which algorithm computes a convolution of a compiled network."""

from __future__ import annotations

from pycnn import algorithms, winograd
from pycnn.shape import Conv2dShape

__all__ = ["choose"]


def choose(shape: Conv2dShape, algo: str = "auto") -> str:
    """The packed layout's algorithm for a convolution without groups: "direct" or a Winograd variant.

    Args:
        shape: the problem, with its batch.
        algo: what the layer asks for.  "im2col" and its variants stand for "direct" here: both sum in one pass, without
            stored columns.

    Raises:
        ValueError: as `pycnn.conv2d`, for an algorithm that cannot run the problem.

    >>> choose(Conv2dShape(1, 64, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1)))
    'winograd_f4x4_3x3'
    >>> choose(Conv2dShape(1, 64, 56, 56, 64, 1, 1))
    'direct'
    """
    name = algorithms.resolve(algo, "fprop", shape, "float32")
    return name if winograd.tile_of(name) else "direct"
