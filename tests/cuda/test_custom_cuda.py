"""Kernels of one's own in CUDA C++: in the simulator, through NVRTC, on arrays of a played CuPy; wrong ones caught."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from played import playing
from simulated import DEVICES, ORDERS

import pycnn
from pycnn import CudaKernel, backends, ops
from pycnn.cli import main
from pycnn.custom import registry
from pycnn.custom.dispatch import answering
from pycnn.jit import CompileError, MissingToolError, nvrtc
from pycnn.jit.cubin import Cubin
from pycnn.jit.sources import installed
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import check_conv2d, every_pass, verify_conv2d

pytestmark = pytest.mark.simulator

SCALE = """
// Takes one channel and one 1x1 filter; a second __global__ in a comment counts for nothing.
__global__ void scale(const float* x, const int count, const float* w, float* y) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = w[0] * x[i];
}
"""
X, W = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4), np.full((1, 1, 1, 1), 3, np.float32)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's kernels are gone when it ends."""
    monkeypatch.setattr(registry, "_kernels", {})


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The worked example, which registers "cuda_direct"."""
    monkeypatch.delitem(sys.modules, "pycnn.examples.cuda_direct", raising=False)
    return importlib.import_module("pycnn.examples.cuda_direct")


def scale(arguments: Callable[..., Any] | None = None, text: str = SCALE, **options: Any) -> CudaKernel:
    """The kernel above, launched for each element of y."""

    def packed(x: Any, w: Any, y: Any, shape: Conv2dShape) -> list[Any]:
        return [x, np.int32(y.size), w, y]

    given: dict[str, Any] = {"blocks": lambda shape: -(-shape.N * shape.P * shape.Q // 8), "threads": 8}
    return CudaKernel(text, "scale", arguments=arguments or packed, **(given | options))


def run(kernel: CudaKernel, x: np.ndarray = X, w: np.ndarray = W, **options: Any) -> Any:
    pycnn.register_conv2d("scale", kernel)
    try:
        with pycnn.use_backend("sim"):
            return pycnn.conv2d(x, w, algo="scale", **options)
    finally:
        pycnn.unregister_conv2d("scale")


# -------------------------------------------------------------------------------------------------------- the example


def test_the_example_is_right(example: ModuleType) -> None:
    found = verify_conv2d("cuda_direct", most_macs=20_000)
    assert found.backend == ("cuda" if pycnn.cuda.is_available() else "sim")
    assert len(found.right) > 130
    assert {problem.operator for problem in found.right} == {"fprop", "dgrad", "wgrad"}
    assert not found.refused


@pytest.mark.parametrize("order", ORDERS)
def test_no_order_of_threads_matters(example: ModuleType, order: str) -> None:
    for problem in every_pass(map(Problem.parse, ("n2c4h6w5_k6r3s2_st2x1pd1.0.2.1dl1x2g2", "n1c3h7_k5r3_pd1"))):
        check_conv2d(answering(DEVICES[order], "cuda_direct"), problem, "cuda_direct")


BUGS = [
    ("FPROP", "h >= shape.H", "false", "", "n"),  # reads below the last row: the simulator's fence
    ("FPROP", "h < 0 || ", "", "", "n"),
    ("FPROP", "first + c", "c", "is wrong", "g"),
    ("FPROP", "r * shape.dilation_h", "r", "is wrong", "dl"),
    ("FPROP", "p * shape.stride_h", "p", "is wrong", "st"),
    ("FPROP", "s < shape.S", "s + 1 < shape.S", "is wrong", "n"),
    ("FPROP", ">= shape.N * shape.K * shape.P * shape.Q) return", "< 0) return", "fails", "n"),
    ("DGRAD", "c % channels", "c", "", "g"),
    ("DGRAD", "p % shape.stride_h != 0", "false", "is wrong", "st"),
    ("DGRAD", "= c / channels * filters", "= 0", "is wrong", "g"),
    ("WGRAD", "k / (shape.K / shape.groups) * channels + c", "c", "is wrong", "g"),
    ("WGRAD", "n < shape.N", "n < 1", "is wrong", "n"),
    ("WGRAD", "dw[place] = sum", "if (s == 0) dw[place] = sum", "is wrong", "n"),  # the rest stays NaN
]


@pytest.mark.parametrize(("text", "line", "bug", "how", "field"), BUGS, ids=lambda value: str(value)[:40])
def test_seeded_bugs_are_caught_with_the_problem(
    example: ModuleType, text: str, line: str, bug: str, how: str, field: str
) -> None:
    source = getattr(example, text)
    assert line in source
    operator = text.lower()
    broken = example.kernel(source.replace(line, bug), operator)
    pycnn.register_conv2d("broken", **{operator: broken})
    with pytest.raises(AssertionError, match=f"^broken {how or '(is wrong|fails)'} on n.*sim") as caught:
        verify_conv2d("broken", "sim", most_macs=20_000)
    problem = Problem.parse(str(caught.value).split(" on ")[1].split()[0])
    assert problem.operator == operator
    asked = {
        "g": problem.shape.groups > 1,
        "dl": problem.shape.dilation[0] > 1,
        "st": problem.shape.stride[0] > 1,
    }
    assert asked.get(field, True)
    with pytest.raises(AssertionError):  # the string alone brings it back
        verify_conv2d("broken", "sim", [problem])


@pytest.mark.nvrtc
@pytest.mark.parametrize("arch", ["sm_75", "sm_90a"])
def test_the_example_compiles_for_gpus_with_the_simulators_parameters(example: ModuleType, arch: str) -> None:
    device = DEVICES["forward"].host.device
    for text in (example.FPROP, example.DGRAD, example.WGRAD):
        operator = text.split("void ")[1].split("(")[0]
        instance = installed().given(operator, text)
        compiled = Cubin.read(nvrtc.compile_cubin(instance, arch).read_bytes())
        assert compiled.parameters == device.load(instance).parameters
        assert compiled.stack == 0
        assert f"{len(operator)}{operator}" in compiled.entry


def test_the_bench_command_proves_and_races_it(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("rich", "threadpoolctl", "matplotlib"):
        pytest.importorskip(package)
    monkeypatch.delitem(sys.modules, "pycnn.examples.cuda_direct", raising=False)
    given = ["--kernel", "pycnn.examples.cuda_direct", "--backend", "sim", "--most-macs", "1000"]
    given += ["--problem", "n1c2h4_k2r3_pd1", "--out", str(tmp_path), "--quick"]
    assert main(["bench", *given]) == 0
    said = capsys.readouterr().out
    assert said.startswith("cuda_direct is right on ")
    assert all(f"{operator}, all layers" in said for operator in ("fprop", "dgrad", "wgrad"))
    assert "x cuda_direct" in said


# ---------------------------------------------------------------------------------------------------- texts, arguments


def test_arguments_are_packed_as_they_are_given() -> None:
    assert np.array_equal(run(scale()), 3 * X)
    assert np.array_equal(run(scale(blocks=lambda shape: (2, 1, 1), threads=[8, 1])), 3 * X)
    assert np.array_equal(run(scale(threads=lambda shape: shape.P * shape.Q, blocks=lambda shape: 1)), 3 * X)
    assert np.array_equal(run(scale(lambda x, w, y, shape: [x, np.int32(12).tobytes(), w, y])), 3 * X)
    by_shape = SCALE.replace("const int count", "const pycnn::Conv2dShape shape").replace("count", "shape.P * shape.Q")
    kernel = scale(lambda x, w, y, shape: [x, shape, w, y], text='#include "common.cuh"\n' + by_shape)
    assert np.array_equal(run(kernel), 3 * X)


def test_templates_and_shared_memory() -> None:
    text = """
    #include "common.cuh"
    namespace of {
    template <int size>
    struct Shared { float value[size]; };
    template <int size>
    __global__ void turned(const pycnn::Conv2dShape shape, const float* x, const float* w, float* y) {
        PYCNN_SHARED(Shared<size>, shared);
        const int i = static_cast<int>(threadIdx.x);
        shared.value[i] = x[i];
        __syncthreads();
        y[i] = w[0] * shared.value[size - 1 - i];
    }
    }
    """
    kernel = CudaKernel(text, "of::turned<12>", blocks=lambda shape: 1, threads=12)
    assert np.array_equal(run(kernel).ravel(), 3 * X.ravel()[::-1])
    unsynchronised = CudaKernel(text.replace("__syncthreads();", ""), "of::turned<12>", blocks=lambda s: 1, threads=12)
    assert np.isnan(run(unsynchronised)).any()


def test_texts_are_cached_by_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycnn.backends.cuda import Host
    from pycnn.backends.cuda.device_sim import SimDevice
    from pycnn.backends.sim import Simulated
    from pycnn.jit import host

    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path))
    compiled: list[str] = []
    publish = host._publish
    monkeypatch.setattr(host, "_publish", lambda key, *rest: (compiled.append(key), publish(key, *rest))[1])

    def y(text: str) -> np.ndarray:
        pycnn.register_conv2d("scale", scale(text=text))
        module = answering(Simulated(Host(SimDevice())), "scale")
        found = module.conv2d_fprop(X, W, None, (1, 1), (0, 0, 0, 0), (1, 1), 1, algo="scale")
        pycnn.unregister_conv2d("scale")
        return np.asarray(found)

    assert np.array_equal(y(SCALE), 3 * X)
    first = len(compiled)
    assert np.array_equal(y(SCALE), 3 * X)
    assert len(compiled) == first > 0
    assert np.array_equal(y(SCALE.replace("w[0] *", "2 * w[0] *")), 6 * X)
    assert len(compiled) == first + 1


def test_a_strangers_warnings_are_no_errors() -> None:
    assert np.array_equal(run(scale(text=SCALE.replace("const int i", "int unused; const int i"))), 3 * X)


def test_a_text_that_does_not_compile_says_why() -> None:
    with pytest.raises(CompileError, match=r"(?s)scale \(simulator\) does not compile:.*given-.*\.cu.*w0"):
        run(scale(text=SCALE.replace("w[0]", "w0")))


def test_a_missing_simulator_is_no_wrong_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCNN_REPOSITORY", str(tmp_path))
    pycnn.register_conv2d("scale", scale(text=SCALE + "// not compiled before"))
    with pytest.raises(MissingToolError, match="the simulator's sources are not in"):
        verify_conv2d("scale", "sim", ["n1c1h3_k1r1"])


@pytest.mark.nvrtc
def test_nvrtc_says_why_too() -> None:
    instance = installed().given("scale", SCALE.replace("w[0]", "w0"))
    with pytest.raises(CompileError, match=r'(?s)scale \(.*sm_90a\) does not compile:.*given-.*identifier "w0"'):
        nvrtc.compile_cubin(instance, "sm_90a")


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no text": (lambda: CudaKernel("", "scale", blocks=lambda s: 1), TypeError, "text must be a string"),
    "no name": (lambda: CudaKernel(SCALE, None, blocks=lambda s: 1), TypeError, "name must be a string.*got None"),  # type: ignore[arg-type]
    "no function": (
        lambda: CudaKernel("int i;", "i", blocks=lambda s: 1),
        ValueError,
        "one __global__ function, found 0",
    ),
    "two functions": (lambda: CudaKernel(SCALE * 2, "scale", blocks=lambda s: 1), ValueError, "function, found 2"),
    "blocks": (lambda: scale(blocks=3), TypeError, "blocks must be a function of the shape, got 3"),
    "dtype": (lambda: scale(dtype="half"), ValueError, "dtype must be one of float32, float64, .*got 'half'"),
    "no blocks": (
        lambda: run(scale(blocks=lambda s: (0, 1))),
        ValueError,
        r"blocks must be one to three ints.*\(0, 1\)",
    ),
    "threads": (lambda: run(scale(threads=(1, 2, 3, 4))), ValueError, "threads must be one to three ints"),
    "argument": (
        lambda: run(scale(lambda x, w, y, s: [x, 12, w, y])),
        TypeError,
        r"argument 1 of CudaKernel\(scale\) must be an operand, .* got 12 of type int",
    ),
    "a copy": (lambda: run(scale(lambda x, w, y, s: [x.copy(), np.int32(1), w, y])), TypeError, "argument 0 of"),
    "float64": (
        lambda: run(scale(), X.astype(np.float64), W.astype(np.float64)),
        ValueError,
        r"cannot run fprop .*\(its CUDA C\+\+ is for float32, this is float64\)",
    ),
    "the CPU": (
        lambda: pycnn.register_conv2d("mine", scale(), backends=["cpu"]),
        ValueError,
        "fprop of the kernel mine is a CudaKernel, which does not run on cpu",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, error, words = BAD[case]
    with pytest.raises(error, match=words):
        call()


def test_another_dtype_may_be_what_it_is_written_for() -> None:
    double = scale(text=SCALE.replace("float", "double"), dtype="float64")
    y = run(double, X.astype(np.float64), W.astype(np.float64))
    assert y.dtype == np.float64
    assert np.array_equal(y, 3 * X)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_reach_the_kernel_and_are_rounded_once(example: ModuleType, dtype: str) -> None:
    text = example.FPROP.replace("common.cuh", "arch/half.cuh")
    text = text.replace("const float* x, const float* w, float* y", "const {0}* x, const {0}* w, {0}* y").replace(
        "{0}", f"pycnn::{dtype}"
    )
    text = text.replace("= x[", "= to_float(x[").replace("+ v];", "+ v]);").replace("pixel, w[", "pixel, to_float(w[")
    text = text.replace("+ s], sum)", "+ s]), sum)").replace("= sum;", f"= pycnn::from_float<pycnn::{dtype}>(sum);")

    def blocks(shape: Conv2dShape) -> int:
        return -(-shape.N * shape.K * shape.P * shape.Q // 128)

    for name, source in (
        ("right", text),
        (
            "early",
            text.replace("sum = fmaf(", f"sum = pycnn::to_float(pycnn::from_float<pycnn::{dtype}>(fmaf(").replace(
                "]), sum);", "]), sum)));"
            ),
        ),
    ):
        pycnn.register_conv2d(name, CudaKernel(source, "fprop", blocks=blocks, threads=128, dtype=dtype))
    assert len(verify_conv2d("right", "sim", dtype=dtype, most_macs=20_000).right) > 40
    with pytest.raises(AssertionError, match=r"^early is wrong on "):
        verify_conv2d("early", "sim", dtype=dtype, most_macs=20_000)


# -------------------------------------------------------------------------------------------------------- CuPy's arrays


@pytest.mark.nvrtc
def test_cuda_kernels_run_on_cupys_arrays(example: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((2, 4, 5, 6), (6, 2, 3, 2)))
    results = []
    with playing(2) as gpu:
        gpu.given = [installed().given(one.lower(), getattr(example, one)) for one in ("FPROP", "DGRAD", "WGRAD")]
        for device, algo in (("cpu", "direct"), ("cuda:0", "cuda_direct")):
            a, b = (pycnn.Tensor(one).to(device).requires_grad_() for one in (x, w))
            bias = pycnn.Tensor(np.arange(6, dtype=np.float32)).to(device)
            y = pycnn.conv2d(a, b, bias, (2, 1), (1, 0, 2, 1), groups=2, algo=algo)
            (y * y).sum().backward()
            assert y.device == device
            results.append([one.detach().numpy() for one in (y, a.grad, b.grad)])  # type: ignore[union-attr]
        assert {"fprop", "dgrad", "wgrad"} < set(gpu.launches)
    for cpu, cuda in zip(*results, strict=True):
        assert np.array_equal(cpu, cuda)


@pytest.mark.nvrtc
def test_a_callable_gets_cupys_arrays_and_returns_one() -> None:
    kinds = []

    def doubled(x: Any, w: Any, shape: Conv2dShape) -> Any:
        kinds.append((type(x).__module__, x.flags.c_contiguous))
        return x + x

    pycnn.register_conv2d("doubled", doubled, backends=["cuda"])
    pycnn.register_conv2d("host", lambda x, w, shape: x.get(), backends=["cuda"])
    with playing(2):
        x, w = (pycnn.Tensor(one).cuda(1).data for one in (X, W))  # not the current GPU; the callable's is
        y = ops.conv2d_fprop(x.transpose(0, 1, 3, 2), w, algo="doubled")
        assert y.device.id == 1
        assert np.array_equal(y.get(), 2 * X.transpose(0, 1, 3, 2))
        assert kinds == [("cupy", True)]
        with pytest.raises(
            TypeError, match="fprop of the registered kernel host must return an array of cupy, got ndarray"
        ):
            ops.conv2d_fprop(x, w, algo="host")


@pytest.mark.nvrtc
def test_verification_goes_to_a_gpu_where_there_is_one() -> None:
    """A kernel is proven on the device's arrays, and what it does to its operands there is seen."""

    def right(x: Any, w: Any, shape: Conv2dShape) -> Any:
        return x * w[0, 0, 0, 0]

    def modifying(x: Any, w: Any, shape: Conv2dShape) -> Any:
        y = right(x, w, shape)
        w[...] = 0.0
        return y

    pycnn.register_conv2d("right", right, backends=["cuda"])
    pycnn.register_conv2d("modifying", modifying, backends=["cuda"])
    pycnn.register_conv2d("wrong", lambda x, w, shape: x, backends=["cuda"])
    with playing():
        assert str(verify_conv2d("right", given=["n2c1h3_k1r1"])) == "right is right on 1 problems on cuda (fprop)"
        with pytest.raises(
            AssertionError, match=r"modifying is wrong on n2c1h3.*\(cuda\): integers: an input was modified"
        ):
            verify_conv2d("modifying", given=["n2c1h3_k1r1"])
        with pytest.raises(AssertionError, match=r"wrong is wrong on n2c1h3.*\(cuda\): .*: at"):
            verify_conv2d("wrong", given=["n2c1h3_k1r1"])
    assert backends.selected() is None
