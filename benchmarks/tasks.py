"""What there is to prove and to time on a GPU, most important first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from pycnn.backends.cuda import LAUNCHERS, Host, conv, convert, optim, pool
from pycnn.backends.cuda.device_trace import TraceDevice
from pycnn.backends.cuda.host import HostBase
from pycnn.jit.sources import Instance, installed
from pycnn.shape import Problem
from pycnn.testing import (
    ADAPTIVE_POOLS,
    Case,
    check_adaptive_pool2d,
    check_conv2d,
    check_conversions,
    check_operator,
    check_optimisers,
    check_pool2d,
    every_pass,
    float_operands,
    half_dtypes,
    layers,
    operators,
    pools,
    problems,
    random_pools,
    run,
)
from pycnn.testing.fragments import NUMBERS, Experiment, Probe, accumulation, experiments, first_arch
from pycnn.testing.halves import in_dtype

__all__ = ["BANDWIDTH", "FIRST_BATCH", "SLICES", "Moved", "Place", "Task", "launched_by", "plan", "subject"]

# The layers timed first: every filter size, stride and tile shape, from 3 channels to 512, the largest of each network.
FIRST_LAYERS = {
    "alexnet": ("conv1", "conv2", "conv3"),
    "vgg16": ("conv1-1", "conv1-2", "conv2-2", "conv3-2", "conv4-2", "conv5-1"),
    "googlenet": ("conv1", "conv2", "3a-1x1", "4b-3x3"),
    "resnet50": ("2-reduce", "2-3x3", "2-expand", "3-shortcut", "4-3x3", "4-expand", "5-3x3"),
}
FIRST_BATCH = 32
BATCHES = {2: 32, 3: 1, 4: 128}  # of every layer and pass, by slice
SLICES = (1, *BATCHES)


@dataclass(frozen=True)
class Moved:
    """A call of an operator that bandwidth limits: the backend's function, its arrays' shapes, its settings."""

    function: str
    shapes: tuple[tuple[int, ...], ...]
    settings: tuple[Any, ...] = ()


BANDWIDTH = {
    "relu": Moved("relu_fwd", ((32, 64, 112, 112),)),
    "relu backward": Moved("relu_bwd", ((32, 64, 112, 112),) * 2),
    "add": Moved("add", ((32, 256, 56, 56),) * 2),
    "max pool 3x3 stride 2": Moved(
        "max_pool2d_fwd", ((32, 64, 112, 112),), ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), False)
    ),
    "max pool 2x2": Moved("max_pool2d_fwd", ((32, 64, 224, 224),), ((2, 2), (2, 2), (0, 0, 0, 0), (1, 1), False)),
    "global average pool": Moved("adaptive_avg_pool2d_fwd", ((128, 2048, 7, 7),), ((1, 1),)),
    "batch norm": Moved("batch_norm_fwd", ((32, 256, 56, 56), (256,), (256,)), (1e-5,)),
    "batch norm backward": Moved("batch_norm_bwd", ((32, 256, 56, 56),) * 2 + ((256,),) * 3, (1e-5,)),
    "batch norm, inference": Moved("batch_norm_eval", ((32, 256, 56, 56), *((256,),) * 4), (1e-5,)),
    "local response norm": Moved("lrn_fwd", ((32, 96, 55, 55),), (5, 1e-4, 0.75, 2.0)),
    "softmax": Moved("softmax_fwd", ((4096, 1000),), (1,)),
    "channel sum": Moved("channel_sum", ((32, 256, 56, 56),)),
    "dropout": Moved("dropout", ((128, 4096),), (0.5, 0, 0)),
    "pad": Moved("pad2d", ((32, 64, 112, 112),), ((3, 3, 3, 3), 0.0)),
}


class Place(Protocol):
    """Somewhere the kernels run: a GPU, or the simulator for a rehearsal."""

    backend: Any  # backend functions with NumPy arrays in and out

    def describe(self) -> dict[str, str]:
        """Device, driver and versions; "device" names it."""

    def prepare(self) -> None:
        """Compile every kernel, so that no task's time has that in it."""

    def probe(self) -> Probe:
        """Where the wrappers of kernels/arch are called one by one."""

    def peaks(self) -> dict[str, float]:
        """Measured copy bandwidth (GB/s) and FMA rate (GFLOP/s)."""

    def seconds(self, problem: Problem) -> dict[str, Any]:
        """Timings of one layer: what `auto` takes, every family, and the peer."""

    def bandwidth(self, moved: Moved) -> dict[str, Any]:
        """Time of one operator, and the bytes a second it moves, arrays in and out counted once."""

    def sanitize(self, tool: str, part: str) -> dict[str, Any]:
        """The verdict of compute-sanitizer's `tool` on what one launcher launches, or on a "planted" bug."""


@dataclass(frozen=True)
class Task:
    """One piece of evidence.

    Attributes:
        name: what it is, unique; the key in the evidence file.
        kernels: which kernels it is about, by name.
        slice: when it is due.
        seconds: a generous guess of how long it takes.
        work: does it; returns what to write down, raises AssertionError if the kernel is wrong.
    """

    name: str
    kernels: tuple[str, ...]
    slice: int
    seconds: float
    work: Callable[[Place], dict[str, Any]]


def plan(quick: bool = False) -> list[Task]:
    """Every task, most important first; `quick` keeps to a few small ones, for the rehearsal."""
    found: dict[str, Task] = {}
    for task in (*_fragments(), *_proofs(quick), *_first_times(quick), *_times(quick)):
        found.setdefault(task.name, task)
    return sorted(found.values(), key=lambda task: task.slice)


def subject(launcher: ModuleType) -> str:
    """What a module of the host code is about: its name."""
    return launcher.__name__.rpartition(".")[2]


def launched_by(launcher: ModuleType) -> frozenset[str]:
    """The backend functions that a module of the host code provides."""
    hosts = [each for each in vars(launcher).values() if isinstance(each, type) and issubclass(each, HostBase)]
    own = [each for each in hosts if each.__module__ == launcher.__name__]
    return frozenset(name for each in own for name in vars(each) if not name.startswith("_"))


# ---------------------------------------------------------------------------------------------------------------------
# Right


def _fragments() -> Iterator[Task]:
    """Before all else: whether registers hold what the kernels take them to hold, and how sums are rounded."""
    kernels = tuple(dict.fromkeys(each.kernel for each in installed().instances if _uses_tensor_cores(each)))
    for experiment in experiments():
        yield Task(f"fragments/{experiment.what}", kernels, 1, 10, _probe(experiment))
    for number in NUMBERS:
        yield Task(f"accumulation/{number}", kernels, 1, 10, _accumulate(number))


def _uses_tensor_cores(instance: Instance) -> bool:
    return "arch/mma.cuh" in installed().closure(instance.source)


def _probe(experiment: Experiment) -> Callable[[Place], dict[str, Any]]:
    def work(place: Place) -> dict[str, Any]:
        probe = place.probe()
        if not probe.has(experiment.what):
            return {"skipped": f"from sm_{first_arch(experiment.what)} on"}
        return {"words": experiment.check(probe)}

    return work


def _accumulate(number: str) -> Callable[[Place], dict[str, Any]]:
    def work(place: Place) -> dict[str, Any]:
        probe = place.probe()
        if not probe.has(f"mma {number}"):
            return {"skipped": f"from sm_{first_arch(f'mma {number}')} on"}
        return accumulation(probe, number)

    return work


def _proofs(quick: bool) -> Iterator[Task]:
    chosen = _chosen(quick)
    for operator, algo, kernels in _algorithms():
        able = chosen[operator, algo]
        if quick:
            able = sorted(able, key=lambda problem: problem.shape.macs or 2**63)[:1]
        yield Task(f"correct/{operator}/{algo}", kernels, 1, 60, _correct(algo, able))
    for short, dtype in {"": np.dtype(np.float32), **{f"/{each}": each for each in half_dtypes()}}.items():
        yield Task(f"correct/pool2d{short}", pool.KERNELS, 1, 60, _correct_pooling(quick, dtype))
        for launcher in LAUNCHERS:
            functions = launched_by(launcher)
            cases = [case for case in operators(dtype=dtype) if case.function in functions]
            if cases:
                work = _correct_operators(cases[:3] if quick else cases, dtype)
                kernels = _launched(cases, dtype) if short else launcher.KERNELS
                yield Task(f"correct/{subject(launcher)}{short}", kernels, 1, 60, work)
    yield Task("correct/convert", convert.KERNELS, 1, 60, lambda place: {"pairs": check_conversions(place.backend)})
    yield Task("correct/optim", optim.KERNELS, 1, 60, lambda place: {"problems": check_optimisers(place.backend)})
    convolving = tuple({kernel for _, _, kernels in _algorithms() for kernel in kernels})
    for problem in every_pass(_repeat_problems(quick)):
        yield Task(f"repeat/{problem}", convolving, 1, 20, _repeat(problem))
    for tool in ("memcheck", "racecheck"):
        yield Task(f"sanitizer/{tool}/planted", (), 1, 60, _sanitize(tool, "planted"))
        for launcher in LAUNCHERS:
            part = subject(launcher)
            yield Task(f"sanitizer/{tool}/{part}", launcher.KERNELS, 1, 90, _sanitize(tool, part))


@cache
def _algorithms() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Every pass and algorithm of convolution, and the kernels it launches for one problem or another of the lists."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for problem in every_pass(problems()):
        for each in conv.plans(problem.operator, problem.shape, installed()):
            of_plan = found.setdefault((problem.operator, each.name), {})
            of_plan |= dict.fromkeys(instance.kernel for instance in each.kernels)
    return tuple((operator, name, tuple(kernels)) for (operator, name), kernels in found.items())


def _chosen(quick: bool) -> dict[tuple[str, str], list[Problem]]:
    """The problems that each algorithm of each pass can run, of the lists and of the layers that are small."""
    asked = problems() if quick else problems() + layers(most_macs=50_000_000)
    found: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in every_pass(asked):
        for each in conv.plans(problem.operator, problem.shape, installed()):
            if each.reason is None:
                found[problem.operator, each.name].append(problem)
    return found


def _repeat_problems(quick: bool) -> list[Problem]:
    text = "n2c9h9w10_k30r3_pd1" if quick else "n16c256h28_k256r3_pd1"
    return [Problem.parse(text), Problem.parse(text.replace("_pd1", "_pd2dl2"))]


def _correct(algo: str, able: list[Problem]) -> Callable[[Place], dict[str, Any]]:
    def work(place: Place) -> dict[str, Any]:
        assert able, f"no problem on the lists can be run by {algo}"
        for problem in able:
            check_conv2d(place.backend, problem, algo)
        return {"problems": len(able)}

    return work


def _correct_pooling(quick: bool, dtype: np.dtype[Any]) -> Callable[[Place], dict[str, Any]]:
    def work(place: Place) -> dict[str, Any]:
        shapes = pools("ceil mode") if quick else pools() + random_pools(40)
        for shape in shapes:
            check_pool2d(place.backend, shape, dtype)
        for x_shape, out in ADAPTIVE_POOLS:
            check_adaptive_pool2d(place.backend, x_shape, out, dtype)
        return {"problems": len(shapes) + len(ADAPTIVE_POOLS)}

    return work


def _correct_operators(cases: list[Case], dtype: np.dtype[Any]) -> Callable[[Place], dict[str, Any]]:
    def work(place: Place) -> dict[str, Any]:
        for case in cases:
            check_operator(place.backend, case, dtype)
        return {"problems": len(cases)}

    return work


def _launched(cases: list[Case], dtype: np.dtype[Any]) -> tuple[str, ...]:
    """The kernels that the cases launch in 16 bits: for products others than in float32."""
    device = TraceDevice()
    for case in cases:
        getattr(Host(device), case.function)(*in_dtype(case.arguments(), dtype))
    return tuple(dict.fromkeys(instance.kernel for instance in device.launches))


def _repeat(problem: Problem) -> Callable[[Place], dict[str, Any]]:
    def work(place: Place) -> dict[str, Any]:
        operands = float_operands(problem)
        first = run(place.backend, problem, operands, "auto").tobytes()
        times = 10
        for _ in range(times):
            assert run(place.backend, problem, operands, "auto").tobytes() == first, f"{problem}: two runs differ"
        return {"runs": times + 1}

    return work


def _sanitize(tool: str, part: str) -> Callable[[Place], dict[str, Any]]:
    return lambda place: place.sanitize(tool, part)


# ---------------------------------------------------------------------------------------------------------------------
# Fast


def _first_times(quick: bool) -> Iterator[Task]:
    yield Task("machine/peaks", (), 1, 20, lambda place: place.peaks())
    timed = [each for network, names in FIRST_LAYERS.items() for each in layers(network) if each.name in names]
    for problem in timed[:1] if quick else timed:
        yield _time(problem, 1, 1 if quick else FIRST_BATCH)


def _times(quick: bool) -> Iterator[Task]:
    launchers = {function: launcher.KERNELS for launcher in LAUNCHERS for function in launched_by(launcher)}
    for name, moved in list(BANDWIDTH.items())[: 1 if quick else None]:
        if quick:
            moved = replace(moved, shapes=tuple((1, *shape[1:2], *(3 for _ in shape[2:])) for shape in moved.shapes))
        yield Task(f"bandwidth/{name}", launchers.get(moved.function, ()), 2, 10, _bandwidth(moved))
    for number, batch in BATCHES.items():
        for problem in every_pass(layers()[:1] if quick else layers()):
            yield _time(problem, number, 1 if quick else batch)


def _time(problem: Problem, number: int, batch: int) -> Task:
    layer = replace(problem, shape=replace(problem.shape, N=batch))
    kernels = tuple({kernel for operator, _, names in _algorithms() if operator == layer.operator for kernel in names})
    return Task(f"time/{layer}", tuple(sorted(kernels)), number, 15, lambda place: place.seconds(layer))


def _bandwidth(moved: Moved) -> Callable[[Place], dict[str, Any]]:
    return lambda place: place.bandwidth(moved)
