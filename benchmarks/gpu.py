"""Measuring and checking on a real GPU, for `benchmarks.evidence`.

Times are by CUDA events, median, with the L2 cache overwritten before each run; that also keeps the GPU busy while the
host prepares the launch, so the events see the kernel alone.  cuDNN is reached through torch with TF32 off and its
benchmark mode on, in the same process, on the same arrays.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pycnn.backends.cuda import Host, conv
from pycnn.backends.cuda.device import Array
from pycnn.backends.cuda.device_cupy import CupyDevice, current_device
from pycnn.jit import MissingToolError, nvrtc
from pycnn.jit.sources import Sources, installed
from pycnn.shape import PASSES, Problem
from pycnn.testing import error_factor, float_operands, run, terms

RUNS = 30
CAUGHT = 86  # compute-sanitizer's exit status when it has found something

# One problem an algorithm: full tiles and tails, several channel stages.
SANITIZED = (
    "n1c37h19w70_k130r1s1",
    "n1c19h60w68_k130r1s1_st2",
    "n1c19h19w70_k130r3s3_pd1",
    "n1c10h60w70_k130r3s3_st2pd1",
    "n1c10h30w35_k130r5s5_pd2",
    "n1c3h38w138_k130r7s7_st2pd3",
    "n1c3h43w271_k130r11s11_st4pd2",
    "n2c14h17w19_k70r3s3_st1pd1dl2x1g2",
)

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
            return self._out(function(*map(self._into, arguments), **options))

        return call

    def _out(self, result: Any) -> Any:
        if isinstance(result, self._cupy.ndarray):
            return self._cupy.asnumpy(result)
        return tuple(map(self._out, result)) if isinstance(result, tuple) else result

    def _into(self, value: Any) -> Any:
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

    def peaks(self) -> dict[str, float]:
        """Copy bandwidth over 1 GiB, both directions counted, and the rate of a kernel that does nothing but FMA."""
        source = self.cupy.zeros(2**28, np.float32)
        target = self.cupy.empty_like(source)
        copy = self._median(lambda: self.cupy.copyto(target, source))
        kernel = self.cupy.RawKernel(_FMA_KERNEL, "fma_peak")
        blocks, threads = 32 * self._properties["multiProcessorCount"], 256
        arguments = (target, np.float32(0.5), np.float32(0.25))
        fma = self._median(lambda: kernel((blocks,), (threads,), arguments))
        flops = 2.0 * blocks * threads * _FMA_CHAINS * _FMA_STEPS
        return {"copy_gbytes": 2 * source.nbytes / copy / 1e9, "fma_gflops": flops / fma / 1e9}

    def seconds(self, problem: Problem) -> dict[str, Any]:
        """One layer, checked at its full size, then timed; cuDNN beside it where torch is installed."""
        s = problem.shape
        operands = float_operands(problem)
        x, w, b = (self.cupy.asarray(array) for array in (operands.left, operands.right, operands.b))

        def ours() -> Any:
            return self.host.conv2d_fprop(x, w, b, s.stride, s.padding, s.dilation, s.groups)

        algo, why = self.host.conv2d_choose("fprop", s, problem.dtype)
        torch = _torch()
        checked = self._check_large(problem, algo, x, w, b, ours()) if torch else {}
        median = self._median(ours)
        result = {
            "algo": algo,
            "why": why,
            "ours_us": 1e6 * median,
            "gflops": s.flops / median / 1e9,
            "cudnn_us": None,
            **checked,
        }
        if torch:
            given = [torch.from_dlpack(array) for array in (x, w, b)]
            top, _, left, _ = s.padding
            with torch.no_grad():

                def cudnn() -> Any:
                    return torch.nn.functional.conv2d(*given, s.stride, (top, left), s.dilation, s.groups)

                cudnn()  # chooses its algorithm
                result["cudnn_us"] = 1e6 * self._median(cudnn)
            result["speed_up"] = result["cudnn_us"] / result["ours_us"]
        return result

    def _check_large(self, problem: Problem, algo: str, x: Array, w: Array, b: Array, y: Array) -> dict[str, float]:
        """The error against float64 on the GPU by torch (an oracle of its own), within the bound of pycnn.testing."""
        torch = _torch()
        s = problem.shape
        top, bottom, left, right = s.padding

        def exact(*arrays: Any) -> Any:
            image, filters, bias = (torch.from_dlpack(array).double() for array in arrays)
            padded = torch.nn.functional.pad(image, (left, right, top, bottom))
            return torch.nn.functional.conv2d(padded, filters, bias, s.stride, 0, s.dilation, s.groups)

        y64 = exact(x, w, b)
        largest = exact(abs(x), abs(w), 0 * b).max().item()
        unit = 2.0**-24
        bound = error_factor(algo) * terms(problem) ** 0.5 * unit * largest + unit * y64.abs().max().item()
        error = (torch.from_dlpack(y).double() - y64).abs().max().item()
        assert error <= bound, f"{problem} by {algo}: error {error:.3g} exceeds the bound {bound:.3g}"
        return {"error": error, "bound": bound}

    def sanitize(self, tool: str) -> dict[str, Any]:
        """compute-sanitizer over every algorithm, in processes of their own, after it has caught a planted bug."""
        program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
        if program is None:
            raise RuntimeError("compute-sanitizer is not installed; it comes with the CUDA toolkit")
        planted = {"memcheck": "overrun", "racecheck": "race"}[tool]
        caught = _under(program, tool, planted)
        assert caught.returncode == CAUGHT, f"{tool} missed the planted {planted}:\n{caught.stdout[-2000:]}"
        clean = _under(program, tool, "clean")
        assert clean.returncode == 0, f"{tool} on the kernels as they are:\n{clean.stdout[-4000:]}"
        return {"tool": tool, "planted": f"{planted} caught", "problems": len(SANITIZED)}

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


# ---------------------------------------------------------------------------------------------------------------------
# What runs under compute-sanitizer: python -m benchmarks.gpu clean | overrun | race


def _under(program: str, tool: str, mode: str) -> subprocess.CompletedProcess[str]:
    command = [program, "--tool", tool, "--error-exitcode", str(CAUGHT), "--target-processes", "all"]
    command += [sys.executable, "-m", "benchmarks.gpu", mode]
    folder = Path(__file__).resolve().parents[1]
    return subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False)


class _ShortDevice(CupyDevice):
    """Allocates one element less than asked for: the planted overrun."""

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        whole = super().alloc((int(np.prod(shape)) - 1,), dtype)
        return self._cupy.ndarray(shape, dtype, memptr=whole.data)


def _without_a_barrier(folder: Path) -> Sources:
    """The kernels, the first barrier of the tiled convolutions gone: the planted race."""
    shutil.copytree(installed().folder, folder, dirs_exist_ok=True)
    tile = folder / "direct_tile.cuh"
    text = tile.read_text()
    assert "__syncthreads();" in text
    tile.write_text(text.replace("__syncthreads();", "", 1))
    return Sources(folder)


def _worker(mode: str) -> None:
    number = current_device()
    import cupy

    cupy.cuda.set_allocator(None)  # every array is an allocation of its own, with nothing of ours behind it
    with tempfile.TemporaryDirectory() as folder:
        sources = _without_a_barrier(Path(folder)) if mode == "race" else installed()
        device = (_ShortDevice if mode == "overrun" else CupyDevice)(number, sources)
        host = Host(device, sources)
        for text in SANITIZED:
            for operator in PASSES:
                problem = replace(Problem.parse(text), operator=operator)
                operands = float_operands(problem)
                for plan in conv.plans(operator, problem.shape, sources):
                    if plan.reason is None:
                        run(OnNumpy(host, cupy), problem, operands, plan.name)
        device.sync()


if __name__ == "__main__":
    try:
        _worker(sys.argv[1])
    except MissingToolError as missing:
        sys.exit(str(missing))
