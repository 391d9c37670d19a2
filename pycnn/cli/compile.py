"""``pycnn compile``: a network as one file that runs without its Python code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pycnn.cli._network import add_size_arguments, add_weights_argument, built, image_shape

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
    add_weights_argument(parser)
    add_size_arguments(parser)
    parser.add_argument("--accuracy", choices=("fast", "strict"), default="fast", help="what its layers may trade")
    parser.add_argument("--profile", action="store_true", help="also time every step")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at a time in what is printed")


def run(args: argparse.Namespace) -> None:
    """Build, load, compile, write; print the steps."""
    import numpy as np

    import pycnn
    from pycnn.shape import whole

    shape = image_shape(args)
    batch = whole("--batch", args.batch, 1)
    model = built(args)
    x = np.zeros((batch, *shape), np.float32)
    compiled = pycnn.compile(model, x, accuracy=args.accuracy)
    compiled.save(args.out)
    print(compiled.profile(x) if args.profile else compiled.summary(batch))
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB")
