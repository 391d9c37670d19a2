"""``pycnn warmup``: compile a network's CUDA kernels before they are needed, into the cache and into a bundle."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

_PATIENCE = 2.0  # seconds after which there is a progress bar


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "warmup",
        help="compile a network's CUDA kernels before they are needed",
        description="Finds out which CUDA kernels a network launches, without a GPU, and compiles them into the cache, "
        "and with --out into a bundle: a file that other machines take kernels from, whatever their NVRTC and without "
        "compiling, by pycnn.jit.use_bundle(FILE) or the environment variable PYCNN_BUNDLE.",
    )
    parser.add_argument("net", metavar="NET", help="a network's name, as in `pycnn summary`")
    parser.add_argument("--arch", metavar="ARCH", help="such as sm_90a (default: that of the current GPU)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at once (default: 1)")
    parser.add_argument("--train", action="store_true", help="the kernels of training too")
    parser.add_argument("--jobs", type=int, metavar="N", help="how many to compile at once (default: one a core)")
    parser.add_argument("--out", type=Path, metavar="BUNDLE", help="write a bundle")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from pycnn import backends, models
    from pycnn.jit import bundle, nvrtc
    from pycnn.jit.sources import ARCHS
    from pycnn.models.kernels import kernels_of
    from pycnn.nn import init
    from pycnn.shape import whole

    entry = models.info(args.net)
    whole("--batch", args.batch, 1)
    if args.jobs is not None:
        whole("--jobs", args.jobs, 1)
    if args.arch is not None and args.arch not in ARCHS:
        raise ValueError(f"--arch must be among {', '.join(ARCHS)}, got {args.arch!r}")
    if args.out is not None and not args.out.parent.is_dir():
        raise ValueError(f"--out: there is no folder {args.out.parent}")
    arch = args.arch or backends.get("cuda").host_on().device.arch
    with init.skip():
        net = models.create(args.net)
    kernels = kernels_of(net, entry.input_shape, batch=args.batch, train=args.train, arch=arch)
    start = time.perf_counter()
    with _Progress(start) as progress:
        paths = nvrtc.compile_all(kernels, arch, jobs=args.jobs, progress=progress)
    print(f"{len(paths)} kernels of {args.net} for {arch}, in {time.perf_counter() - start:.1f} s")
    if args.out is not None:
        bundle.write(
            args.out,
            {nvrtc.bundle_key(kernel, arch): (str(kernel), arch, path.read_bytes()) for kernel, path in paths.items()},
        )
        print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB")


class _Progress(ExitStack):
    """A bar that comes when it takes long."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self._start = start
        self._bar: Any = None

    def __call__(self, done: int, total: int, kernel: object) -> None:
        from pycnn.cli import _progress

        if self._bar is None and time.perf_counter() - self._start > _PATIENCE:
            self._bar = self.enter_context(_progress.bar("compiling"))
        if self._bar is not None:
            self._bar.update(done, total, str(kernel))
