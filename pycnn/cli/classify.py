"""``pycnn classify``: what a network trained on ImageNet takes photographs for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["add_parser", "run"]

_BATCH = 16
_DRAWN = 24  # photographs in the picture; all are listed


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "classify",
        help="say what is in photographs",
        description="Show photographs to a network for ImageNet and print the likeliest classes of each. The shorter "
        "side is scaled to 256 pixels and the middle 224x224 shown, as torchvision tests its networks. Draws the "
        "photographs with their classes.",
        epilog="example: pycnn classify cat.jpg holidays/ --model mobilenet_v2 --weights mobilenet_v2.pth",
    )
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO", help="an image file, or a folder of them")
    parser.add_argument(
        "--model", default="mobilenet_v2", metavar="NET", help="a network's name (default: %(default)s)"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="FILE",
        help="safetensors, a PyTorch checkpoint, HDF5 or a checkpoint of `pycnn train`; its contents say which",
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="class names, one a line (default: ImageNet's)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes for each (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("classified.png"), metavar="FILE", help="the picture (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Read, classify, print, draw."""
    import numpy as np

    from pycnn._files import printable
    from pycnn.data.imagenet import class_names, read_photograph
    from pycnn.shape import whole
    from pycnn.viz.classified import classified

    names = class_names(args.labels)
    top = min(whole("--top", args.top, 1), len(names))
    model, size = _network(args, len(names))
    photos = list(_photos(args.photos))
    drawn: list[Any] = []
    answers: list[list[tuple[str, float]]] = []
    for start in range(0, len(photos), _BATCH):
        images = np.stack([read_photograph(path, size) for path in photos[start : start + _BATCH]])
        for path, row in zip(photos[start:], _probabilities(model, images), strict=False):
            best = np.argsort(-row, kind="stable")[:top].tolist()
            answers.append([(names[i], float(row[i])) for i in best])
            _print(printable(path), best, answers[-1])
        drawn.extend(images[: max(0, _DRAWN - len(drawn))])
    shown = len(drawn)
    captions = [printable(path.name) for path in photos[:shown]]
    title = f"{args.model}, {printable(args.weights.name)}"
    classified(np.stack(drawn), answers[:shown], captions, args.out, title)
    print(f"{printable(args.out)}: {'all of them' if shown == len(photos) else f'the first {shown}'}")


def _network(args: argparse.Namespace, classes: int) -> tuple[Any, int]:
    """The network, with its weights, and the side of its image.  Raises ValueError for one that is not for ImageNet."""
    from pycnn import models
    from pycnn.cli._network import load_into
    from pycnn.nn import init

    channels, size, _ = models.info(args.model).input_shape
    if channels != 3 or size < 200:
        raise ValueError(f"--model must be a network for photographs of 224 pixels or so, and {args.model} is not")
    with init.skip():
        model = models.create(args.model, num_classes=classes)
    load_into(model, args.weights)
    return model.eval(), size


def _photos(paths: Sequence[Path]) -> Iterator[Path]:
    """The files, and those in the folders.  Raises ValueError for a folder without images."""
    from pycnn.data.folder import SUFFIXES

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            raise ValueError(f"{path}: no images in this folder ({', '.join(SUFFIXES[:4])} ...)")
        yield from found


def _probabilities(model: Any, images: Any) -> Any:
    from pycnn import functional as F
    from pycnn.autograd import no_grad
    from pycnn.data.imagenet import to_input

    with no_grad():
        return F.softmax(model(to_input(images)), 1).numpy()


def _print(path: str, best: list[int], answer: list[tuple[str, float]]) -> None:
    print(path)
    for index, (name, share) in zip(best, answer, strict=True):
        print(f"  {100 * share:5.1f} %  {name} ({index})")
