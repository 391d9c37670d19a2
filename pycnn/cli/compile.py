"""``pycnn compile``: a network as one file that runs without its Python code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compile",
        help="make one file of a network, for inference without its Python code",
        description="Compile a network for inference on a CPU and write it to one file, which pycnn.load_compiled "
        "reads. Batch norm is folded, layers are fused; weights stay in plain float32, so the file suits any machine.",
    )
    parser.add_argument("net", metavar="NET", help="a network's name; `pycnn summary` lists them")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="a checkpoint of `pycnn train` (default: a fresh network's weights)",
    )
    parser.add_argument("--input", metavar="CxHxW", help="size of the images (default: the network's own)")
    parser.add_argument("--classes", type=int, metavar="N", help="width of the output (default: the network's own)")
    parser.add_argument("--accuracy", choices=("fast", "strict"), default="fast", help="what its layers may trade")
    parser.add_argument("--profile", action="store_true", help="also time every step")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at a time in what is printed")


def run(args: argparse.Namespace) -> None:
    """Build, load, compile, write; print the steps."""
    import numpy as np

    import pycnn
    from pycnn import models
    from pycnn.nn import init
    from pycnn.shape import whole

    entry = models.info(args.net)
    shape = entry.input_shape if args.input is None else _shape(args.input)
    settings = {} if args.classes is None else {"num_classes": whole("--classes", args.classes, 1)}
    batch = whole("--batch", args.batch, 1)
    if args.weights is None:
        model = models.create(args.net, **settings)
    else:
        with init.skip():
            model = models.create(args.net, **settings)
        _load(model, args.weights)
    x = np.zeros((batch, *shape), np.float32)
    compiled = pycnn.compile(model, x, accuracy=args.accuracy)
    compiled.save(args.out)
    print(compiled.profile(x) if args.profile else compiled.summary(batch))
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB")


def _load(model: Any, path: Path) -> None:
    from pycnn import checkpoint

    parts = checkpoint.load(path).parts
    if "model" not in parts:
        raise ValueError(f"{path} holds no network, but {', '.join(parts) or 'nothing'}")
    try:
        model.load_state_dict(parts["model"])
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}") from None


def _shape(text: str) -> tuple[int, int, int]:
    try:
        c, h, w = (int(part) for part in text.split("x"))
    except ValueError:
        raise ValueError(f"--input must be CxHxW, such as 3x224x224, got {text!r}") from None
    return c, h, w
