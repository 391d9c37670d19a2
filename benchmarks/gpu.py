"""Measuring and checking on a real GPU, for `benchmarks.evidence`.

Times are by CUDA events, median, with the L2 cache overwritten before each run; that also keeps the GPU busy while the
host prepares the launch, so the events see the kernel alone.  cuDNN is reached through torch with its benchmark mode
on, in the same process, on the same arrays, with TF32 off but in the calls that are to be beside TF32.
"""

from __future__ import annotations

import gc
import importlib.metadata
import math
import shutil
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import sanitized, steps
from benchmarks.steps import STEPS, Size
from benchmarks.tasks import Moved
from pycnn import backends, winograd
from pycnn.algorithms import precision
from pycnn.backends.cuda import Host, tensor
from pycnn.backends.cuda.convert import convert
from pycnn.backends.cuda.device import Array
from pycnn.backends.cuda.device_cupy import CupyDevice, current_device
from pycnn.jit import compile_all, nvrtc
from pycnn.jit.sources import Instance
from pycnn.shape import DTYPES, Problem
from pycnn.testing import allowed_error
from pycnn.testing.fragments import Probe, ProbeSources

RUNS, RIVAL_RUNS = 30, 10
COPIED = 2**28  # floats
PRODUCT = 8192  # rows and columns of the library's products
STEP = Size()

_NAN_16 = 0x7FFF  # in float16 and in bfloat16
_FILLS = 4  # of `Gpu._flush` before a timed call
BUSY, _BUSY_FILLS = 2**32, 300  # bytes, and how often they are filled: some 400 ms, in fewer launches than may wait

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
        if tensor.arithmetic_of(array.dtype, "float32"):
            array.view(np.uint16).fill(_NAN_16)
        else:
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
            if not result.flags.c_contiguous and result.ndim == 4 and tensor.is_channels_last(result):
                return self._cupy.asnumpy(result.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
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
        if value.ndim == 4 and tensor.is_channels_last(value):
            return self._cupy.asarray(value.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        if value.itemsize == 2:  # CuPy copies them as words, whatever it knows of bfloat16
            return self._with_gaps(value.view(np.uint16), _NAN_16).view(value.dtype)
        return self._with_gaps(value, np.nan)

    def _with_gaps(self, value: np.ndarray, between: float) -> Any:
        """Some awkward strides of its own."""
        room = self._cupy.full((*value.shape[:-1], 2 * value.shape[-1]), between, value.dtype)
        view = room[..., ::2]
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
        self.arch = self.device.arch
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

    def peaks(self) -> dict[str, Any]:
        """Copy bandwidth over 1 GiB, both directions counted; what a kernel does that has nothing but FMA; products."""
        source = self.cupy.zeros(COPIED, np.float32)
        target = self.cupy.empty_like(source)
        copy = self._median(lambda: self.cupy.copyto(target, source))
        kernel = self.cupy.RawKernel(_FMA_KERNEL, "fma_peak")
        blocks, threads = 32 * self._properties["multiProcessorCount"], 256
        arguments = (target, np.float32(0.5), np.float32(0.25))
        fma = self._median(lambda: kernel((blocks,), (threads,), arguments))
        flops = 2.0 * blocks * threads * _FMA_CHAINS * _FMA_STEPS
        found = {"copy_gbytes": 2 * source.nbytes / copy / 1e9, "fma_gflops": flops / fma / 1e9}
        return {**found, "gemm_tflops": self.products}

    @cached_property
    def products(self) -> dict[str, float]:
        """TFLOP/s of the library's product of two square matrices of normal numbers, by arithmetic."""
        torch = _torch()
        if torch is None:
            return {}
        found = {}
        for arithmetic in ("bf16", "f16", "tf32", "f32"):
            dtype = getattr(torch, DTYPES.get(arithmetic, "float32"))
            a, b = (torch.randn(PRODUCT, PRODUCT, device="cuda").to(dtype) for _ in range(2))
            with _tf32(torch, arithmetic == "tf32"):
                seconds = self._median(lambda a=a, b=b: torch.matmul(a, b), RIVAL_RUNS)
            found[arithmetic] = 2.0 * PRODUCT**3 / seconds / 1e12
        return found

    def prepare(self) -> None:
        """Compile every kernel, several at a time."""
        compile_all(self._instances(), self.device.arch)

    def _instances(self) -> list[Instance]:
        return [instance for instance in self.host.sources.instances if self.device.arch in instance.archs]

    def seconds(self, problem: Problem) -> dict[str, Any]:
        """One layer and pass, checked at its full size, then timed: by `auto`, by its rivals, and by cuDNN.

        The rivals are families where none is on tensor cores, else the plans that are.
        """
        left, right, b = self._operands(problem)
        algo, why, rivals = self._choices(problem, left, right)
        calls = {name: self._call(problem, left, right, b, name) for name in ("auto", *rivals)}
        peer = _cudnn(problem, left, right, b)
        checked = self._check_large(problem, algo, left, right, b, calls["auto"]()) if peer else {}
        ours = self._median(calls.pop("auto"))
        gflops = problem.shape.flops / ours / 1e9
        result = {
            "algo": algo,
            "why": why,
            "ours_us": 1e6 * ours,
            "gflops": gflops,
            "others_us": {name: 1e6 * self._median(call, RIVAL_RUNS) for name, call in calls.items()},
            "cudnn_us": None,
            **checked,
        }
        library = self.products.get(tensor.arithmetic_of(problem.dtype, precision()) or "")
        if library:
            result["of_gemm"] = gflops / 1e3 / library
        if peer:
            result["cudnn_us"] = self._peer_us(peer)
            result["speed_up"] = result["cudnn_us"] / result["ours_us"]
        if peer and problem.layout == "nhwc" and problem.dtype == "float32":  # in which cuDNN may be at its best or not
            dense = (self.cupy.ascontiguousarray(left), self.cupy.ascontiguousarray(right), b)
            result["cudnn_nchw_us"] = self._peer_us(_cudnn(replace(problem, layout="nchw"), *dense))
            del dense
        del left, right, b, calls, peer
        self._release()
        return result

    def _peer_us(self, peer: Callable[[], Any] | None) -> float:
        assert peer is not None
        with _tf32(_torch(), precision() == "tf32"):
            peer()  # chooses its algorithm
            return 1e6 * self._median(peer)

    def _operands(self, problem: Problem) -> tuple[Array, Array, Array | None]:
        """What a pass reads, in the problem's dtype and layout: numbers between -1 and 1."""
        s = problem.shape
        shapes = {"fprop": (s.x_shape, s.w_shape), "dgrad": (s.y_shape, s.w_shape), "wgrad": (s.y_shape, s.x_shape)}
        left, right = (self._drawn(shape, problem, i) for i, shape in enumerate(shapes[problem.operator]))
        return left, right, self._drawn((s.K,), problem, 2) if problem.operator == "fprop" else None

    def _drawn(self, shape: tuple[int, ...], problem: Problem, seed: int) -> Array:
        words = self.host.philox_uint32(math.prod(shape), seed, 0)
        array = convert(self.host, words.view(np.int32).astype(np.float32) * np.float32(2.0**-31), problem.dtype)
        if len(shape) == 4 and problem.layout == "nhwc":
            n, c, h, w = shape
            return array.reshape(n, h, w, c).transpose(0, 3, 1, 2)
        return array.reshape(shape)

    def _choices(self, problem: Problem, left: Array, right: Array) -> tuple[str, str, list[str]]:
        """What `auto` takes for these arrays, and why; its rivals."""
        images = (left, right) if problem.operator == "wgrad" else (left,)
        how = (problem.operator, problem.shape, left.dtype, all(map(tensor.reads_chunks, images)))
        able = [name for name, reason in self.host.conv2d_algorithms(*how) if reason is None]
        rivals = [name for name in able if _on_tensor_cores(name) and not name.endswith("_wide")]
        return *self.host.conv2d_choose(*how), rivals or list(dict.fromkeys(name.partition("_")[0] for name in able))

    def _call(self, problem: Problem, left: Array, right: Array, b: Array | None, algo: str) -> Callable[[], Array]:
        s = problem.shape
        how = (s.stride, s.padding, s.dilation, s.groups)
        if problem.operator == "fprop":
            return lambda: self.host.conv2d_fprop(left, right, b, *how, algo=algo)
        if problem.operator == "dgrad":
            return lambda: self.host.conv2d_dgrad(left, right, s.x_shape, *how, algo=algo)
        return lambda: self.host.conv2d_wgrad(left, right, s.w_shape, *how, algo=algo)

    def _release(self) -> None:
        """Give what nobody uses back to the GPU: cycles keep arrays, and CuPy and torch each what they once had."""
        gc.collect()
        self.cupy.get_default_memory_pool().free_all_blocks()
        torch = _torch()
        if torch:
            torch.cuda.empty_cache()

    def step(self, name: str) -> dict[str, Any]:
        """A training step: ours here, torch's in a process of its own."""
        step = STEPS[name]
        if step.peer:
            self._release()
            return steps.in_a_process(name)
        call = steps.Training(step, STEP, "cuda")
        loss = float(call().item())
        for _ in range(steps.WARM):
            call()
        while step.captured and not call.graphs:
            call()
        result: dict[str, Any] = self._timeline(call) if step.timeline else {}
        times = backends.get("cuda").timed(call, steps.RUNS)
        result |= {"ms": 1e3 * statistics.median(times), "loss": loss, "last_loss": float(call().item())}
        assert all(map(math.isfinite, (result["loss"], result["last_loss"]))), f"the loss is no number: {result}"
        del call
        self._release()
        return result

    def _timeline(self, call: Callable[[], Any]) -> dict[str, Any]:
        """Milliseconds and launches of each kernel in one call, between events around each launch of ours."""
        device = backends.get("cuda").host_on(self._number).device
        busy = self.cupy.empty(BUSY, np.uint8)
        with _launches_timed(device, self.cupy.cuda) as launches:
            for _ in range(_BUSY_FILLS):  # the GPU stays behind the host, whose pauses would else be counted
                busy.fill(0)
            call()
            device.sync()
        spent, counts = Counter[str](), Counter[str]()
        for instance, begin, end in launches:
            spent[instance.kernel] += self.cupy.cuda.get_elapsed_time(begin, end)
            counts[instance.kernel] += 1
        return {
            "kernels_ms": {kernel: round(ms, 3) for kernel, ms in spent.most_common()},
            "launches": dict(counts),
            "all_kernels_ms": sum(spent.values()),
        }

    def bandwidth(self, moved: Moved) -> dict[str, Any]:
        """One operator, timed; the bytes are those of its arrays and results."""
        rng = np.random.default_rng(0)
        given = [self.backend.into(each) for each in moved.arguments(lambda shape: rng.random(shape, dtype=np.float32))]

        def call() -> Any:
            return getattr(self.host, moved.function)(*given)

        result = call()
        results = result if isinstance(result, tuple) else (result,)
        seconds = self._median(call)
        arrays = [each for each in (*given, *results) if isinstance(each, self.cupy.ndarray)]
        return {"us": 1e6 * seconds, "gbytes": sum(array.nbytes for array in arrays) / seconds / 1e9}

    def _check_large(
        self, problem: Problem, algo: str, left: Array, right: Array, b: Array | None, found: Array
    ) -> dict[str, float]:
        """The error against float64 on the GPU by torch (an oracle of its own), within the bound of pycnn.testing."""
        torch = _torch()
        doubles = [None if each is None else _tensor(torch, each).double() for each in (left, right, b)]
        positive = [None if each is None else each.abs() for each in doubles]
        with _quick_choice(torch):
            exact = _by_torch(problem, *doubles)()
            largest = _by_torch(problem, *positive)().max().item()
        bound = allowed_error(problem, algo, largest, exact.abs().max().item())
        error = (_tensor(torch, found).double() - exact).abs().max().item()
        assert error <= bound, f"{problem} by {algo}: error {error:.3g} exceeds the bound {bound:.3g}"
        return {"error": error, "bound": bound}

    def sanitize(self, tool: str, part: str) -> dict[str, Any]:
        """compute-sanitizer over what one launcher launches, in a process of its own, or over a planted bug."""
        return sanitized.under(tool, part)

    def _median(self, call: Callable[[], Any], runs: int = RUNS) -> float:
        """Median seconds of `call` on the GPU, caches cold."""
        cuda = self.cupy.cuda
        call()
        pairs = []
        for _ in range(runs):
            for _ in range(_FILLS):
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
    return _by_torch(problem, *[None if each is None else _tensor(torch, each) for each in (left, right, b)])


def _tensor(torch: ModuleType, array: Array) -> Any:
    """The same memory as torch's.  16 bits go over as words: not every DLPack knows bfloat16."""
    if array.dtype.itemsize != 2:
        return torch.from_dlpack(array)
    return torch.from_dlpack(array.view(np.int16)).view(getattr(torch, array.dtype.name))


@contextmanager
def _tf32(torch: Any, allowed: bool) -> Iterator[None]:
    """Whether cuDNN and cuBLAS may compute float32 in TF32, until the end of the block."""
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = allowed
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


@contextmanager
def _quick_choice(torch: Any) -> Iterator[None]:
    """cuDNN takes its algorithm untried, for what is computed once."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def _launches_timed(device: Any, cuda: Any) -> Iterator[list[tuple[Instance, Any, Any]]]:
    """The launches of a device until the end of the block, with an event before and one behind each."""
    launches: list[tuple[Instance, Any, Any]] = []
    instances: dict[int, Instance] = {}
    load, launch = device.load, device.launch

    def remember(instance: Instance) -> Any:
        kernel = load(instance)
        instances[id(kernel)] = instance
        return kernel

    def timed(kernel: Any, *how: Any) -> None:
        begin, end = cuda.Event(), cuda.Event()
        begin.record()
        launch(kernel, *how)
        end.record()
        launches.append((instances[id(kernel)], begin, end))

    device.load, device.launch = remember, timed
    try:
        yield launches
    finally:
        del device.load, device.launch


def _on_tensor_cores(algo: str) -> bool:
    return algo.startswith("im2col_tensor") or algo.endswith(winograd.SPLIT)


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
    layout = torch.channels_last if problem.layout == "nhwc" else torch.contiguous_format

    def unread(shape: tuple[int, ...]) -> Any:
        return torch.empty(shape, dtype=left.dtype, device=left.device, memory_format=layout)

    x, w = (unread(s.x_shape), right) if problem.operator == "dgrad" else (right, unread(s.w_shape))
    wanted = [problem.operator == "dgrad", problem.operator == "wgrad", False]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(left, x, w, None, *how, False, (0, 0), s.groups, wanted)[wanted.index(True)]


@cache
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
