"""A model in an ONNX file, raced: pycnn node by node and compiled, beside the engines that read the same file.

Everybody is checked against float64 first, is timed in a process of its own, and takes turns with the others.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import pycnn
from pycnn import Tensor, no_grad, use_backend
from pycnn.bench.peers import Factory
from pycnn.bench.processes import PeerProcess
from pycnn.bench.tasks import INPUT, MODEL, ONE_IMAGE, Call, Inference
from pycnn.bench.timing import Racer, Timing, race

__all__ = ["OURS", "FileRow", "batch_of", "bench_file"]

LARGEST_ERROR = 1e-3  # max |y - y64| / max |y64| from which on a contestant is not timed


class _ByNodes:
    """pycnn node by node, as `pycnn.onnx.prepare` runs a model."""

    def __init__(self, threads: int) -> None:
        pycnn.set_num_threads(threads)

    def contestants(self, task: Inference) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`."""
        model, x = _loaded(task), Tensor(np.load(Path(task.folder) / INPUT))

        def call() -> Any:
            with no_grad():
                return _first(model(x))

        return {"pycnn": call}


class _Compiled:
    """pycnn, the model compiled."""

    def __init__(self, threads: int) -> None:
        pycnn.set_num_threads(threads)

    def contestants(self, task: Inference) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`."""
        x = np.load(Path(task.folder) / INPUT)
        compiled = pycnn.compile(_loaded(task), x)
        return {"pycnn_compiled": lambda: _first(compiled(x))}


OURS: dict[str, Factory] = {"pycnn": _ByNodes, "pycnn_compiled": _Compiled}


@dataclass(frozen=True)
class FileRow:
    """One contestant.

    Attributes:
        timing: None where it is wrong, or cannot run the model.
        error: max |y - y64| / max |y64| of the first output; NaN where there is none.
        note: what is wrong, else "".
    """

    name: str
    timing: Timing | None
    error: float
    note: str = ""


def batch_of(path: Path, batch: int | None) -> np.ndarray:
    """The input on which a model is timed: normal numbers, in the shape that its file gives.

    Args:
        path: the file.
        batch: how many images at once; what the file says by default, 1 where it leaves that open.

    Raises:
        pycnn.onnx.ModelError: a file that is no model, or one with operators that pycnn does not have.
        ValueError: a model that does not take one array of float32, another batch than the file's, or other sizes that
            it leaves open.
    """
    from pycnn.onnx.graph import load

    inputs = load(path).required
    if len(inputs) != 1 or inputs[0].dtype != np.float32 or not inputs[0].shape:
        shown = ", ".join(f"{one.name} ({one.dtype} {one.shape})" for one in inputs)
        raise ValueError(f"{path}: what takes one array of float32 can be timed, this model takes {shown or 'nothing'}")
    first, *rest = inputs[0].shape
    if isinstance(first, int) and batch not in (None, first):
        raise ValueError(f"{path}: --batch {batch}, but the file is made for {first}")
    sizes = [size for size in rest if isinstance(size, int)]
    if len(sizes) < len(rest):
        raise ValueError(f"{path}: the file leaves sizes of {inputs[0].name} open: {inputs[0].shape}")
    count = first if isinstance(first, int) else batch or 1
    return np.random.default_rng(0).standard_normal((count, *sizes), np.float32)


def bench_file(
    path: Path, x: np.ndarray, contestants: Mapping[str, Factory], threads: int, seconds: float
) -> list[FileRow]:
    """Check and time a model.

    Args:
        path: the file.
        x: its input.
        contestants: by name, `OURS` or others.
        threads: of each.
        seconds: to spend on each.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name in (MODEL, *((ONE_IMAGE,) if len(x) == 1 else ())):
            shutil.copy(path, Path(folder) / name)
        np.save(Path(folder) / INPUT, x)
        task = Inference(path.name, folder)
        y64 = _exact(task, x)
        rows, racers = [], []
        for name, factory in contestants.items():
            try:
                process = stack.enter_context(
                    PeerProcess(name, factory, threads, getattr(factory, "environment", None))
                )
                ways = process.prepare(task)
                for way in ways:
                    error = _error(process.result(way), y64)
                    if not error <= LARGEST_ERROR:
                        rows.append(FileRow(way, None, error, "is wrong"))
                    else:
                        rows.append(FileRow(way, None, error))
                        racers.append(Racer(way, name, partial(process.slice, way)))
                if not ways:
                    rows.append(FileRow(name, None, np.nan, f"does not take {len(x)} images at once"))
            except ChildProcessError as error:
                rows.append(FileRow(name, None, np.nan, str(error)))
        times = race(racers, seconds)
        return [FileRow(row.name, times.get(row.name), row.error, row.note) for row in rows]


def _loaded(task: Inference) -> Any:
    from pycnn.onnx import load

    return load(Path(task.folder) / MODEL).eval()


def _first(result: Any) -> Any:
    result = next(iter(result.values())) if isinstance(result, dict) else result
    result = result[0] if isinstance(result, (tuple, list)) else result
    return result.data if isinstance(result, Tensor) else result


def _exact(task: Inference, x: np.ndarray) -> np.ndarray:
    """The model in float64; in the reference's float32, summed in float64, where it converts types itself."""
    model, run = _loaded(task), _run_once
    try:
        return run(model.double(), x.astype(np.float64))
    except ValueError:
        with use_backend("reference"):
            return run(_loaded(task), x)


def _run_once(model: Callable[[Tensor], Any], x: np.ndarray) -> np.ndarray:
    with no_grad():
        return np.asarray(_first(model(Tensor(x))), np.float64)


def _error(y: np.ndarray, y64: np.ndarray) -> float:
    if y.shape != y64.shape:
        return float("nan")
    return float(np.abs(y - y64).max(initial=0.0) / (np.abs(y64).max(initial=0.0) or 1.0))
