"""cp.async: its wrapper of kernels/arch in the simulator and as PTX; a group that nobody waited for is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pycnn.backends.cuda.device import Reads, Writes
from pycnn.backends.cuda.device_sim import SimDevice, SimulationError
from pycnn.jit import nvrtc
from pycnn.jit.sources import Sources, installed
from pycnn.testing.ptx import PtxDevice, PtxError

HEAD = (
    '#include "arch/cp_async.cuh"\nnamespace pycnn { struct Tile { int n; };\n'
    "struct alignas(16) Shared { float v[256]; };\n"
    "template <Tile T> __global__ void probe(const float* x, float* y) {\n"
    "const int i = static_cast<int>(threadIdx.x); PYCNN_SHARED(Shared, s);\n"
)

DEVICES = [
    pytest.param(("sim", "sm_90a"), id="sim", marks=pytest.mark.simulator),
    pytest.param(("ptx", "sm_75"), id="ptx sm_75", marks=pytest.mark.nvrtc),
    pytest.param(("ptx", "sm_80"), id="ptx sm_80", marks=pytest.mark.nvrtc),
    pytest.param(("ptx", "sm_90a"), id="ptx sm_90a", marks=pytest.mark.nvrtc),
]
ASYNC = [device for device in DEVICES if device.id != "ptx sm_75"]  # which copies at once

X = np.arange(256, dtype=np.float32)


def sources(folder: Path, body: str) -> Sources:
    for name in ("common.cuh", "arch/cp_async.cuh"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text((installed().folder / name).read_text())
    (folder / "probe.cu").write_text(f"{HEAD}{body} }} }}\n")
    (folder / "instances.toml").write_text(
        '[probe]\nsource = "probe.cu"\ntile = "Tile"\narchs = "all"\n[probe.instances]\nonly = { n = 1 }\n'
    )
    return Sources(folder)


def probe(folder: Path, where: tuple[str, str], body: str, x: np.ndarray = X) -> np.ndarray:
    """What 64 threads write into y[256] by `body`."""
    kind, arch = where
    given = sources(folder, body)
    device = SimDevice(arch, sources=given, options=("-O0",)) if kind == "sim" else PtxDevice(arch, given)
    source, y = device.alloc((256,), np.float32), device.alloc((256,), np.float32)
    device.fill(source, x)
    arguments = [Reads("x", source), Writes("y", y)]
    device.launch(device.load(given.of("probe")["only"]), (1, 1, 1), (64, 1, 1), 0, arguments)
    return np.array(y)


LAND = (
    "\ncp_async_commit(); cp_async_wait<0>(); __syncthreads();\nfor (int j = i; j < 256; j += 64) y[j] = s.v[255 - j];"
)


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_copy_lands_whole_when_it_is_waited_for(tmp_path: Path, where: tuple[str, str], width: int) -> None:
    size = 4 * width
    body = f"for (int j = {width} * i; j < 256; j += {64 * width}) cp_async<{size}>(s.v + j, x + j, {size}); {LAND}"
    assert np.array_equal(probe(tmp_path, where, body), X[::-1])


@pytest.mark.parametrize("where", DEVICES)
def test_what_is_not_real_is_zero_and_not_read(tmp_path: Path, where: tuple[str, str]) -> None:
    # Thread i copies i % 5 floats of its four; a thread that copies none points far outside of x.
    body = f"cp_async<16>(s.v + 4 * i, i % 5 ? x + 4 * i : x - (1 << 20), i % 5 * 4); {LAND}"
    real = X.reshape(64, 4) * (np.arange(4) < np.arange(64)[:, None] % 5)
    assert np.array_equal(probe(tmp_path, where, body), real.reshape(-1)[::-1])


@pytest.mark.parametrize("where", ASYNC)
def test_a_group_still_pending_is_not_there(tmp_path: Path, where: tuple[str, str]) -> None:
    body = (
        "for (int g = 0; g < 4; ++g) { cp_async<4>(s.v + 64 * g + i, x + 64 * g + i, 4); cp_async_commit(); } "
        "cp_async_wait<1>(); for (int g = 0; g < 4; ++g) y[64 * g + i] = s.v[64 * g + i]; cp_async_wait<0>();"
    )
    y = probe(tmp_path, where, body)
    assert np.array_equal(y[:192], X[:192])
    assert np.isnan(y[192:]).all()


@pytest.mark.parametrize("where", ASYNC)
def test_a_copy_without_a_group_is_not_waited_for(tmp_path: Path, where: tuple[str, str]) -> None:
    body = "cp_async<4>(s.v + i, x + i, 4); cp_async_wait<0>(); y[i] = s.v[i]; cp_async_commit();"
    assert np.isnan(probe(tmp_path, where, body)[:64]).all()


@pytest.mark.parametrize("where", ASYNC)
def test_what_a_copy_overwrites_is_gone_at_once(tmp_path: Path, where: tuple[str, str]) -> None:
    body = "s.v[i] = 1; cp_async<4>(s.v + i, x + i, 4); y[i] = s.v[i]; cp_async_commit(); cp_async_wait<0>();"
    assert np.isnan(probe(tmp_path, where, body)[:64]).all()


@pytest.mark.parametrize("where", ASYNC)
def test_only_the_thread_that_waits_sees_its_copies(tmp_path: Path, where: tuple[str, str]) -> None:
    body = "cp_async<4>(s.v + i, x + i, 4); cp_async_commit(); if (i % 2) cp_async_wait<0>(); y[i] = s.v[i];"
    y = probe(tmp_path, where, body)[:64]
    assert np.array_equal(y[1::2], X[1:64:2])
    assert np.isnan(y[::2]).all()


@pytest.mark.parametrize("where", ASYNC)
@pytest.mark.parametrize(
    "body",
    [
        "cp_async<16>(s.v + 4 * i, x + 4 * i + 1, 16);",
        "cp_async<16>(s.v + 4 * i, i ? x + 4 * i : x + 1, i ? 16 : 0);",
        "cp_async<8>(s.v + 2 * i + 1, x + 2 * i, 8);",
        "cp_async<4>(s.v + i, x + 256 + i, 4);",
        "cp_async<4>(s.v + i, x + i, 8);",
        "cp_async<4>(y + i, x + i, 4);",
    ],
    ids=[
        "from no multiple of 16",
        "nothing from no multiple of 16",
        "to no multiple of 8",
        "past the end",
        "more real bytes than all",
        "to global memory",
    ],
)
def test_fault_is_reported(tmp_path: Path, where: tuple[str, str], body: str) -> None:
    with pytest.raises((SimulationError, PtxError)):
        probe(tmp_path, where, f"{body} {LAND}")


@pytest.mark.nvrtc
def test_the_instruction_is_there_from_sm_80_on(tmp_path: Path) -> None:
    instance = sources(tmp_path, f"cp_async<16>(s.v + 4 * i, x + 4 * i, 16); {LAND}").of("probe")["only"]
    assert "cp.async.cg.shared.global" in nvrtc.compile_ptx(instance, "sm_80", Sources(tmp_path))
    assert "cp.async" not in nvrtc.compile_ptx(instance, "sm_75", Sources(tmp_path))
