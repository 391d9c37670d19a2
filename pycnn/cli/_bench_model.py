"""``pycnn bench FILE.onnx``: a model of a file beside the engines that read such files."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pycnn.bench.model_file import FileRow

__all__ = ["bench_model"]

_FILE = "model.json"
_SECONDS = 1.0


def bench_model(args: argparse.Namespace, console: Any) -> int:
    """Check and time the model that `args` names; 1 if a result of ours was wrong."""
    from pycnn._files import replacing
    from pycnn.bench import machine as machines
    from pycnn.bench.model_file import OURS, batch_of, bench_file
    from pycnn.bench.peers import find_peers

    path = Path(args.model)
    x = batch_of(path, args.batch[0] if args.batch else None)
    peers = find_peers(args.peers.split(",")) if args.peers else {}
    others = {name: factory for name, factory in peers.items() if not name.startswith("torch")}
    threads = machines.set_threads(args.threads)
    rows = bench_file(path, x, {**OURS, **others}, threads, args.seconds or _SECONDS)
    console.print(f"{path}, {'x'.join(map(str, x.shape))}, {threads} threads", markup=False, highlight=False)
    _print(console, rows)
    with replacing(args.out / _FILE) as temporary:
        values = {"model": str(path), "input": x.shape, "threads": threads, "rows": [asdict(row) for row in rows]}
        temporary.write_text(json.dumps(values, indent=1))
    console.print(f"values: {args.out / _FILE}", markup=False, highlight=False)
    return 1 if any(row.name in OURS and row.note == "is wrong" for row in rows) else 0


def _print(console: Any, rows: list[FileRow]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("contestant", "ms", "±", "error", "note"):
        table.add_column(name, justify="left" if name in ("contestant", "note") else "right", no_wrap=name != "note")
    timed = [row.timing.median for row in rows if row.timing is not None]
    for row in rows:
        best = row.timing is not None and row.timing.median == min(timed)
        table.add_row(
            f"[bold]{row.name}[/bold]" if best else row.name,
            "" if row.timing is None else f"{row.timing.median * 1e3:.2f}",
            "" if row.timing is None else f"{row.timing.spread:.0%}",
            "" if row.error != row.error else f"{row.error:.0e}",
            row.note,
        )
    console.print(table)
