"""``pycnn compare``: operations, parameters and published accuracy of networks, as a table and a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pycnn.viz.complexity import Complexity

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compare",
        help="compare networks: operations, parameters, accuracy",
        description="Draw the lecture's picture 'comparing complexity' and print the numbers in it, with the source of "
        "every accuracy. Operations are multiply-adds for one image.",
    )
    parser.add_argument("nets", metavar="NET", nargs="*", help="networks (default: those with a published accuracy)")
    parser.add_argument("--out", type=Path, default=Path("compare.png"), help="the picture (default compare.png)")


def run(args: argparse.Namespace) -> None:
    """Print the table and draw the picture."""
    from pycnn.models.published import TOP1
    from pycnn.viz.complexity import complexity

    twins = ("vgg_a", "vgg_b", "vgg_d", "vgg_e")  # the paper's names of torchvision's vgg11, 13, 16 and 19
    networks = [_measured(name) for name in args.nets or [name for name in TOP1 if name not in twins]]
    print(f"{'network':20} {'parameters':>12} {'multiply-adds':>15}  {'top-1':>6}  source")
    notes: dict[str, int] = {}
    for network in networks:
        published = TOP1.get(network.name)
        line = f"{network.name:20} {network.parameters:12,} {network.macs:15,}"
        if published is not None:
            note = f"{published.source}; {published.test}"
            line += f"  {published.top1:6.2f}  {notes.setdefault(note, len(notes) + 1):6}"
        print(line)
    for note, number in notes.items():
        print(f"{number:3}: {note}")
    print(f"\n{complexity(networks, args.out)}")


def _measured(name: str) -> Complexity:
    from pycnn import models
    from pycnn.models.published import TOP1
    from pycnn.models.summary import summary
    from pycnn.nn import init
    from pycnn.viz.complexity import Complexity

    settings = {"aux_logits": False} if name.startswith("googlenet") else {}  # the heads serve training alone
    with init.skip():
        model = models.create(name, **settings)
    rows = summary(model, models.info(name).input_shape)
    parameters = sum(row.parameters for row in rows)
    published = TOP1.get(name)
    return Complexity(name, sum(row.macs for row in rows), parameters, None if published is None else published.top1)
