"""The simulator's own nets, each on a kernel of a few lines that falls into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device import Reads, Writes
from pycnn.backends.cuda.device_sim import SimDevice, SimulationError
from pycnn.backends.replay import CaptureError
from pycnn.jit import CompileError
from pycnn.jit.sources import Sources

pytestmark = pytest.mark.simulator

HEAD = '#include "common.cuh"\nnamespace pycnn { struct Tile { int n; }; struct Shared { float value[64]; };\n'
KERNEL = "template <Tile T> __global__ void probe(const float* x, float* y) "

# The body of a kernel on 64 threads; x and y have 64 elements, y[i] is expected to be x[63 - i].
GOOD = (
    "{ PYCNN_SHARED(Shared, s); const int i = threadIdx.x; "
    "s.value[i] = x[i]; __syncthreads(); y[i] = s.value[63 - i]; }"
)


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., np.ndarray]:
    (tmp_path / "common.cuh").write_text((Sources().folder / "common.cuh").read_text())

    def run(body: str, grid: int = 1, block: int = 64, shared: int = 0, size: int = 64, **device: object) -> np.ndarray:
        device["options"] = ("-O0", *device.get("options", ()))  # type: ignore[misc]  # half the time to compile
        (tmp_path / "probe.cu").write_text(f"{HEAD}{KERNEL}{body} }}\n")
        (tmp_path / "instances.toml").write_text(
            '[probe]\nsource = "probe.cu"\ntile = "Tile"\narchs = "all"\n[probe.instances]\nonly = { n = 1 }\n'
        )
        sources = Sources(tmp_path)
        simulated = SimDevice(sources=sources, **device)  # type: ignore[arg-type]
        x, y = simulated.alloc((size,), np.float32), simulated.alloc((size,), np.float32)
        simulated.fill(x, np.arange(size, dtype=np.float32))
        kernel = simulated.load(sources.of("probe")["only"])
        simulated.launch(kernel, (grid, 1, 1), (block, 1, 1), shared, [Reads("x", x), Writes("y", y)])
        return np.array(y)

    return run


@pytest.mark.parametrize("options", [(), ("-DPYCNN_SIM_UCONTEXT",)], ids=["assembly", "ucontext"])
@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_good_kernel_is_the_same_in_every_order(launch: Callable[..., np.ndarray], order: str, options: tuple) -> None:
    y = launch(GOOD, order=order, options=options)
    assert np.array_equal(y, np.arange(64)[::-1])


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_missing_barrier_leaves_poison(launch: Callable[..., np.ndarray], order: str) -> None:
    y = launch(GOOD.replace("__syncthreads();", ""), order=order)
    assert np.isnan(y).any()


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_a_warp_goes_ahead_of_the_others_up_to_a_barrier(launch: Callable[..., np.ndarray], order: str) -> None:
    """Warps that met in every collective would both have read before either writes."""
    body = (
        "{ PYCNN_SHARED(Shared, s); const int i = threadIdx.x; s.value[i] = x[i]; __syncthreads(); "
        "__syncwarp(); const float value = s.value[63 - i]; __syncwarp(); BARRIER s.value[i] = -1; y[i] = value; }"
    )
    assert np.array_equal(launch(body.replace("BARRIER", "__syncthreads();"), order=order), np.arange(64)[::-1])
    assert (launch(body.replace("BARRIER", ""), order=order) == -1).sum() == 32


def test_shared_memory_is_nan_again_in_every_block(launch: Callable[..., np.ndarray]) -> None:
    body = "{ PYCNN_SHARED(Shared, s); const int i = threadIdx.x; y[i] = s.value[i]; s.value[i] = x[i]; }"
    assert np.isnan(launch(body, grid=3)).all()


def test_outputs_are_nan_before_the_kernel(launch: Callable[..., np.ndarray]) -> None:
    assert np.isnan(launch("{ if (x == nullptr) y[0] = 0; }")).all()


FAULTS = {
    "divergent barrier": (
        "{ if (threadIdx.x < 40) __syncthreads(); y[threadIdx.x] = x[0]; }",
        r"thread \(0, 0, 0\) waits at the barrier .* thread \(40, 0, 0\) has returned",
    ),
    "two barriers": (
        "{ if (threadIdx.x < 40) __syncthreads();\n else __syncthreads();\n y[threadIdx.x] = x[0]; }",
        r"thread \(40, 0, 0\) reaches the barrier of line \d+ while thread \(0, 0, 0\) waits at the one of line",
    ),
    "read past the end": ("{ y[threadIdx.x] = x[threadIdx.x + 1]; }", r"thread \(63, 0, 0\) .*past the end of x"),
    "read before the start": ("{ y[threadIdx.x] = x[int(threadIdx.x) - 1000]; }", r"bytes before the start of x"),
    "write past the end": ("{ y[threadIdx.x + 1] = x[threadIdx.x]; }", r"thread \(63, 0, 0\) .*past the end of y"),
    "write to an input": ("{ const_cast<float*>(x)[threadIdx.x] = 0; y[0] = 0; }", r"x, which is an input"),
    "null pointer": ("{ y[threadIdx.x] = x[0] + *static_cast<const float*>(nullptr); }", r"thread \(0, 0, 0\)"),
    "shared overrun": (
        "{ PYCNN_SHARED(Shared, s); s.value[threadIdx.x + 1 + (x == nullptr)] = 1; y[0] = s.value[1]; }",
        "past the end of its shared memory",
    ),
    "shared underrun": (
        "{ PYCNN_SHARED(Shared, s); s.value[int(threadIdx.x) - 4 - (x == nullptr)] = 1; y[0] = s.value[1]; }",
        "wrote outside the shared memory",
    ),
    "stack overrun": (
        "{ const auto deep = [&] { volatile float v[16384]; for (float& e : const_cast<float(&)[16384]>(v)) e = x[0]; "
        "y[0] = v[5]; }; if (threadIdx.x == 40) deep(); }",
        r"thread \(40, 0, 0\) needs more than 65536 bytes of stack",
    ),
    "lane outside the mask": ("{ y[threadIdx.x] = __shfl_sync(1u, x[0], 0); }", "its own lane is missing"),
    "lane that never comes": (
        "{ if (threadIdx.x % 32 != 5) y[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, x[threadIdx.x], 1); }",
        r"thread \(5, 0, 0\) has returned",
    ),
    "two collectives": (
        "{ y[threadIdx.x] = threadIdx.x % 2 ? __shfl_sync(~0u, x[0], 0) : float(__ballot_sync(~0u, 1)); }",
        "is in another collective",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_reported_with_kernel_block_and_thread(launch: Callable[..., np.ndarray], name: str) -> None:
    body, message = FAULTS[name]
    with pytest.raises(SimulationError, match=message) as raised:
        launch(body)
    assert "probe[only], block (0, 0, 0)" in str(raised.value)


def test_device_survives_a_fault(launch: Callable[..., np.ndarray]) -> None:
    for _ in range(3):
        with pytest.raises(SimulationError):
            launch(FAULTS["write past the end"][0])
        assert np.array_equal(launch(GOOD), np.arange(64)[::-1])


def test_endless_kernel_is_stopped(launch: Callable[..., np.ndarray]) -> None:
    endless = "{ volatile int i = 0; while (i < 1 || threadIdx.x == 7) i = 1; y[threadIdx.x] = x[0]; }"
    with pytest.raises(SimulationError, match=r"thread \(7, 0, 0\) still runs after 1 s"):
        launch(endless, patience=1)
    assert np.array_equal(launch(GOOD), np.arange(64)[::-1])


def test_write_within_the_last_sixteen_bytes_is_found(launch: Callable[..., np.ndarray]) -> None:
    # 61 floats do not fill a multiple of 16 bytes, so three more lie on the same page; they are checked afterwards.
    with pytest.raises(SimulationError, match="just outside y"):
        launch("{ if (threadIdx.x < 62) y[threadIdx.x] = x[0]; }", size=61)


LIMITS = [
    ({"block": 1025}, "a block of"),
    ({"grid": 2**31}, "a grid of"),
    ({"grid": 0}, "a grid of"),
    ({"shared": 228 * 1024}, "dynamic shared memory"),
    ({"shared": 60 * 1024, "arch": "sm_75"}, "this arch has 65536"),
]


@pytest.mark.parametrize(("options", "message"), LIMITS)
def test_launch_limits_hold(launch: Callable[..., np.ndarray], options: dict, message: str) -> None:
    body = GOOD.replace("Shared, s", "Big, s").replace("{ PYCNN", "{ struct Big { float value[2048]; }; PYCNN", 1)
    with pytest.raises(SimulationError, match=message):
        launch(body, **options)


def test_dynamic_shared_memory_has_to_be_named(launch: Callable[..., np.ndarray]) -> None:
    body = GOOD.replace("Shared, s", "Big, s").replace("{ PYCNN", "{ struct Big { float value[20480]; }; PYCNN", 1)
    assert np.array_equal(launch(body, shared=81920), np.arange(64)[::-1])
    with pytest.raises(SimulationError, match="uses 81920 bytes of dynamic shared memory, but the launch names 1024"):
        launch(body, shared=1024)


def test_bare_shared_does_not_compile(launch: Callable[..., np.ndarray]) -> None:
    with pytest.raises(CompileError, match="use_PYCNN_SHARED"):
        launch("{ __shared__ float s[64]; s[threadIdx.x] = x[0]; y[0] = s[0]; }")


def test_warning_is_an_error(launch: Callable[..., np.ndarray]) -> None:
    with pytest.raises(CompileError, match="unused variable"):
        launch("{ int unused; y[threadIdx.x] = x[0]; }")


COLLECTIVES = {
    "__shfl_sync(~0u, v, 3)": lambda i: i // 32 * 32 + 3,
    "__shfl_sync(~0u, v, 9, 8)": lambda i: i // 8 * 8 + 1,
    "__shfl_xor_sync(~0u, v, 5)": lambda i: i ^ 5,
    "__shfl_down_sync(~0u, v, 4)": lambda i: np.where(i % 32 + 4 < 32, i + 4, i),
    "__shfl_up_sync(~0u, v, 4, 16)": lambda i: np.where(i % 16 >= 4, i - 4, i),
    "float(__ballot_sync(~0u, i % 32 < 5))": lambda i: np.full_like(i, 31),
    "float(__any_sync(~0u, i == 40))": lambda i: (i >= 32).astype(int),
    "float(__all_sync(~0u, i < 32))": lambda i: (i < 32).astype(int),
}


ROUNDED = {
    "__fadd_rn(v, 0.1f)": lambda x: x + np.float32(0.1),
    "__fsub_rn(v, 0.1f)": lambda x: x - np.float32(0.1),
    "__fmul_rn(v, 0.1f)": lambda x: x * np.float32(0.1),
    "__fadd_rn(__fmul_rn(v, v), 0.1f)": lambda x: x * x + np.float32(0.1),
    "__fdiv_rn(v, 7.f)": lambda x: x / np.float32(7),
    "__fdividef(v, 7.f)": lambda x: x / np.float32(7),
    "__fsqrt_rn(v)": np.sqrt,
    "rsqrtf(v + 1)": lambda x: 1 / np.sqrt(x + 1),
}


@pytest.mark.parametrize("expression", ROUNDED)
def test_arithmetic_rounds_once_an_operation(launch: Callable[..., np.ndarray], expression: str) -> None:
    y = launch(f"{{ const float v = x[threadIdx.x]; y[threadIdx.x] = {expression}; }}")
    assert np.array_equal(y, ROUNDED[expression](np.arange(64, dtype=np.float32)))


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
@pytest.mark.parametrize("expression", COLLECTIVES)
def test_warp_collective(launch: Callable[..., np.ndarray], expression: str, order: str) -> None:
    body = f"{{ const int i = threadIdx.x; const float v = x[i]; __syncwarp(); y[i] = {expression} + 0 * v; }}"
    assert np.array_equal(launch(body, order=order), COLLECTIVES[expression](np.arange(64)))


def test_launches_and_fills_are_recorded_and_replayed() -> None:
    device = SimDevice()
    host = Host(device)
    x, w = device.alloc((1, 2, 6, 6), np.float32), device.alloc((3, 2, 3, 3), np.float32)
    device.fill(w, 1.0)

    def step() -> np.ndarray:
        y = host.conv2d_fprop(x, w, None, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        total = device.alloc(y.shape, y.dtype)
        device.fill(total, 5.0)
        return host.add(y, total)

    recorder = device.recorder()
    device.fill(x, 1.0)
    result, _ = recorder.run(step)
    assert np.array_equal(result, np.full((1, 3, 4, 4), 23.0))
    launches = len(device.launches)
    y = recorder.record(step)
    assert len(device.launches) == launches
    assert np.isnan(y).all()
    for value in (2.0, 3.0):
        device.fill(x, value)
        recorder.replay()
        assert np.array_equal(y, np.full((1, 3, 4, 4), 18.0 * value + 5.0))
    assert len(device.launches) == 3 * launches


def test_a_kernel_that_was_not_loaded_cannot_be_recorded() -> None:
    device = SimDevice()
    x = device.alloc((4,), np.float32)
    with pytest.raises(CaptureError, match="would have to be loaded while a step is recorded"):
        device.recorder().record(lambda: Host(device).relu_fwd(x))
    assert device.recorded is None
