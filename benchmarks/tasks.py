"""What there is to prove and to time on a GPU, most important first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from benchmarks.arithmetic import ARITHMETICS, FLOAT32, KINDS, Kind
from benchmarks.steps import STEPS
from pycnn.backends.cuda import LAUNCHERS, Host, conv, convert, optim, pool, tensor, tensor_product
from pycnn.backends.cuda.device_trace import TraceDevice
from pycnn.backends.cuda.host import HostBase
from pycnn.backends.cuda.plan import Plan
from pycnn.jit.sources import Instance, installed
from pycnn.shape import PASSES, Problem
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

__all__ = [
    "BANDWIDTH",
    "FIRST_BATCH",
    "SLICES",
    "Moved",
    "Place",
    "Task",
    "able",
    "kernels_in",
    "launched_by",
    "plan",
    "subject",
]

# The layers timed first: every filter size, stride and tile shape, from 3 channels to 512, the largest of each network.
FIRST_LAYERS = {
    "alexnet": ("conv1", "conv2", "conv3"),
    "vgg16": ("conv1-1", "conv1-2", "conv2-2", "conv3-2", "conv4-2", "conv5-1"),
    "googlenet": ("conv1", "conv2", "3a-1x1", "4b-3x3"),
    "resnet50": ("2-reduce", "2-3x3", "2-expand", "3-shortcut", "4-3x3", "4-expand", "5-3x3"),
}
FIRST_BATCH = 32
RIGHT, FAST, REST = 1, 2, 3  # what is proven; what is aimed at; what the sanitizer sees, other layouts and passes
BATCHES = {4: 32, 5: 1, 6: 128}  # of every layer and pass in float32, by slice
SLICES = (RIGHT, FAST, REST, *BATCHES)

# The arithmetics, layouts and passes in which the first layers are timed, with their slice, in order.
TIMED = (
    (FAST, tuple(Kind(each, "nhwc") for each in ("bf16", "3xtf32", "3xfp16")), ("fprop",)),
    (REST, (Kind("f16", "nhwc"), FLOAT32, Kind("tf32", "nhwc")), ("fprop",)),
    (REST, (Kind("bf16", "nhwc"), Kind("3xtf32", "nhwc")), ("dgrad", "wgrad")),
    (REST, tuple(map(Kind, ARITHMETICS)), ("fprop",)),
)

MOST_MACS = 20_000_000  # of a layer on which every plan on tensor cores is proven
ODD = ("tail", "one channel", "groups", "depthwise")  # problems whose channels are no whole chunks of 16 bytes

# Full tiles and tails, and more steps than a pipeline has stages, for the largest tile in every pass.
TILES = "n3c264h17_k264r1"

# Problems whose Winograd products fill the largest tile, with as few channels to sum over as the oracle likes.
PRODUCTS = {"fprop": "n2c4h64_k256r3_pd1", "dgrad": "n2c256h64_k4r3_pd1"}

ON_TENSOR_CORES = (tensor, tensor_product, convert)
_ANY_ARCH = "sm_90a"  # has all of their instances


@dataclass(frozen=True)
class Moved:
    """A call of an operator that bandwidth limits: the backend's function, its arrays' shapes, its settings, its dtype.

    Vectors have a value a channel, and stay float32.
    """

    function: str
    shapes: tuple[tuple[int, ...], ...]
    settings: tuple[Any, ...] = ()
    dtype: str = "float32"

    def arguments(self, draw: Callable[[tuple[int, ...]], np.ndarray]) -> tuple[Any, ...]:
        """All that the function is given, arrays as `draw` makes them of float32."""
        return in_dtype((*map(draw, self.shapes), *self.settings), np.dtype(self.dtype))


BANDWIDTH: dict[str, Moved] = {
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
    "unfold 3x3": Moved("unfold2d", ((16, 64, 56, 56),), ((3, 3), (1, 1), (1, 1), (1, 1), (56, 56), False)),
    "fold 3x3": Moved("fold2d", ((16, 576, 56, 56),), ((56, 56), (3, 3), (1, 1), (1, 1), (1, 1))),
    "unfold depth 3": Moved("unfold2d", ((16, 64, 8, 3136),), ((3, 1), (1, 1), (1, 0), (1, 1), (8, 3136), True)),
}
BANDWIDTH |= {
    f"{name}, {each}": replace(moved, dtype=str(each))
    for each in half_dtypes()[1:]
    for name, moved in BANDWIDTH.items()
}


class Place(Protocol):
    """Somewhere the kernels run: a GPU, or the simulator for a rehearsal."""

    backend: Any  # backend functions with NumPy arrays in and out
    arch: str  # what is compiled for

    def describe(self) -> dict[str, str]:
        """Device, driver and versions; "device" names it."""

    def prepare(self) -> None:
        """Compile every kernel, so that no task's time has that in it."""

    def probe(self) -> Probe:
        """Where the wrappers of kernels/arch are called one by one."""

    def peaks(self) -> dict[str, float]:
        """Measured copy bandwidth (GB/s), FMA rate (GFLOP/s), and rates of the library's matrix products (TFLOP/s)."""

    def seconds(self, problem: Problem) -> dict[str, Any]:
        """Timings of one layer: what `auto` takes, what else there is, and the peer in the precision in force."""

    def step(self, name: str) -> dict[str, Any]:
        """The time of one of `benchmarks.steps.STEPS`."""

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
    proofs = (*_fragments(), _peaks(), *_other_proofs(quick), *_proofs(quick))
    times = (*_first_times(quick), *_steps(quick))
    for task in (*proofs, *_sanitized(ON_TENSOR_CORES), *times, *_sanitized(LAUNCHERS), *_times(quick)):
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
    for short, dtype in {"": np.dtype(np.float32), **{f"/{each}": each for each in half_dtypes()}}.items():
        chosen = _chosen(quick, str(dtype))
        for operator, algo, kernels in _algorithms(str(dtype)):
            able = chosen[operator, algo]
            if quick:
                able = sorted(able, key=lambda problem: problem.shape.macs or 2**63)[:1]
            yield Task(f"correct/{operator}/{algo}{short}", kernels, RIGHT, 20, _correct(algo, able))
        yield Task(f"correct/pool2d{short}", pool.KERNELS, RIGHT, 20, _correct_pooling(quick, dtype))
        for launcher in LAUNCHERS:
            functions = launched_by(launcher)
            cases = [case for case in operators(dtype=dtype) if case.function in functions]
            if cases:
                work = _correct_operators(cases[:3] if quick else cases, dtype)
                kernels = _launched(cases, dtype) if short else launcher.KERNELS
                yield Task(f"correct/{subject(launcher)}{short}", kernels, RIGHT, 20, work)
    yield Task("correct/convert", convert.KERNELS, RIGHT, 20, lambda place: {"pairs": check_conversions(place.backend)})
    yield Task("correct/optim", optim.KERNELS, RIGHT, 20, lambda place: {"problems": check_optimisers(place.backend)})
    convolving = tuple({kernel for _, _, kernels in _algorithms() for kernel in kernels})
    for problem in every_pass(_repeat_problems(quick)):
        yield Task(f"repeat/{problem}", convolving, 1, 20, _repeat(problem))


def _other_proofs(quick: bool) -> Iterator[Task]:
    """Every plan beside float32's, a task for each pass, arithmetic and layout."""
    for kind in KINDS[1::5] if quick else KINDS:
        for operator in PASSES:
            work = _correct_in(kind, operator, quick)
            yield Task(f"correct/{operator}/{kind.name}", kernels_in(kind, operator), RIGHT, 20, work)
    dtypes = {str(each): each for each in (np.dtype(np.float32), *half_dtypes())}
    for kind in (FLOAT32, *(each for each in KINDS if each.layout == "nchw" and each.dtype in dtypes)):
        dtype = dtypes[kind.dtype]
        cases = operators("gemm", "linear_fwd", dtype=dtype)
        with kind.allowed():
            kernels = _launched(cases, dtype)
        work = _computed(kind, _correct_operators(cases, dtype))
        yield Task(f"correct/products/{kind.name}", kernels, RIGHT, 20, work)


def _sanitized(launchers: tuple[ModuleType, ...]) -> Iterator[Task]:
    for tool in ("memcheck", "racecheck"):
        yield Task(f"sanitizer/{tool}/planted", (), REST, 60, _sanitize(tool, "planted"))
        for launcher in launchers:
            part = subject(launcher)
            yield Task(f"sanitizer/{tool}/{part}", launcher.KERNELS, REST, 90, _sanitize(tool, part))


@cache
def kernels_in(kind: Kind, operator: str) -> tuple[str, ...]:
    """The kernels that a pass launches in this arithmetic for one problem or another of the lists."""
    asked = [kind.fitted(replace(problem, operator=operator)) for problem in problems()]
    plans = [plan for problem in asked for plan in kind.plans(problem, _ANY_ARCH)]
    return tuple(dict.fromkeys(instance.kernel for plan in plans for instance in plan.kernels))


def able(kind: Kind, operator: str, arch: str, quick: bool = False) -> Iterator[tuple[Problem, str]]:
    """Problems of the lists, and of the layers that are small, with each of the plans that are to run them.

    Channels-last arrays with whole chunks of channels are for the plans that read chunks; others for the others.
    """
    full = [*problems(), *layers(most_macs=MOST_MACS), Problem.parse(TILES)]
    listed = problems("plain")[:1] if quick else full
    asked = [(each, True) for each in listed]
    if kind.layout == "nhwc" and not quick:
        asked += [(each, False) for each in problems(*ODD)]
    for given, whole in asked:
        problem = replace(given, operator=operator)
        problem = kind.fitted(problem) if whole else kind.of(problem)
        plans = [plan for plan in kind.plans(problem, arch) if plan.reason is None]
        if kind.layout == "nhwc" and whole:
            plans = [plan for plan in plans if any(each.tile.get("vectors") for each in plan.kernels)]
        for plan in plans[: 1 if quick else None]:
            yield problem, plan.name
    if kind == Kind("3xtf32") and operator in PRODUCTS and not quick:
        problem = replace(Problem.parse(PRODUCTS[operator]), operator=operator)
        plans = [plan for plan in kind.plans(problem, arch) if plan.reason is None and plan.name.startswith("winograd")]
        yield from ((problem, plan.name) for plan in plans)


@cache
def _algorithms(dtype: str = "float32") -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Every pass and algorithm of convolution, and the kernels it launches for one problem or another of the lists."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for problem in every_pass(problems()):
        for each in _plans(replace(problem, dtype=dtype)):
            of_plan = found.setdefault((problem.operator, each.name), {})
            of_plan |= dict.fromkeys(instance.kernel for instance in each.kernels)
    return tuple((operator, name, tuple(kernels)) for (operator, name), kernels in found.items())


def _chosen(quick: bool, dtype: str) -> dict[tuple[str, str], list[Problem]]:
    """The problems that each algorithm of each pass can run, of the lists and, in float32, of the small layers."""
    asked = problems() if quick or dtype != "float32" else problems() + layers(most_macs=50_000_000)
    found: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for given in every_pass(asked):
        problem = replace(given, dtype=dtype)
        for each in _plans(problem):
            if each.reason is None:
                found[problem.operator, each.name].append(problem)
    return found


def _plans(problem: Problem) -> list[Plan]:
    """Every plan in the problem's dtype but those on tensor cores."""
    ending = Host(TraceDevice()).ending("a convolution", problem.dtype)
    return conv.plans(problem.operator, problem.shape, installed(), ending)


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


def _correct_in(kind: Kind, operator: str, quick: bool) -> Callable[[Place], dict[str, Any]]:
    def work(place: Place) -> dict[str, Any]:
        proven = Counter[str]()
        for problem, algo in able(kind, operator, place.arch, quick):
            check_conv2d(place.backend, problem, algo)
            proven[algo] += 1
        return {"problems": dict(proven)}

    return _computed(kind, work)


def _computed(kind: Kind, work: Callable[[Place], dict[str, Any]]) -> Callable[[Place], dict[str, Any]]:
    """`work` in a block that allows the arithmetic, where there is such."""

    def allowed(place: Place) -> dict[str, Any]:
        if kind != FLOAT32 and not tensor.has(kind.arithmetic, place.arch, installed()):
            return {"skipped": f"{place.arch} has no such tensor cores"}
        if kind.dtype not in ("float32", *map(str, half_dtypes())):
            return {"skipped": f"NumPy has no {kind.dtype}: ml_dtypes is not installed"}
        with kind.allowed():
            return work(place)

    return allowed


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
    """The kernels that the cases launch: of products, not the same in each dtype and precision."""
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


def _peaks() -> Task:
    return Task("machine/peaks", (), RIGHT, 20, lambda place: place.peaks())


def _first_times(quick: bool) -> Iterator[Task]:
    timed = [each for network, names in FIRST_LAYERS.items() for each in layers(network) if each.name in names]
    timed = layers()[:1] if quick else timed
    for number, kinds, passes in TIMED:
        for kind, operator in list(product(kinds, passes))[: 1 if quick else None]:
            for each in timed:
                yield _time(kind.of(replace(each, operator=operator)), number, FIRST_BATCH, kind, quick)


def _steps(quick: bool) -> Iterator[Task]:
    """A training step of ours, and of torch's."""
    for name, step in list(STEPS.items())[: 2 if quick else None]:
        kernels = () if step.peer else tuple({instance.kernel: None for instance in installed().instances})
        yield Task(f"step/{name}", kernels, FAST, step.seconds, _step(name))


def _times(quick: bool) -> Iterator[Task]:
    launchers = {function: launcher.KERNELS for launcher in LAUNCHERS for function in launched_by(launcher)}
    for name, moved in list(BANDWIDTH.items())[: 1 if quick else None]:
        if quick:
            moved = replace(moved, shapes=tuple((1, *shape[1:2], *(3 for _ in shape[2:])) for shape in moved.shapes))
        yield Task(f"bandwidth/{name}", launchers.get(moved.function, ()), 4, 10, _bandwidth(moved))
    for number, batch in BATCHES.items():
        for problem in every_pass(layers()[:1] if quick else layers()):
            yield _time(problem, number, batch, quick=quick)


def _time(problem: Problem, number: int, batch: int, kind: Kind = FLOAT32, quick: bool = False) -> Task:
    layer = replace(problem, shape=replace(problem.shape, N=1 if quick else batch))
    kernels = set(kernels_in(kind, layer.operator))
    if layer.dtype == "float32":  # whose own kernels may be taken in any precision
        kernels |= {kernel for operator, _, names in _algorithms() if operator == layer.operator for kernel in names}
    name = f"{layer}" if kind.precision == "float32" else f"{kind.precision}/{layer}"
    work = _computed(kind, lambda place: place.seconds(layer))
    return Task(f"time/{name}", tuple(sorted(kernels)), number, 8, work)


def _step(name: str) -> Callable[[Place], dict[str, Any]]:
    return lambda place: place.step(name)


def _bandwidth(moved: Moved) -> Callable[[Place], dict[str, Any]]:
    return lambda place: place.bandwidth(moved)
