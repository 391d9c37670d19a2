"""README.md's sections about others' suites, those of ONNX and PyTorch's OpInfo, written from a run of them.

python -m benchmarks.conformance README.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.section import put
from pycnn.onnx.conformance import SUITES, Tally, markdown, tally

__all__ = ["main", "rewrite"]

BEGIN, END = "<!-- onnx conformance: begin -->", "<!-- onnx conformance: end -->"


def rewrite(readme: Path, tallies: Sequence[Tally]) -> None:
    """Put the section into `readme`.  Raises ValueError if its marks are not there."""
    put(readme, BEGIN, END, markdown(tallies))


def rewrite_samples(readme: Path, text: str) -> None:
    """Put the counts of PyTorch's samples into `readme`.  Raises ValueError if their marks are not there."""
    put(readme, "<!-- opinfo: begin -->", "<!-- opinfo: end -->", text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites and write the sections; 1, and nothing written, if a case fails."""
    from tests import opinfo

    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=__doc__)
    parser.add_argument("readme", type=Path)
    readme = parser.parse_args(argv).readme
    tallies = [tally(suite) for suite in SUITES]
    failed = [f"{case.suite} {case.name}: {wrong}" for one in tallies for case, wrong in one.failed]
    if failed:
        print("\n".join(failed), file=sys.stderr)
        return 1
    total = opinfo.run_all(list(opinfo.OPERATORS))
    if total.failed:
        return 1
    rewrite(readme, tallies)
    rewrite_samples(readme, opinfo.markdown(total, len(opinfo.OPERATORS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
