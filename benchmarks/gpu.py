"""Measuring and checking on a real GPU, for `benchmarks.evidence`.

Times are by CUDA events, median, with the L2 cache overwritten before each run; that also keeps the GPU busy while the
host prepares the launch, so the events see the kernel alone.  cuDNN is reached through torch with TF32 off and its
benchmark mode on, in the same process, on the same arrays.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import statistics
import subprocess
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import sanitized
from benchmarks.tasks import Moved
from pycnn.backends.cuda import Host, conv
from pycnn.backends.cuda.device import Array
from pycnn.backends.cuda.device_cupy import CupyDevice, current_device
from pycnn.jit import compile_all, nvrtc
from pycnn.jit.sources import Instance
from pycnn.shape import Problem
from pycnn.testing import error_factor, float_operands, terms
from pycnn.testing.fragments import Probe, ProbeSources

RUNS = 30
COPIED = 2**28  # floats

_FMA_CHAINS, _FMA_STEPS = 8, 4096
_FMA_KERNEL = f"""
extern "C" __global__ void fma_peak(float* y, float a, float b) {{
    float v[{_FMA_CHAINS}];
    for (int i = 0; i < {_FMA_CHAINS}; ++i) v[i] = threadIdx.x + i;
    #pragma unroll 16
    for (int step = 0; step < {_FMA_STEPS}; ++step)
        #pragma unroll
        for (int i = 0; i < {_FMA_CHAINS}; ++i) v[i] = fmaf(v[i], a, b);
    float sum = 0;
    for (int i = 0; i < {_FMA_CHAINS}; ++i) sum += v[i];
    if (sum == -1.0f) y[threadIdx.x] = sum;
}}
"""


class NanDevice(CupyDevice):
    """A GPU whose fresh arrays are full of NaN, or the lowest integer, so that an output that nobody wrote shows."""

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        array = super().alloc(shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min)
        return array


class OnNumpy:
    """The backend functions of `host` with NumPy arrays in and out.  Strides are kept: CuPy copies them as they are."""

    def __init__(self, host: Host, cupy: ModuleType) -> None:
        self.host = host
        self.__name__ = "pycnn.backends.cuda"
        self._cupy = cupy

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self.host, name)

        def call(*arguments: Any, **options: Any) -> Any:
            given = {name: self.into(value) for name, value in options.items()}
            return self._out(function(*map(self.into, arguments), **given))

        return call

    def _out(self, result: Any) -> Any:
        if isinstance(result, self._cupy.ndarray):
            return self._cupy.asnumpy(result)
        return tuple(map(self._out, result)) if isinstance(result, tuple) else result

    def into(self, value: Any) -> Any:
        """`value`, an array or several, on the GPU; anything else as it is."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.into(one) for one in value)  # a shape stays a tuple
        if not isinstance(value, np.ndarray):
            return value
        if value.flags.c_contiguous:
            return self._cupy.asarray(value)
        room = self._cupy.full((*value.shape[:-1], 2 * value.shape[-1]), np.nan, value.dtype)
        view = room[..., ::2]  # some awkward strides of its own
        view[...] = self._cupy.asarray(np.ascontiguousarray(value))
        return view


class Gpu:
    """CuPy's current GPU as a place for `benchmarks.evidence`.  Raises MissingToolError if there is none."""

    def __init__(self) -> None:
        number = current_device()
        import cupy

        self.cupy = cupy
        self._number = number
        self.device = CupyDevice(number)
        self.host = Host(self.device)
        self.backend = OnNumpy(Host(NanDevice(number)), cupy)
        self._properties = cupy.cuda.runtime.getDeviceProperties(number)
        self._flush = cupy.empty(max(2 * self._properties["l2CacheSize"], 2**28), np.uint8)

    def describe(self) -> dict[str, str]:
        """Device, driver and versions."""
        runtime = self.cupy.cuda.runtime
        torch = _torch()
        return {
            "device": self._properties["name"].decode(),
            "arch": self.device.arch,
            "multiprocessors": str(self._properties["multiProcessorCount"]),
            "driver": _driver_version(),
            "driver_cuda": str(runtime.driverGetVersion()),
            "nvrtc": ".".join(map(str, nvrtc.version())),
            "cupy": self.cupy.__version__,
            "torch": torch.__version__ if torch else "not installed",
            "cudnn": str(torch.backends.cudnn.version()) if torch else "not installed",
            "pycnn": importlib.metadata.version("pycnn") if _is_installed("pycnn") else "in place",
        }

    def probe(self) -> Probe:
        """The wrappers by the instructions that they stand for."""
        sources = ProbeSources(self.host.sources)
        return Probe(CupyDevice(self._number, sources), sources, self.cupy.asarray, self.cupy.asnumpy)

    def peaks(self) -> dict[str, float]:
        """Copy bandwidth over 1 GiB, both directions counted, and the rate of a kernel that does nothing but FMA."""
        source = self.cupy.zeros(COPIED, np.float32)
        target = self.cupy.empty_like(source)
        copy = self._median(lambda: self.cupy.copyto(target, source))
        kernel = self.cupy.RawKernel(_FMA_KERNEL, "fma_peak")
        blocks, threads = 32 * self._properties["multiProcessorCount"], 256
        arguments = (target, np.float32(0.5), np.float32(0.25))
        fma = self._median(lambda: kernel((blocks,), (threads,), arguments))
        flops = 2.0 * blocks * threads * _FMA_CHAINS * _FMA_STEPS
        return {"copy_gbytes": 2 * source.nbytes / copy / 1e9, "fma_gflops": flops / fma / 1e9}

    def prepare(self) -> None:
        """Compile every kernel, several at a time."""
        compile_all(self._instances(), self.device.arch)

    def _instances(self) -> list[Instance]:
        return [instance for instance in self.host.sources.instances if self.device.arch in instance.archs]

    def seconds(self, problem: Problem) -> dict[str, Any]:
        """One layer and pass, checked at its full size, then timed: by `auto`, by each family, and by cuDNN."""
        operands = float_operands(problem)
        left, right = self.cupy.asarray(operands.left), self.cupy.asarray(operands.right)
        b = self.cupy.asarray(operands.b) if problem.operator == "fprop" else None
        calls = {algo: self._call(problem, left, right, b, algo) for algo in ("auto", *self._families(problem))}
        algo, why = self.host.conv2d_choose(problem.operator, problem.shape, problem.dtype)
        peer = _cudnn(problem, left, right, b)
        checked = self._check_large(problem, algo, left, right, b, calls["auto"]()) if peer else {}
        times = {name: self._median(call) for name, call in calls.items()}
        ours = times.pop("auto")
        result = {
            "algo": algo,
            "why": why,
            "ours_us": 1e6 * ours,
            "gflops": problem.shape.flops / ours / 1e9,
            "families_us": {name: 1e6 * each for name, each in times.items()},
            "cudnn_us": None,
            **checked,
        }
        if peer:
            peer()  # chooses its algorithm
            result["cudnn_us"] = 1e6 * self._median(peer)
            result["speed_up"] = result["cudnn_us"] / result["ours_us"]
        return result

    def _families(self, problem: Problem) -> list[str]:
        plans = conv.plans(problem.operator, problem.shape, self.host.sources)
        return list(dict.fromkeys(plan.name.partition("_")[0] for plan in plans if plan.reason is None))

    def _call(self, problem: Problem, left: Array, right: Array, b: Array | None, algo: str) -> Callable[[], Array]:
        s = problem.shape
        how = (s.stride, s.padding, s.dilation, s.groups)
        if problem.operator == "fprop":
            return lambda: self.host.conv2d_fprop(left, right, b, *how, algo=algo)
        if problem.operator == "dgrad":
            return lambda: self.host.conv2d_dgrad(left, right, s.x_shape, *how, algo=algo)
        return lambda: self.host.conv2d_wgrad(left, right, s.w_shape, *how, algo=algo)

    def bandwidth(self, moved: Moved) -> dict[str, Any]:
        """One operator, timed; the bytes are those of its arrays and results."""
        rng = np.random.default_rng(0)
        arrays = [self.cupy.asarray(rng.random(shape, dtype=np.float32)) for shape in moved.shapes]

        def call() -> Any:
            return getattr(self.host, moved.function)(*arrays, *moved.settings)

        result = call()
        results = result if isinstance(result, tuple) else (result,)
        seconds = self._median(call)
        total = sum(array.nbytes for array in (*arrays, *results))
        return {"us": 1e6 * seconds, "gbytes": total / seconds / 1e9}

    def _check_large(
        self, problem: Problem, algo: str, left: Array, right: Array, b: Array | None, found: Array
    ) -> dict[str, float]:
        """The error against float64 on the GPU by torch (an oracle of its own), within the bound of pycnn.testing."""
        torch = _torch()
        doubles = [None if each is None else torch.from_dlpack(each).double() for each in (left, right, b)]
        exact = _by_torch(problem, *doubles)()
        largest = _by_torch(problem, doubles[0].abs(), doubles[1].abs(), None)().max().item()
        unit = 2.0**-24
        bound = error_factor(algo) * terms(problem) ** 0.5 * unit * largest + unit * exact.abs().max().item()
        error = (torch.from_dlpack(found).double() - exact).abs().max().item()
        assert error <= bound, f"{problem} by {algo}: error {error:.3g} exceeds the bound {bound:.3g}"
        return {"error": error, "bound": bound}

    def sanitize(self, tool: str, part: str) -> dict[str, Any]:
        """compute-sanitizer over what one launcher launches, in a process of its own, or over a planted bug."""
        return sanitized.under(tool, part)

    def _median(self, call: Callable[[], Any]) -> float:
        """Median seconds of `call` on the GPU, caches cold."""
        cuda = self.cupy.cuda
        call()
        pairs = []
        for _ in range(RUNS):
            self._flush.fill(0)
            begin, end = cuda.Event(), cuda.Event()
            begin.record()
            call()
            end.record()
            pairs.append((begin, end))
        cuda.get_current_stream().synchronize()
        return statistics.median(cuda.get_elapsed_time(begin, end) for begin, end in pairs) / 1e3


def _cudnn(problem: Problem, left: Array, right: Array, b: Array | None) -> Callable[[], Any] | None:
    """The pass by torch's cuDNN on the same arrays, or None where torch has no GPU."""
    torch = _torch()
    if torch is None:
        return None
    return _by_torch(problem, *[None if each is None else torch.from_dlpack(each) for each in (left, right, b)])


def _by_torch(problem: Problem, left: Any, right: Any, b: Any) -> Callable[[], Any]:
    """A pass by torch.  The problem's padding must be symmetric."""
    torch = _torch()
    s = problem.shape
    top, bottom, before, after = s.padding
    assert (top, before) == (bottom, after), f"{problem}: torch pads both sides alike"
    how = (s.stride, (top, before), s.dilation)
    if problem.operator == "fprop":
        return lambda: torch.nn.functional.conv2d(left, right, b, *how, s.groups)
    # Of the operand whose gradient is asked for torch looks at the shape, but makes it dense first: so it is.
    x, w = (left.new_empty(s.x_shape), right) if problem.operator == "dgrad" else (right, left.new_empty(s.w_shape))
    wanted = [problem.operator == "dgrad", problem.operator == "wgrad", False]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(left, x, w, None, *how, False, (0, 0), s.groups, wanted)[wanted.index(True)]


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _driver_version() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[0].strip() or "unknown"
