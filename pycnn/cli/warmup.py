"""``pycnn warmup``: a network's kernels compiled ahead, into one file for machines with a GPU."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pycnn.cli._network import add_size_arguments, image_shape, settings_of

if TYPE_CHECKING:
    from pycnn.jit.bundle import Bundle
    from pycnn.jit.sources import Instance

__all__ = ["add_parser", "run"]

_PATIENCE = 2.0  # seconds of work before there is a bar


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "warmup",
        help="compile a network's CUDA kernels ahead, without a GPU, into one file",
        description="Find out which CUDA kernels a network launches, compile them, and pack them into one file. No GPU "
        "and no driver is needed here. Where the file is used, no compiler is: name it in $PYCNN_KERNELS (several with "
        "a colon between), or call pycnn.jit.use_bundle(FILE).",
    )
    parser.add_argument("net", metavar="NET", nargs="?", help="a network's name; `pycnn summary` lists them")
    parser.add_argument("--all", action="store_true", help="every kernel there is, instead of a network's")
    parser.add_argument(
        "--arch", action="append", required=True, metavar="ARCH", help="such as sm_90a; may be given several times"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--train", action="store_true", help="also what a training step launches")
    parser.add_argument(
        "--batch",
        action="append",
        type=int,
        metavar="N",
        help="images at a time; may be given several times (default: 1; with --train that of `pycnn train`, and 256, "
        "by which it evaluates)",
    )
    add_size_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Find, compile, pack."""
    from pycnn.jit import bundle, nvrtc

    archs = _archs(args.arch)
    if args.all == (args.net is not None):
        raise ValueError("name either a network or --all")
    if not args.out.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {args.out.absolute().parent} for --out")
    version = nvrtc.build()  # before any work: raises if there is no NVRTC
    for arch in archs:
        if not nvrtc.supports(arch):
            raise ValueError(f"NVRTC {version} does not compile for {arch}")
    wanted = _everything(archs) if args.all else _of_network(args, archs)
    _compile(wanted)
    made = bundle.write(args.out, _compiled(wanted), version)
    _print(made)


def _archs(given: list[str]) -> list[str]:
    from pycnn.jit.sources import ARCHS

    for arch in given:
        if arch not in ARCHS:
            raise ValueError(f"--arch must be one of {', '.join(ARCHS)}, got {arch!r}")
    return list(dict.fromkeys(given))


def _everything(archs: list[str]) -> dict[str, list[Instance]]:
    from pycnn.jit.sources import installed

    return {arch: [instance for instance in installed().instances if arch in instance.archs] for arch in archs}


def _of_network(args: argparse.Namespace, archs: list[str]) -> dict[str, list[Instance]]:
    """The instances of each arch."""
    from pycnn import models
    from pycnn.backends.cuda import UnavailableError
    from pycnn.models.kernels import kernels_of
    from pycnn.nn import init
    from pycnn.shape import whole

    shape, settings = image_shape(args), settings_of(args)
    if args.batch is not None:
        batches = [whole("--batch", batch, 1) for batch in dict.fromkeys(args.batch)]
        passes = [(batch, args.train) for batch in batches]
    else:
        passes = _usual(args.net) if args.train else [(1, False)]
    found: dict[str, list[Instance]] = {}
    for arch in archs:
        instances: dict[Instance, None] = {}
        for batch, train in passes:
            with init.skip():
                model = models.create(args.net, **settings)
            try:
                instances.update(dict.fromkeys(kernels_of(model, shape, arch, batch=batch, train=train)))
            except UnavailableError as error:
                raise ValueError(f"{args.net} cannot run on a GPU: {error}") from None
        found[arch] = list(instances)
    sizes = ", ".join(f"{batch} (training)" if train else str(batch) for batch, train in passes)
    print(f"{args.net}, {'x'.join(map(str, shape))}, batch {sizes}")
    return found


def _usual(net: str) -> list[tuple[int, bool]]:
    """The batches of `pycnn train`, and whether they are trained on."""
    from pycnn.training import recipe_for
    from pycnn.training.trainer import EVALUATION_BATCH

    return [(recipe_for(net, "").batch, True), (EVALUATION_BATCH, False)]


def _compile(wanted: dict[str, list[Instance]]) -> None:
    """Have them all in the cache, and say how long it took."""
    from pycnn.cli._progress import bar
    from pycnn.jit import compile_all

    start, done = time.perf_counter(), 0
    total = sum(map(len, wanted.values()))
    with ExitStack() as stack:
        drawn = None

        def show(instance: Instance, _: Path) -> None:
            nonlocal drawn, done
            done += 1
            if drawn is None and time.perf_counter() - start > _PATIENCE:
                drawn = stack.enter_context(bar("compiling"))
            if drawn is not None:
                drawn.update(done, total, str(instance))

        for arch, instances in wanted.items():
            compile_all(instances, arch, on_done=show, bundles=False)
    print(f"{total} kernels ready after {time.perf_counter() - start:.1f} s")


def _compiled(wanted: dict[str, list[Instance]]) -> Any:
    """Instance, arch, key, cubin and log of each."""
    from pycnn.jit import nvrtc

    for arch, instances in wanted.items():
        for instance in instances:
            path = nvrtc.compile_cubin(instance, arch, bundles=False)
            log = path.with_suffix(".log").read_text()
            yield instance, arch, nvrtc.portable_key(instance, arch), path.read_bytes(), log


def _print(made: Bundle) -> None:
    for arch in made.archs:
        kernels = [kernel for kernel in made.kernels.values() if kernel.arch == arch]
        largest = max(kernels, key=lambda kernel: kernel.size)
        size = sum(kernel.size for kernel in kernels)
        print(
            f"{arch:8}{len(kernels):5} kernels{size / 2**20:8.2f} MiB, the largest {largest.instance} "
            f"with {largest.size / 2**10:.0f} KiB"
        )
    print(f"{made.path}: {made.path.stat().st_size / 2**20:.2f} MiB, by NVRTC {made.nvrtc}")
