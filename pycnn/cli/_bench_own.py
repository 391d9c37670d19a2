"""``pycnn bench`` with kernels of the user's own: load what registers them, verify them before they race."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any


def prepare(args: argparse.Namespace) -> None:
    """Run the files of ``--kernel``; `args.own` becomes the registered kernels that are to race.

    What was not said follows from them: `algo` is what the files registered, `backend` where the first of them runs,
    `passes` those that they have.
    """
    from pycnn.custom import registry
    from pycnn.shape import PASSES
    from pycnn.testing.verify import home_of

    before = registry.names()
    for source in args.kernel:
        _load(source)
    new = [name for name in registry.names() if name not in before]
    if args.kernel and not new and args.algo is None:
        raise ValueError(f"--kernel {args.kernel[-1]} registers no kernel: it has to call pycnn.register_conv2d")
    args.algo = args.algo or ",".join(new) or None
    asked = args.algo.split(",") if args.algo else []
    kernels = [kernel for name in asked if (kernel := registry.find(name))]
    args.own = [kernel.name for kernel in kernels]
    if not kernels:
        if args.most_macs is not None:
            raise ValueError("--most-macs is about verifying a kernel of yours: it needs --kernel, or one in --algo")
        args.backend = args.backend or "cpu"
        return
    args.backend = args.backend or home_of(kernels[0])
    args.passes = args.passes or ",".join(one for one in PASSES if any(one in kernel.passes for kernel in kernels))


def verified(args: argparse.Namespace, console: Any) -> bool:
    """Verify `args.own` and say how each fared; whether all of them are right."""
    from pycnn.cli._progress import bar
    from pycnn.testing import verify_conv2d

    right = True
    for name in args.own:
        try:
            with bar(f"verify {name}") as drawn:
                found = verify_conv2d(
                    name,
                    args.backend,
                    most_macs=args.most_macs,
                    progress=lambda done, total, problem: drawn.update(done, total, str(problem)),
                )
        except AssertionError as error:
            right = False
            console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        else:
            console.print(str(found), markup=False, highlight=False, soft_wrap=True)
    return right


def _load(source: str) -> None:
    """Import a module by its name, or a file: anything that ends in .py or has a path's separator."""
    path = Path(source)
    if path.suffix != ".py" and len(path.parts) == 1:
        importlib.import_module(source)
        return
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", source)
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE` has it, for what lies beside
    spec = importlib.util.spec_from_file_location(f"pycnn_kernel_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--kernel must be a Python file or a module, got {source}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
