"""``pycnn summary``: what a network consists of, layer by layer."""

from __future__ import annotations

import argparse
from typing import Any

from pycnn.cli._network import add_size_arguments, image_shape, settings_of

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "summary",
        help="describe a network layer by layer",
        description="Print each layer's output shape, parameters, multiply-adds, activation memory and receptive "
        "field, for one image. Nothing is computed, so large networks take no longer than small ones.",
    )
    parser.add_argument("net", metavar="NET", nargs="?", help="a network's name; without it, the names are listed")
    add_size_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> None:
    """Print the summary, or the names of all networks."""
    from pycnn import models
    from pycnn.models.summary import format_rows, summary
    from pycnn.nn import init

    if args.net is None:
        for name in models.list_models():
            entry = models.info(name)
            print(f"{name:20} {'x'.join(map(str, entry.input_shape)):12} {entry.paper}")
        return
    entry = models.info(args.net)
    shape = image_shape(args)
    with init.skip():
        model = models.create(args.net, **settings_of(args))
    rows = summary(model, shape)
    if args.json:
        import json
        from dataclasses import asdict

        print(json.dumps({"net": args.net, "input": shape, "layers": [asdict(row) for row in rows]}, indent=1))
    else:
        print(f"{args.net} ({entry.paper})\n")
        print(format_rows(rows, shape))
