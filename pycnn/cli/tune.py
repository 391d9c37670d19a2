"""``pycnn tune``: this machine measured, so that `auto` takes what is fastest here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pycnn.calibration.regret import Regret
    from pycnn.calibration.subjects import Subject
    from pycnn.calibration.tune import Calibration
    from pycnn.shape import Conv2dShape
    from pycnn.tuning import Identity, Table

__all__ = ["add_parser", "run"]

_SECONDS, _QUICK = 60.0, 12.0
_WORST = 8  # lines


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "tune",
        help="measure this machine, so that algo='auto' takes what is fastest here",
        description="Without NET and --problem: fits the coefficients of the cost model on a fixed list of problems, "
        "then prints, for other problems, how much slower than the best measured algorithm what auto takes is. With "
        "them: measures every algorithm of those very problems, and auto takes the fastest from then on. Either way "
        "the table is kept in the cache folder, for this processor, instruction set and build; PYCNN_TUNING=off or "
        "another table's file is obeyed instead of it. Leave the machine alone meanwhile.",
        epilog="example: pycnn tune resnet50 --batch 8 --passes fprop",
    )
    parser.add_argument("net", metavar="NET", nargs="*", help="networks whose convolutions are measured")
    parser.add_argument(
        "--problem",
        action="append",
        default=[],
        metavar="STRING",
        help="a problem to measure, such as n1c64h56_k64r3_pd1, perhaps with a pass; may be repeated",
    )
    parser.add_argument("--passes", default="fprop,dgrad,wgrad", help="of fprop, dgrad, wgrad (default: all)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at once in a NET (default: 1)")
    parser.add_argument("--backend", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="of the CPU engine")
    parser.add_argument(
        "--seconds", type=float, default=None, metavar="S", help=f"for the calibration (default: {_SECONDS:.0f})"
    )
    parser.add_argument("--quick", action="store_true", help=f"calibrate in {_QUICK:.0f} s")
    parser.add_argument("--seed", type=int, default=0, help="of the problems that auto is checked on")
    parser.add_argument(
        "--out", type=Path, default=None, metavar="FILE", help="write the table there, not in the cache"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--show", action="store_true", help="say which table is in force, and measure nothing")
    what.add_argument("--forget", action="store_true", help="remove this machine's table, and measure nothing")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    wanted = _wanted(args)
    if args.threads is not None:
        from pycnn import set_num_threads

        set_num_threads(args.threads)
    from pycnn.calibration.subjects import Cpu, Cuda

    subject = Cuda() if args.backend == "cuda" else Cpu()
    if args.show or args.forget:
        _show(subject.identity) if args.show else _forget(subject.identity)
        return
    print(_where(subject.identity, subject.threads))
    out = args.out or _place(subject.identity)
    if not out.absolute().parent.is_dir():  # now, and not after a minute of measuring
        raise FileNotFoundError(f"there is no folder {out.absolute().parent} for --out")
    table = _of_problems(subject, wanted) if wanted else _calibrated(subject, args)
    _keep(table, out, args.out is None)


def _wanted(args: argparse.Namespace) -> list[tuple[str, Conv2dShape]]:
    """The passes of the problems that were named, none for a calibration; ValueError for what cannot be meant."""
    from pycnn.shape import PASSES, Problem

    passes = args.passes.split(",")
    for name in passes:
        if name not in PASSES:
            raise ValueError(f"--passes must be among {', '.join(PASSES)}, got {name!r}")
    if args.batch < 1:
        raise ValueError(f"--batch must be at least 1, got {args.batch}")
    if args.seconds is not None and not 0 < args.seconds < float("inf"):
        raise ValueError(f"--seconds must be above 0, got {args.seconds}")
    wanted = []
    for text in args.problem:
        problem = Problem.parse(text)
        if (problem.dtype, problem.layout) != ("float32", "nchw"):
            raise ValueError(f"--problem: float32 in NCHW is measured, got {problem.dtype} in {problem.layout}")
        named = any(word in text.split("_") for word in PASSES)
        wanted += [(name, problem.shape) for name in ((problem.operator,) if named else passes)]
    for net in args.net:
        from pycnn.bench.workloads import conv_shapes

        wanted += [(name, shape) for shape in conv_shapes(net, args.batch) for name in passes]
    empty = next((shape for _, shape in wanted if not shape.macs), None)
    if empty is not None:
        raise ValueError(f"--problem: there is nothing to measure in {empty}")
    return list(dict.fromkeys(wanted))


def _where(identity: Identity, threads: int) -> str:
    cores = "CPUs" if identity.backend == "cpu" else "multiprocessors"
    working = f", {threads} threads" if identity.backend == "cpu" else ""
    return f"{identity.device}, {identity.cores} {cores}, {identity.kind}{working}"


def _show(identity: Identity) -> None:
    from pycnn import tuning

    table = tuning.in_force(identity)
    measured_on = f", measured on {_where(table.identity, table.threads)}" if table.identity.device else ""
    print(f"table {table.name} from {table.source}{measured_on}")
    print(f"{len(table.measured)} single problems were measured")
    for name, figures in table.report.get("regret", {}).items():
        print(f"  {name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
    print(f"`pycnn tune` keeps this machine's in {tuning.path_of(identity)}")


def _forget(identity: Identity) -> None:
    from pycnn import tuning

    path = tuning.path_of(identity)
    there = path.is_file()
    path.unlink(missing_ok=True)
    tuning.forget()
    print(f"removed {path}" if there else f"there is no {path}")


def _place(identity: Identity) -> Path:
    from pycnn.tuning import path_of

    path = path_of(identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _keep(table: Table, out: Path, in_cache: bool) -> None:
    import os

    from pycnn import tuning

    tuning.save(table, out)
    tuning.forget()
    named = os.environ.get("PYCNN_TUNING")
    if not in_cache:
        print(f"written to {out}; PYCNN_TUNING={out} has auto use it")
    elif named:
        print(f"kept in {out}; auto obeys PYCNN_TUNING={named} instead")
    else:
        print(f"kept in {out}; auto uses it from now on")


def _of_problems(subject: Subject, wanted: list[tuple[str, Conv2dShape]]) -> Table:
    """This machine's table, or the package's, with those problems measured."""
    from dataclasses import replace

    from pycnn import tuning
    from pycnn.calibration.subjects import choice
    from pycnn.calibration.tune import measure
    from pycnn.cli._progress import bar

    base = tuning.kept(subject.identity) or tuning.own(subject.identity)
    with bar("measuring") as drawn:
        measured = measure(subject, wanted, lambda share, word: drawn.update(share, 1.0, word))
    for (operator, shape), times in zip(wanted, measured.values(), strict=True):
        taken = choice(subject, base, operator, shape)
        ranked = sorted(times, key=times.__getitem__)
        rest = ", ".join(f"{name} {tuning.duration(times[name])}" for name in ranked[1:4])
        was = "" if taken == ranked[0] else f"; auto took {taken}"
        print(f"  {operator} {shape}: {ranked[0]} {tuning.duration(times[ranked[0]])} ({rest}){was}")
    return replace(base, identity=subject.identity, measured={**base.measured, **measured})


def _calibrated(subject: Subject, args: argparse.Namespace) -> Table:
    from pycnn.calibration.tune import calibrate
    from pycnn.cli._progress import bar

    seconds = args.seconds or (_QUICK if args.quick else _SECONDS)
    with bar("tuning") as drawn:
        found = calibrate(subject, seconds, args.seed, lambda share, word: drawn.update(share, 1.0, word))
    _print(found, subject)
    return found.table


def _print(found: Calibration, subject: Subject) -> None:
    from pycnn.calibration.regret import NEAR

    print(f"calibrated on {found.problems} problems; on others, the time of what auto takes by that of the best:")
    print(f"  {'':8}{'problems':>9}{'median':>9}{'90 of 100':>11}{f'within {NEAR}x':>14}{'worst':>8}{'all times':>11}")
    for name, one in found.regret.items():
        print(
            f"  {name:8}{len(one.picks):9}{one.median:9.2f}{one.high:11.2f}{one.share:14.1%}"
            f"{one.picks[0].ratio:8.2f}{one.total:11.3f}"
        )
    before = found.before.get("all")
    if before is not None:
        print(f"  by the table before: {before.share:.1%} within {NEAR}x, all times {before.total:.3f}")
    _print_worst(found.regret)
    if subject.waits or found.uncertain:
        print(f"the machine was busy with something else: waited {subject.waits} times")
        print(f"{found.uncertain} passes are left out, since no two of their times agreed")


def _print_worst(regrets: Mapping[str, Regret]) -> None:
    from pycnn.calibration.regret import NEAR
    from pycnn.tuning import duration

    picks = regrets["all"].picks if "all" in regrets else ()
    worst = [pick for pick in picks[:_WORST] if pick.ratio > NEAR]
    if worst:
        print("worst:")
    for pick in worst:
        times = pick.sample.seconds
        print(
            f"  {pick.ratio:5.2f}  {pick.sample.operator} {pick.sample.shape}: {pick.taken} "
            f"{duration(times[pick.taken])}, {pick.best} {duration(times[pick.best])}"
        )
