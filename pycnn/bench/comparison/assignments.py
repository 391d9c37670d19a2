"""A cell as an assignment: what everybody is given, and the answer in float64 that they are judged by."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import pycnn
from pycnn import Tensor, backends, models, nn, no_grad
from pycnn.bench.comparison.cells import FIRST, INFERENCE, STEP, Cell
from pycnn.bench.comparison.results import LARGEST_ERROR
from pycnn.bench.peers.own import gradients, load, step, without_dropout
from pycnn.bench.tasks import COMPILED, INPUT, LABELS, SCALES, WEIGHTS, FirstCall, Inference, Task, TrainingStep, Work
from pycnn.bench.training import digest, sums
from pycnn.models.summary import summary
from pycnn.shape import Problem
from pycnn.testing import error_bound, float_operands, oracle

__all__ = ["Assignment", "assignment", "he_weights"]

# Of the digest of a step's gradients.  A value that is rounded to the other side of a rectifier's zero, or past its
# neighbour under a maximum, sends its gradient another way: in ResNet-50 and GoogLeNet everybody, torch too, is 0.04 to
# 0.08 off the float64 step.  A gradient that is wrong is off by 1.
_LARGEST_STEP_ERROR = 0.25


@dataclass(frozen=True)
class Assignment:
    """What everybody is given in a cell, and what it is judged by.

    Attributes:
        task: what there is to do.
        y64: the right answer.
        allowed: the largest max |y - y64| / max |y64| with which pycnn counts.
        peers_allowed: the same for everybody else.
        problem: the layer's, "" for a network.
        flops: operations, multiplies and adds, of the direct form.
        algo: what ``algo="auto"`` takes for a layer, "" for a network.
        timed: the task to be timed, where that is not the one that is judged.
    """

    task: Work
    y64: np.ndarray
    allowed: float
    peers_allowed: float
    problem: str
    flops: int
    algo: str = ""
    timed: Work | None = None


def assignment(cell: Cell, folder: Path) -> Assignment:
    """The assignment of a cell, its files in `folder`."""
    if cell.problem is not None:
        return _layer(cell.problem)
    return _training(cell, folder) if cell.section == STEP else _inference(cell, folder)


def _layer(problem: Problem) -> Assignment:
    operands = float_operands(problem, bias=False)
    y64 = oracle(problem, operands)
    scale = float(np.abs(y64).max(initial=0.0)) or 1.0
    return Assignment(
        Task("conv2d", problem.operator, problem.shape, (operands.left, operands.right)),
        y64,
        error_bound(problem, operands, y64, "auto") / scale,
        LARGEST_ERROR,
        str(problem.shape),
        problem.shape.flops,
        backends.get("cpu").conv2d_choose(problem.operator, problem.shape, np.dtype(np.float32))[0],
    )


def _inference(cell: Cell, folder: Path) -> Assignment:
    task = Inference(cell.name, str(folder))
    x = _write_network(cell, folder)
    model = load(task).eval()
    if cell.section != INFERENCE:
        pycnn.compile(model, x).save(folder / COMPILED)
    with no_grad():
        y64 = np.asarray(model.double()(Tensor(x.astype(np.float64))).data)
    if importlib.util.find_spec("torch") is not None:
        _export(task)
    given = FirstCall(cell.name, str(folder)) if cell.section == FIRST else task
    return Assignment(given, y64, LARGEST_ERROR, LARGEST_ERROR, "", _flops(cell))


def _training(cell: Cell, folder: Path) -> Assignment:
    task = TrainingStep(cell.name, str(folder), dropout=False)
    x = _write_network(cell, folder)
    labels = np.random.default_rng(2).integers(0, 10, cell.batch)
    np.save(folder / LABELS, labels)
    model = without_dropout(load(task).train().double())
    loss = float(step(model, Tensor(x.astype(np.float64)), labels).data)
    found = gradients(model)
    scales = np.array([loss, *(float(np.abs(each).max()) for each in sums(found))])
    np.save(folder / SCALES, scales)
    return Assignment(
        task,
        digest(loss, found, scales),
        _LARGEST_STEP_ERROR,
        _LARGEST_STEP_ERROR,
        "",
        3 * _flops(cell),
        timed=TrainingStep(cell.name, str(folder), dropout=True),
    )


def _flops(cell: Cell) -> int:
    with nn.init.skip():
        rows = summary(models.create(cell.name), models.info(cell.name).input_shape)
    return 2 * cell.batch * sum(row.macs for row in rows)


def _write_network(cell: Cell, folder: Path) -> np.ndarray:
    """Write the network's weights and input; the input."""
    with nn.init.skip():
        model = models.create(cell.name)
    with open(folder / WEIGHTS, "wb") as file:
        for value in he_weights(model).values():
            value.astype(np.float32, copy=False).tofile(file)
    x = np.random.default_rng(1).standard_normal((cell.batch, *models.info(cell.name).input_shape), np.float32)
    np.save(folder / INPUT, x)
    return x


def he_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """Seeded weights by key, with which signals neither fade nor grow (He et al. 2015), and statistics to be folded.

    >>> weights = he_weights(nn.Linear(200, 3))
    >>> bool(abs(weights["weight"].std() - 0.1) < 0.01), weights["bias"].shape
    (True, (3,))
    """
    rng, weights = np.random.default_rng(0), {}
    for key, value in model.state_dict().items():
        shape = tuple(value.shape)
        if key.endswith("num_batches_tracked"):
            weights[key] = np.array(1)
        elif len(shape) > 1:
            weights[key] = rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
        elif key.endswith(("running_var", "weight")):  # a batch norm's
            weights[key] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            weights[key] = rng.standard_normal(shape, np.float32) * np.float32(0.1)
    return weights


def _export(task: Inference) -> None:
    """Have torch write the network as ONNX, in a process of its own."""
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; from pycnn.bench.peers.pytorch import export; "
        f"from pycnn.bench.tasks import Inference; export({task!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"torch cannot export {task.network}: {done.stderr.strip().splitlines()[-1]}")
