"""``pycnn export``: a network as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pycnn.cli._network import add_size_arguments, add_weights_argument, built, image_shape

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "export",
        help="write a network to an ONNX file",
        description="Write a network to an ONNX file, for inference in float32 with batches of any size. Batch norm "
        "is folded into the convolution before it; a layer's weights keep its name.",
    )
    parser.add_argument("net", metavar="NET", help="a network's name; `pycnn summary` lists them")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    add_weights_argument(parser)
    add_size_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Build, load, follow, write; say what was written."""
    import numpy as np

    from pycnn.onnx.writer import export

    shape = image_shape(args)
    export(built(args), np.zeros((1, *shape), np.float32), args.out)
    print(f"{args.out}: {args.net}, {'x'.join(map(str, shape))}, {args.out.stat().st_size / 2**20:.2f} MiB")
