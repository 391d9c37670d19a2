"""The network that a command works on: the arguments that name one, and the model they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_size_arguments", "add_weights_argument", "built", "image_shape", "load_into", "settings_of"]

Shape = tuple[int, int, int]


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
    """``--input`` and ``--classes``."""
    parser.add_argument("--input", metavar="CxHxW", help="size of an image (default: the network's own)")
    parser.add_argument("--classes", type=int, metavar="N", help="width of the output (default: the network's own)")


def add_weights_argument(parser: argparse.ArgumentParser) -> None:
    """``--weights``."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="a checkpoint of `pycnn train`, safetensors, or a PyTorch checkpoint (default: a fresh network's weights)",
    )


def image_shape(args: argparse.Namespace) -> Shape:
    """The size of an image: that of ``--input``, or the network's own.  Raises ValueError for what is no size."""
    from pycnn import models

    entry = models.info(args.net)
    if args.input is None:
        return entry.input_shape
    try:
        c, h, w = (int(part) for part in args.input.replace(",", "x").split("x"))
    except ValueError:
        raise ValueError(f"--input must be CxHxW, such as 3x224x224, got {args.input!r}") from None
    return c, h, w


def settings_of(args: argparse.Namespace) -> dict[str, int]:
    """What the network is made with.  Raises ValueError for a number of classes that is none."""
    from pycnn.shape import whole

    return {} if args.classes is None else {"num_classes": whole("--classes", args.classes, 1)}


def built(args: argparse.Namespace) -> Any:
    """The network, with the weights of ``--weights`` where it is given.

    Raises ValueError for an unknown name, a file that holds no weights, or those of another network.
    """
    from pycnn import models
    from pycnn.nn import init

    if args.weights is None:
        return models.create(args.net, **settings_of(args))
    with init.skip():
        model = models.create(args.net, **settings_of(args))
    load_into(model, args.weights)
    return model


def load_into(model: Any, path: Path) -> None:
    """Give the network the weights of a file.  Raises ValueError for a file that holds none, or those of another."""
    from pycnn import weights

    try:
        model.load_state_dict(weights.load(path))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
