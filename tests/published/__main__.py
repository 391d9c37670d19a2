"""Convolution problems that others publish: how many there are, and the CPU engine on them.

python -m tests.published counts
python -m tests.published check [--list NAME] [--axes N] [--each N] [--least-macs N] [--most-macs N]
python -m tests.published restate FOLDER
"""

from __future__ import annotations

import argparse
import sys
import time

from .check import PASSES
from .lists import published, sample
from .restate import restate
from .run import Report, look


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.published", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("counts", help="a table of the lists, in Markdown")
    check = commands.add_parser("check", help="every problem, three passes, exactly")
    check.add_argument("--list", help="only those of this list")
    check.add_argument("--axes", type=int, choices=(2, 3), help="only those of so many axes (one axis is 2-D, H = 1)")
    check.add_argument("--each", type=int, help="only a sample: at most so many of every property of every list")
    check.add_argument("--most-macs", type=int, default=2**62, help="only those of at most so many multiply-adds")
    check.add_argument("--least-macs", type=int, default=0, help="only those of at least so many")
    commands.add_parser("restate", help="read oneDNN's lists anew").add_argument("folder", help="a clone of oneDNN")
    arguments = parser.parse_args()
    if arguments.command == "restate":
        print(restate(arguments.folder))
        return 0
    return _counts() if arguments.command == "counts" else _check(arguments)


def _counts() -> int:
    problems, lines = published()
    print("| list | lines | distinct | 3-D |\n|---|--:|--:|--:|")
    for name, count in sorted(lines.items()):
        own = [problem for problem in problems if name in problem.lists]
        print(f"| {name} | {count} | {len(own)} | {sum(len(problem.axes) == 3 for problem in own)} |")
    three = sum(len(problem.axes) == 3 for problem in problems)
    print(f"| all | {sum(lines.values())} | {len(problems)} | {three} |")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    least, most = arguments.least_macs, arguments.most_macs
    problems = [one for one in published()[0] if least <= one.macs <= most]
    if arguments.axes:
        problems = [problem for problem in problems if len(problem.axes) == arguments.axes]
    if arguments.list:
        problems = [problem for problem in problems if arguments.list in problem.lists]
    if arguments.each:
        problems = sample(problems, arguments.each, most)
    problems.sort(key=lambda problem: problem.macs)
    report, start = Report(), time.monotonic()
    for done, problem in enumerate(problems, 1):
        known = len(report.wrong)
        look(problem, report)
        for line in report.wrong[known:]:
            print(f"WRONG {line}", flush=True)
        if done % 20 == 0 or done == len(problems):
            passed = time.monotonic() - start
            print(f"{done} of {len(problems)}, {passed:.0f} s, now {problem.text}", file=sys.stderr, flush=True)
    print(f"{len(problems) - len(report.left_out)} problems, {', '.join(PASSES)}: exact by")
    for algo, count in sorted(report.right.items()):
        print(f"  {algo}: {count}")
    for text, reason in report.left_out.items():
        print(f"left out: {text}: {reason}")
    print(f"{len(report.wrong)} wrong")
    return 1 if report.wrong else 0


sys.exit(main())
