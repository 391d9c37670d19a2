"""``pycnn train``: train a network on images, with live progress, checkpoints, curves and pictures."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pycnn.cli import _progress

if TYPE_CHECKING:
    from pycnn.data import Split
    from pycnn.training import BatchReport, EpochReport, Recipe, Trainer

__all__ = ["add_parser", "run"]

CHECKPOINT = "checkpoint.safetensors"
_INTERRUPTED = 130


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train a network on images",
        description="Train a network on images. Writes a checkpoint after each epoch, and at the end metrics.json, "
        "curves, the confusion matrix, misclassified samples, the first layer's filters and activation maps.",
        epilog="Without other options the recipe is the one that was measured for this network and data set. "
        "A killed run goes on with the same command and --resume, to the very result it would have had.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("net", metavar="NET", help="a network's name, as in `pycnn summary`: lenet5, resnet20, ...")
    parser.add_argument(
        "--data",
        default="digits",
        metavar="DATA",
        help="digits (default; no download), fashion-mnist, mnist, cifar10, or a folder: of IDX files, of CIFAR-10's "
        "binary files, or of images in one subfolder a class",
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the files of a named data set are")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for everything written (default runs/NET-DATA)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, augmentation, dropout (default 0)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train N times, from --seed upwards")

    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=int, help="passes over the training images")
    recipe.add_argument("--batch", type=int, help="images a step")
    recipe.add_argument("--lr", type=float, help="highest learning rate")
    recipe.add_argument("--optimizer", help="adamw or sgd")
    recipe.add_argument("--schedule", help="cosine, step or constant")
    recipe.add_argument("--warmup", type=float, help="share of the steps over which the rate first rises")
    recipe.add_argument("--weight-decay", type=float, help="decay of the weights")
    recipe.add_argument("--label-smoothing", type=float, help="share of the target spread over all classes")
    recipe.add_argument("--shift", type=int, help="pixels by which images may be moved")
    recipe.add_argument("--flip", action=argparse.BooleanOptionalAction, help="mirror half of the images")
    recipe.add_argument("--cutout", type=int, help="side of a square hole in each training image")
    recipe.add_argument("--color-jitter", type=float, help="AlexNet's colour jitter, in standard deviations (0.1)")

    engine = parser.add_argument_group("engine")
    engine.add_argument("--threads", type=int, help="of the CPU engine (default: all cores)")
    engine.add_argument("--backend", choices=("cpu", "cuda", "reference"), help="(default: cpu)")
    engine.add_argument(
        "--amp",
        choices=("float16", "bfloat16"),
        help="mixed precision: 16 bits where they do no harm, float32 parameters (default: float32 everywhere)",
    )
    engine.add_argument("--workers", type=int, default=1, help="threads that prepare batches (default 1)")
    engine.add_argument("--checkpoint-every", type=int, default=0, metavar="STEPS", help="besides after each epoch")
    engine.add_argument("--no-plots", action="store_true", help="write checkpoint and metrics only")


def run(args: argparse.Namespace) -> int:
    """Run the command; see `pycnn.cli.main` for what becomes of errors."""
    import pycnn
    from pycnn.shape import whole

    for option, least in (("seeds", 1), ("checkpoint_every", 0), ("workers", 0)):
        whole(f"--{option.replace('_', '-')}", getattr(args, option), least)
    if args.threads is not None:
        pycnn.set_num_threads(whole("--threads", args.threads, 1))
    if args.backend == "cuda":  # the arrays say it from here on: those of the network and its batches are on the GPU
        _engine("cuda")
        return _train(args)
    with pycnn.use_backend(args.backend) if args.backend else nullcontext():
        return _train(args)


def _train(args: argparse.Namespace) -> int:
    """Train with every seed."""
    from pycnn import data, models
    from pycnn.training import recipe_for

    entry = models.info(args.net)
    with _progress.download_progress() as progress:
        # Images in folders leave an eighth for random crops: 256 pixels for an input of 224, as AlexNet had them.
        split = data.load(args.data, args.data_dir, image_size=round(entry.input_shape[1] * 8 / 7), progress=progress)
    recipe = recipe_for(args.net, split.name)
    given = {field.name: getattr(args, field.name, None) for field in fields(recipe)}
    recipe = replace(recipe, **{name: value for name, value in given.items() if value is not None})
    out = args.out or Path("runs") / f"{args.net}-{split.name}"
    print(f"{args.net} on {split.name}: {len(split.train)} images to train on, {len(split.test)} to test")
    print(f"data from {split.source}; results go to {out}/")
    accuracies = []
    for seed in range(args.seed, args.seed + args.seeds):
        folder = out / f"seed{seed}" if args.seeds > 1 else out
        if args.seeds > 1:
            print(f"seed {seed}")
        try:
            accuracies.append(_train_one(args, split, entry.input_shape, recipe, seed, folder))
        except KeyboardInterrupt:
            saved = (folder / CHECKPOINT).exists()
            how = f"; go on from {folder / CHECKPOINT} with the same command and --resume" if saved else ""
            print(f"\npycnn train: interrupted{how}", file=sys.stderr)
            return _INTERRUPTED
    if args.seeds > 1:
        listed = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
        print(f"test accuracy of {args.seeds} seeds, last epoch: {listed} %; worst {100 * min(accuracies):.2f} %")
    return 0


def _train_one(
    args: argparse.Namespace,
    split: Split,
    input_shape: tuple[int, int, int],
    recipe: Recipe,
    seed: int,
    folder: Path,
) -> float:
    """Train with one seed and write everything; the test accuracy after the last epoch."""
    from pycnn import models, random
    from pycnn.cli import _train_outputs
    from pycnn.training import Trainer

    random.manual_seed(seed)
    net = models.create(args.net, num_classes=len(split.classes))
    if args.backend == "cuda":
        net.cuda()
    settings = {"net": args.net, "data": split.name, "seed": seed, "amp": args.amp, **_engine(args.backend)}
    trainer = Trainer(net, split, input_shape, recipe, seed=seed, workers=args.workers, amp=args.amp, settings=settings)
    path = folder / CHECKPOINT
    if args.resume and path.exists():
        trainer.resume(path)
        print(f"resumed after {len(trainer.history)} epochs, {trainer.step} steps, from {path}")
    start = time.perf_counter()
    with _live(trainer) as on_batch:
        trainer.fit(path, every=args.checkpoint_every, on_batch=on_batch, on_epoch=_Lines(recipe.epochs))
    elapsed = time.perf_counter() - start
    evaluation = trainer.evaluate()
    _train_outputs.write_metrics(folder, trainer, evaluation, {**settings, "seconds": elapsed, "source": split.source})
    net.cpu()
    if not args.no_plots:
        _train_outputs.draw(folder, trainer, evaluation, f"{args.net} on {split.name}, seed {seed}")
    print(f"test accuracy {100 * evaluation.accuracy:.2f} % after {elapsed:.1f} s")
    return evaluation.accuracy


def _engine(backend: str | None) -> dict[str, Any]:
    """What of the engine makes the numbers what they are: a run resumed under another would not be the same run.

    Raises MissingToolError for "cuda" without CuPy, driver or GPU.
    """
    import pycnn
    from pycnn import backends

    name = backend or backends.selected() or "cpu"
    if name == "cuda":
        from pycnn.arrays import parse_device

        parse_device("cuda")
    return {"backend": name, "isa": pycnn.get_isa() if name == "cpu" else None}


class _Lines:
    """One line on stdout for each epoch."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def __call__(self, report: EpochReport) -> None:
        width = len(str(self._epochs))
        print(
            f"epoch {report.epoch:{width}}/{self._epochs}  loss {report.train_loss:.4f}  "
            f"train {100 * report.train_accuracy:6.2f} %  test {100 * report.test_accuracy:6.2f} %  "
            f"{report.images_per_second:7.0f} images/s  {report.seconds:.1f} s",
            flush=True,
        )


@contextmanager
def _live(trainer: Trainer) -> Iterator[Any]:
    """A function that shows a running epoch as a bar; None where nobody watches."""
    if not _progress.is_live():
        yield None
        return
    epochs = trainer.recipe.epochs
    with _progress.bar("training") as drawn:

        def show(report: BatchReport) -> None:
            drawn.title(f"epoch {report.epoch}/{epochs}")
            drawn.update(
                (report.epoch - 1) * report.batches + report.batch,
                epochs * report.batches,
                f"loss {report.loss:.4f}  accuracy {100 * report.accuracy:.2f} %  "
                f"{report.images_per_second:.0f} images/s",
            )

        yield show
