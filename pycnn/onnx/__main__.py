"""``python -m pycnn.onnx conformance``: the suites that the package onnx ships, counted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pycnn.onnx.conformance import SUITES, markdown, tally


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites and print a table; 1 if a case fails, and then which."""
    parser = argparse.ArgumentParser(prog="python -m pycnn.onnx", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    conformance = commands.add_parser("conformance", help="run the suites and count")
    conformance.add_argument("--suite", action="append", choices=SUITES, help="only this one; may be repeated")
    conformance.add_argument("--device", default="CPU", help="CPU, CUDA or CUDA:1")
    args = parser.parse_args(argv)
    tallies = [tally(suite, args.device) for suite in args.suite or SUITES]
    print(markdown(tallies), end="")
    failed = [each for one in tallies for each in one.failed]
    for case, wrong in failed:
        print(f"{case.suite} {case.name}: {wrong}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
