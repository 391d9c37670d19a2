"""The PTX interpreter: instructions against NumPy, its own nets, and the kernels' PTX against the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pycnn.backends import reference
from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device import Reads, Writes
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import Sources
from pycnn.shape import Problem
from pycnn.testing import exact_operands, run
from pycnn.testing.ptx import PtxDevice, PtxError, parse

pytestmark = pytest.mark.nvrtc

# Small, yet with tails in every dimension and more channel stages than one.
KERNELS = {
    "direct_r3s3_st1_8x32": "n1c9h9w33_k9r3s3_pd1",
    "direct_r3s3_st1_14x16": "n1c9h15w17_k9r3s3_pd1",
    "direct_r3s3_st1_8x8": "n2c9h9w9_k66r3s3_pd1",
    "direct_r3s3_st1_8x32_k16": "n1c5h9w33_k9r3s3_pd1",
    "direct_r5s5_st1_14x16_k16": "n1c3h15w17_k9r5s5_pd2",
    "direct_r3s3_st2_14x16": "n1c5h29w33_k9r3s3_st2pd1",
    "direct_r5s5_st1_14x16": "n1c5h15w17_k9r5s5_pd2",
    "direct_r7s7_st2_8x32": "n1c2h19w67_k9r7s7_st2pd3",
    "direct_r11s11_st4_4x32": "n1c2h23w135_k9r11s11_st4pd2",
    "direct_any_narrow": "n2c12h9w30_k66r2s3_st2x1pd0.1.2.3dl1x2g2",
    "direct_any_wide": "n2c12h9w30_k66r2s3_st2x1pd0.1.2.3dl1x2g2",
}


@pytest.mark.parametrize("algo", KERNELS)
def test_kernel_is_exact(algo: str) -> None:
    problem = Problem.parse(KERNELS[algo])
    device = PtxDevice()
    operands = exact_operands(problem, algo)
    y = run(Simulated(Host(device)), problem, operands, algo)
    assert np.array_equal(y, run(reference, problem, operands, "auto"))
    assert len(device.launches) == 1


def test_newer_arch_gives_the_same() -> None:
    problem = Problem.parse(KERNELS["direct_r3s3_st1_8x8"])
    operands = exact_operands(problem)
    results = [run(Simulated(Host(PtxDevice(arch))), problem, operands, "direct") for arch in ("sm_75", "sm_90a")]
    assert np.array_equal(*results)


HEAD = (
    '#include "common.cuh"\nnamespace pycnn { struct Tile { int n; };\n'
    "template <Tile T> __global__ void probe(const float* x, float* y) { const int i = threadIdx.x; "
)


def probe(folder: Path, body: str, x: np.ndarray, size: int = 64, grid: int = 1, block: int = 64) -> np.ndarray:
    (folder / "common.cuh").write_text((Sources().folder / "common.cuh").read_text())
    (folder / "probe.cu").write_text(f"{HEAD}{body} }} }}\n")
    (folder / "instances.toml").write_text(
        '[probe]\nsource = "probe.cu"\ntile = "Tile"\narchs = "all"\n[probe.instances]\nonly = { n = 1 }\n'
    )
    sources = Sources(folder)
    device = PtxDevice(sources=sources)
    y = device.alloc((size,), np.float32)
    kernel = device.load(sources.of("probe")["only"])
    device.launch(kernel, (grid, 1, 1), (block, 1, 1), 0, [Reads("x", x), Writes("y", y)])
    return y


X = np.random.default_rng(0).integers(-1000, 1000, 64).astype(np.float32)
N = X.astype(np.int64)
I = np.arange(64)
EXPRESSIONS = {
    "int(x[i]) / 7": np.fix(N / 7),
    "int(x[i]) % 7": np.fmod(N, 7),
    "int(x[i]) / (i + 1)": np.fix(N / (I + 1)),
    "int(x[i]) >> 3": N >> 3,
    "unsigned(int(x[i])) >> 29": (N % 2**32) >> 29,
    "(long long)(x[i]) * 3000000000LL >> 31": N * 3_000_000_000 >> 31,
    "__umulhi(unsigned(int(x[i])), 1500000000u) >> 9": ((N % 2**32) * 1_500_000_000 >> 32) >> 9,
    "(int(x[i]) ^ 0x55) & ~i | 1": (N ^ 0x55) & ~I | 1,
    "x[i] < 0 ? -x[i] : x[i] * 2": np.where(X < 0, -X, X * 2),
    "fmaxf(x[i], float(i)) - fminf(x[i], 3.f)": np.maximum(X, I) - np.minimum(X, 3),
    "fmaf(x[i], x[63 - i], 0.5f)": X * X[::-1] + np.float32(0.5),
    "x[i] / 3.f": X / np.float32(3),
    "(unsigned char)(int(x[i]))": N % 256,
    "(signed char)(int(x[i]))": (N + 128) % 256 - 128,
    "NAN_OR != 0.f": np.where(I % 2, True, X != 0),
    "!(NAN_OR < 0.f)": np.where(I % 2, True, X >= 0),
    "!(NAN_OR >= 0.f)": np.where(I % 2, True, X < 0),
    "!(NAN_OR != 0.f) || NAN_OR != NAN_OR": np.where(I % 2, True, X == 0),
    "floorf(x[i] / 7)": np.floor(X / np.float32(7)),
    "ceilf(x[i] / 7)": np.ceil(X / np.float32(7)),
    "rintf(x[i] / 2)": np.rint(X / 2),
    "truncf(x[i] / 7)": np.trunc(X / np.float32(7)),
    "__float2int_rn(x[i] / 2)": np.rint(X / 2),
    "__saturatef(x[i] / 500 + 0 * NAN_OR)": np.where(I % 2, 0, np.clip(X / np.float32(500), 0, 1)),
    "copysignf(3.f, x[i])": np.copysign(3, X),
    "__fadd_rd(x[i], 1e-9f) - x[i]": 0 * X,
    "__fadd_ru(x[i], 1e-9f) - x[i]": np.nextafter(X, np.float32(np.inf)) - X,
    "__fadd_rz(x[i], 1e-9f) - x[i]": np.where(X < 0, np.nextafter(X, np.float32(0)) - X, 0),
    "__fmaf_rd(x[i], 1.f, -1e-9f) - x[i]": np.nextafter(X, np.float32(-np.inf)) - X,
    "sqrtf(x[i] * x[i])": np.abs(X),
    "1.f / (x[i] * 4 + 1)": 1 / (X * 4 + 1),
    "float((((unsigned long long)(i) << 40) | (7ULL << 36)) >> 36)": (I << 4) | 7,
    "__shfl_sync(~0u, x[i], 3)": X[I // 32 * 32 + 3],
    "__shfl_sync(~0u, x[i], 9, 8)": X[I // 8 * 8 + 1],
    "__shfl_sync(~0u, x[i], 7 * i % 32)": X[I - I % 32 + 7 * I % 32],
    "__shfl_xor_sync(~0u, x[i], 5)": X[I ^ 5],
    "__shfl_xor_sync(~0u, (long long)(x[i]) << 33, 17) >> 33": X[I ^ 17],
    "__shfl_down_sync(~0u, x[i], 4)": X[np.where(I % 32 + 4 < 32, I + 4, I)],
    "__shfl_up_sync(~0u, x[i], 4, 16)": X[np.where(I % 16 >= 4, I - 4, I)],
}


# A register made of two halves, halves made of a register, and a register's bytes; the rest of what PTX has of 16 bits
# is in test_tensor_arch.py.
BITS = {
    'asm("mov.b32 %0, {%1, %2};" : "=r"(v) : "h"(short(i)), "h"(short(n)))': I | (N & 0xFFFF) << 16,
    'short a, b; asm("mov.b32 {%0, %1}, %2;" : "=h"(a), "=h"(b) : "r"(n)); v = 3 * a + b': 3 * N + (N >> 16),
    'asm("prmt.b32 %0, %1, %2, 0x7B0F;" : "=r"(v) : "r"(n), "r"(0x87654321))': (
        0xFF | (N & 0xFF) << 8 | (N >> 31 & 1) * 0xFF0000 | 0x87000000
    ),
    "v = __byte_perm(n, i, 0x2014)": I | (N >> 8 & 0xFF) << 8 | (N & 0xFF) << 16 | (N >> 16 & 0xFF) << 24,
}


@pytest.mark.parametrize("statement", BITS)
def test_parts_of_registers_agree_with_numpy(tmp_path: Path, statement: str) -> None:
    y = probe(tmp_path, f"const int n = int(x[i]); unsigned v; {statement}; y[i] = __int_as_float(v);", X)
    assert np.array_equal(y.view(np.uint32), (BITS[statement] % 2**32).astype(np.uint32))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_instructions_agree_with_numpy(tmp_path: Path, expression: str) -> None:
    code = expression.replace("NAN_OR", "(i % 2 ? __int_as_float(0x7FC00000) : x[i])")
    y = probe(tmp_path, f"y[i] = float({code});", X)
    assert np.array_equal(y, EXPRESSIONS[expression].astype(np.float32))


# Errors in units in the last place, as the CUDA C++ Programming Guide gives them under "Mathematical Functions"; the
# interpreter's ex2 and rsqrt are a little better than the hardware's.
FUNCTIONS = {
    "expf(x[i] / 20)": (np.exp(X.astype(np.float64) / 20), 40),  # the argument's rounding, of at most 50
    "expf(-fabsf(x[i]) / 1024)": (np.exp(-np.abs(X.astype(np.float64)) / 1024), 2),
    "logf(fabsf(x[i]) + 2)": (np.log(np.abs(X.astype(np.float64)) + 2), 1),
    "tanhf(x[i] / 512)": (np.tanh(X.astype(np.float64) / 512), 2),
    "powf(fabsf(x[i]) + 1, -0.7f)": ((np.abs(X.astype(np.float64)) + 1) ** -np.float64(np.float32(0.7)), 4),
    "log1pf(x[i] / 1024)": (np.log1p(X.astype(np.float64) / 1024), 2),
    "expm1f(x[i] / 1024)": (np.expm1(X.astype(np.float64) / 1024), 2),
    "rsqrtf(fabsf(x[i]) + 1)": (1 / np.sqrt(np.abs(X.astype(np.float64)) + 1), 2),
    "__fdividef(x[i], 1.5f)": (X.astype(np.float64) / 1.5, 2),
}


@pytest.mark.parametrize("expression", FUNCTIONS)
def test_functions_keep_their_ulps(tmp_path: Path, expression: str) -> None:
    expected, most = FUNCTIONS[expression]
    y = probe(tmp_path, f"y[i] = {expression};", X)
    assert (np.abs(y - expected) <= most * np.spacing(np.abs(expected).astype(np.float32))).all()


def test_threads_part_and_meet_again(tmp_path: Path) -> None:
    body = "float s = 0; for (int k = 0; k < i; ++k) { if (k % 3 == i % 3) continue; s += x[k]; } y[i] = s;"
    expected = [sum(X[k] for k in range(i) if k % 3 != i % 3) for i in range(64)]
    assert np.array_equal(probe(tmp_path, body, X), np.array(expected, np.float32))


SHARED = "struct Shared { float v[64]; }; PYCNN_SHARED(Shared, s); "


def test_barrier_in_a_loop_of_differing_length(tmp_path: Path) -> None:
    body = SHARED + (
        "float sum = 0; for (int k = 0; k <= int(blockIdx.x); ++k) { s.v[i] = x[i] + k; __syncthreads(); "
        "sum += s.v[63 - i]; __syncthreads(); } y[blockIdx.x * 64 + i] = sum;"
    )
    y = probe(tmp_path, body, X, size=256, grid=4).reshape(4, 64)
    for block in range(4):
        assert np.array_equal(y[block], sum(X[::-1] + np.float32(k) for k in range(block + 1)))


def test_barrier_of_a_warp_is_not_the_blocks(tmp_path: Path) -> None:
    body = SHARED + "s.v[i] = x[i]; float w = 0; if (i >= 32) { __syncwarp(); w = s.v[i ^ 1]; } y[i] = w;"
    assert np.array_equal(probe(tmp_path, body, X), np.where(I >= 32, X[I ^ 1], 0))


def test_shared_memory_is_nan_until_written(tmp_path: Path) -> None:
    y = probe(tmp_path, SHARED + "if (i < 60) s.v[i] = 1; __syncthreads(); y[i] = s.v[i];", X)
    assert np.isnan(y[60:]).all()
    assert (y[:60] == 1).all()


FAULTS = {
    "if (i % 32 != 5) y[i] = __shfl_xor_sync(~0u, x[i], 1);": "not every lane of its mask is here",
    "if (i % 32 != 5) __syncwarp(); y[i] = x[i];": "not every lane of its mask is here",
    "y[i + 1] = x[i];": "outside of it",
    "y[i] = x[i - 1];": "outside of it",
    "const_cast<float*>(x)[i] = 0; y[i] = 0;": "a write to x, which is an input",
    SHARED + "if (i < 40) { s.v[i] = 0; __syncthreads(); } y[i] = s.v[i % 40];": "thread 40 never reaches it",
    SHARED + "s.v[i + int(x[0]) * 0 + 1 + (i == 63) * 64] = 1; __syncthreads(); y[i] = s.v[i];": "of shared memory",
    "y[i] = *reinterpret_cast<const float*>(reinterpret_cast<const char*>(x + i) + 2);": "no multiple of it",
}


@pytest.mark.parametrize("body", FAULTS, ids=list(FAULTS.values()))
def test_fault_is_reported(tmp_path: Path, body: str) -> None:
    with pytest.raises(PtxError, match=FAULTS[body]):
        probe(tmp_path, body, X)


def test_unknown_instruction_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="does not know `brev"):
        probe(tmp_path, "y[i] = float(__brev(i));", X)


def test_text_without_a_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no \.entry"):
        parse(".version 9.0\n")
