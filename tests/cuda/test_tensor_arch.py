"""16-bit numbers, ldmatrix and mma: their wrappers of kernels/arch in the simulator, as PTX and as machine code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from test_compile_table import listing

from pycnn.backends.cuda.device import Reads, Writes
from pycnn.backends.cuda.device_sim import SimDevice, SimulationError
from pycnn.jit.sources import Sources, installed
from pycnn.testing import fragments
from pycnn.testing.fragments import (
    NUMBERS,
    WARPS,
    Experiment,
    Probe,
    ProbeSources,
    accumulation,
    depth,
    experiments,
    first_arch,
)
from pycnn.testing.ptx import PtxDevice, PtxError

PLACES = [
    *(
        pytest.param(order, id=f"sim {order}", marks=pytest.mark.simulator)
        for order in ("forward", "reverse", "random")
    ),
    *(pytest.param(arch, id=f"ptx {arch}", marks=pytest.mark.nvrtc) for arch in ("sm_75", "sm_80", "sm_90a")),
]
EXPERIMENTS = {each.what: each for each in experiments()}


def device_at(place: str, sources: Sources) -> Any:
    if place.startswith("sm_"):
        return PtxDevice(place, sources)
    return SimDevice(order=place, seed=5, sources=sources, options=("-O0",))


@cache
def probe_at(place: str) -> Probe:
    sources = ProbeSources(installed())
    return Probe(device_at(place, sources), sources)


def probe_for(place: str, what: str) -> Probe:
    """The probe where it has the wrapper; else the test is skipped."""
    probe = probe_at(place)
    if not probe.has(what):
        pytest.skip(f"from sm_{first_arch(what)} on")
    return probe


# ---------------------------------------------------------------------------------------------------------------------
# What the manual says


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_wrapper_gives_what_the_manual_says(place: str, experiment: Experiment) -> None:
    experiment.check(probe_for(place, experiment.what))


@pytest.mark.parametrize("number", NUMBERS)
def test_every_element_has_one_place_in_the_fragments(number: str) -> None:
    k = depth(number)
    each = 4 if number == "tf32" else 8
    of_a = [fragments._place_of_a(number, i) for i in range(each)]
    of_b = [fragments._place_of_b(number, i) for i in range(each // 2)]
    of_c = [fragments._place_of_c(i) for i in range(4)]
    for places, rows, columns in ((of_a, 16, k), (of_b, k, 8), (of_c, 16, 8)):
        seen = np.zeros((rows, columns), int)
        for row, column in places:
            np.add.at(seen, (row, column), 1)
        assert (seen == 1).all()


@pytest.mark.parametrize(("number", "dtype"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
def test_expected_roundings_are_those_of_numpy_types(number: str, dtype: Any) -> None:
    """The oracle of the probes against one that somebody else has written."""
    experiment = EXPERIMENTS[f"narrow {number}"]
    x = experiment.x[:, 0].view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(dtype)
    found = (experiment.expected[:, 0] & 0xFFFF).astype(np.uint16).view(dtype)
    assert np.array_equal(found.astype(np.float32), expected.astype(np.float32), equal_nan=True)
    assert np.isnan(x).sum() > 50
    wide = EXPERIMENTS[f"widen {number}"]
    numbers = wide.x[:, 0].astype(np.uint16).view(dtype).astype(np.float32)
    assert np.array_equal(wide.expected[:, 0].view(np.float32), numbers, equal_nan=True)


def swapped(words: np.ndarray, one: int, other: int) -> np.ndarray:
    result = words.copy()
    result[:, [one, other]] = words[:, [other, one]]
    return result


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (1, 2), (2, 3), (4, 5), (6, 7), (6, 8), (7, 8)])
def test_swapped_registers_show(number: str, one: int, other: int) -> None:
    """What the probes would not see they could not prove: any two registers of a fragment exchanged."""
    experiment = EXPERIMENTS[f"mma {number}"]
    wrong = Experiment(experiment.what, swapped(experiment.x, one, other), experiment.expected)
    with pytest.raises(AssertionError, match=rf"mma {number}: warp 0, lane 0, register \d is 0x.*, not 0x"):
        wrong.check(probe_at("sm_80"))


# ---------------------------------------------------------------------------------------------------------------------
# What the manual leaves open, and both emulations do alike

MODEL = {
    "rounding": "toward zero",
    "subnormal_inputs": True,
    "subnormal_sums": True,
    "overflow": "infinite",
    "nan": "0x7fc00000",
    "low_bits": None,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", NUMBERS)
def test_accumulation_is_the_model(place: str, number: str) -> None:
    probe = probe_for(place, f"mma {number}")
    whole = number != "tf32" and place != "sm_75"  # sm_75 multiplies in two halves
    expected = MODEL | {"extra_bits": 4 if whole else 3}
    if number == "float16":
        expected["overflow"] = None
    if number == "tf32":
        expected["low_bits"] = False
    assert accumulation(probe, number) == expected


def cut(exact: np.ndarray) -> np.ndarray:
    """Float64 to float32 toward zero, where both are normal: the last 29 bits go."""
    return (exact.view(np.uint64) >> np.uint64(29) << np.uint64(29)).view(np.float64).astype(np.float32)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", NUMBERS)
def test_sum_is_rounded_once_and_toward_zero(place: str, number: str) -> None:
    probe = probe_for(place, f"mma {number}")
    rng = np.random.default_rng(2)
    warps, k = 8 * WARPS, depth(number)
    # Fractions of 8 bits, which every type has; products end at 2^-12 and d at 2^-32, so a float64 holds every sum.
    a, b = (rng.integers(-255, 256, shape).astype(np.float32) / 64 for shape in ((warps, 16, k), (warps, k, 8)))
    c = (rng.choice([-1, 1], (warps, 16, 8)) * rng.uniform(2.0**-8, 1, (warps, 16, 8))).astype(np.float32)
    exact = c.astype(np.float64) + a.astype(np.float64) @ b.astype(np.float64)
    expected = cut(exact)
    between = exact != expected
    assert (between & (exact > 0)).sum() > 100
    assert (between & (exact < 0)).sum() > 100
    assert (expected != exact.astype(np.float32)).sum() > 100  # where rounding to nearest gives something else
    found = probe(f"mma {number}", fragments.fragments(number, a, b, c), 4).view(np.float32)
    if place == "sm_75":  # twice
        half = cut(c.astype(np.float64) + a[..., :8].astype(np.float64) @ b[:, :8].astype(np.float64))
        expected = cut(half.astype(np.float64) + a[..., 8:].astype(np.float64) @ b[:, 8:].astype(np.float64))
    registers = [expected[:, *fragments._place_of_c(i)] for i in range(4)]
    assert np.array_equal(found, np.stack(registers, axis=-1).reshape(-1, 4))


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes, and forms that no wrapper has

HEAD = (
    '#include "arch/ldmatrix.cuh"\n#include "arch/mma.cuh"\nnamespace pycnn { struct Tile { int n; };\n'
    "struct alignas(16) Shared { unsigned short v[32][8]; float guard[4]; };\n"
    "template <Tile T> __global__ void probe([[maybe_unused]] const float* x, float* y) {\n"
    "const int i = static_cast<int>(threadIdx.x); PYCNN_SHARED(Shared, s);\n"
    "uint32 r[4] = {};\n"
    "for (int k = 0; k < 8; ++k) s.v[i % 32][k] = static_cast<unsigned short>(8 * (i % 32) + k);\n"
    "__syncthreads();\n"
)
TAIL = "\nfor (int k = 0; k < 4; ++k) y[4 * i + k] = __int_as_float(static_cast<int>(r[k])); } }\n"


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., np.ndarray]:
    def run(place: str, body: str, x: np.ndarray | None = None, block: int = 32) -> np.ndarray:
        """The four words that each thread has in r after `body`."""
        for name in ("common.cuh", "arch/half.cuh", "arch/ldmatrix.cuh", "arch/mma.cuh"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text((installed().folder / name).read_text())
        (tmp_path / "probe.cu").write_text(f"{HEAD}{body}{TAIL}")
        (tmp_path / "instances.toml").write_text(
            '[probe]\nsource = "probe.cu"\ntile = "Tile"\narchs = "all"\n[probe.instances]\nonly = { n = 1 }\n'
        )
        sources = Sources(tmp_path)
        device = device_at(place, sources)
        x = np.arange(256, dtype=np.float32) if x is None else x
        given, y = device.alloc(x.shape, x.dtype), device.alloc((block, 4), np.float32)
        device.fill(given, x)
        kernel = device.load(sources.of("probe")["only"])
        device.launch(kernel, (1, 1, 1), (block, 1, 1), 0, [Reads("x", given), Writes("y", y)])
        return np.array(y).view(np.uint32)

    return run


MMA = "float d[4] = {}; const uint32 b[2] = {}; mma<float16>(d, r, b); r[0] = static_cast<uint32>(d[0]);"
MISTAKES = {
    "row at no multiple of 16": ("ldmatrix(r, &s.v[i][i == 5]);", "no multiple of", 32),
    "transposed row at no multiple of 16": ("ldmatrix_trans(r, &s.v[i][4]);", "no multiple of", 32),
    "row past shared memory": ("ldmatrix(r, s.v[i + (i == 31) * 5000]);", "shared memory", 32),
    # NVRTC knows better than to compute the address of what is certainly not in shared memory.
    "row in global memory": ("ldmatrix(r, x + 4 * i);", "outside shared memory|read before anything is written", 32),
    "lane missing at ldmatrix": (
        "if (i != 7) ldmatrix(r, s.v[i]);",
        r"31 of the 32 lanes|not all threads reach: thread \(7",
        32,
    ),
    "lane missing at mma": (f"if (i != 7) {{ {MMA} }}", r"31 of the 32 lanes|not all threads reach: thread \(7", 32),
    "half a warp": (MMA, "16 of the 32 lanes|not all threads reach", 48),
}


@pytest.mark.parametrize(
    "place",
    [pytest.param("forward", marks=pytest.mark.simulator), pytest.param("sm_90a", marks=pytest.mark.nvrtc)],
)
@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_reported(launch: Callable[..., np.ndarray], place: str, name: str) -> None:
    body, message, block = MISTAKES[name]
    with pytest.raises((SimulationError, PtxError), match=message):
        launch(place, body, block=block)


LOAD = (
    'const uint32 place = static_cast<uint32>(__cvta_generic_to_shared(s.v[i]));\nasm volatile("ldmatrix.sync.aligned.'
)


@pytest.mark.nvrtc
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_fewer_matrices_are_the_first_of_four(launch: Callable[..., np.ndarray], count: int, transposed: bool) -> None:
    """Addresses that are not used may be any."""
    given = LOAD.replace("s.v[i]", f"i < {8 * count} ? s.v[i] : &s.v[3][1]")
    places = ", ".join(f"%{k}" for k in range(count))
    outputs = ", ".join(f'"=r"(r[{k}])' for k in range(count))
    form = f"m8n8.x{count}{'.trans' if transposed else ''}.shared.b16"
    found = launch("sm_75", f'{given}{form} {{{places}}}, [%{count}];" : {outputs} : "r"(place));')
    whole = launch("sm_75", f"ldmatrix{'_trans' if transposed else ''}(r, s.v[i]);")
    assert np.array_equal(found[:, :count], whole[:, :count])
    assert len(np.unique(whole)) == 128
    assert (found[:, count:] == 0).all()


@pytest.mark.nvrtc
def test_short_product_of_bfloat16_is_the_first_half_of_the_long_one(launch: Callable[..., np.ndarray]) -> None:
    numbers = "a[4] = {0x3F804000u + i, 0x3FC0BF80u + 3 * i, 0, 0}, b[2] = {0x40403F80u + 5 * i, 0}"
    given = f"uint32 {numbers}; float d[4] = {{1, 2, 3, float(i)}};\n"
    short = (
        'asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};" '
        ': "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(b[0]));'
    )
    keep = "for (int k = 0; k < 4; ++k) r[k] = __float_as_int(d[k]);"
    found, whole = (launch("sm_80", f"{given}{how}\n{keep}") for how in (short, "mma<bfloat16>(d, a, b);"))
    assert np.array_equal(found, whole)
    assert len(np.unique(found)) > 100


BETWEEN = np.array([1, -1, 1.5, -1e-30, 65519.99, -65520, 3e38, 2.0**-25, -1.4e-45, 0, np.inf, np.nan], np.float32)
CUT = {
    "f16": np.array([1, -1, 1.5, -0.0, 65504, -65504, 65504, 0, -0.0, 0, np.inf, np.nan], np.float16).view(np.uint16),
    "bf16": [*(BETWEEN[:11].view(np.uint32) >> 16), 0x7FFF],
}
CUT["f16"][11] = 0x7FFF


@pytest.mark.nvrtc
@pytest.mark.parametrize("kind", CUT)
def test_conversions_toward_zero(launch: Callable[..., np.ndarray], kind: str) -> None:
    """No wrapper asks for them; a mistaken one would."""
    body = f'unsigned short v; asm("cvt.rz.{kind}.f32 %0, %1;" : "=h"(v) : "f"(x[i])); r[0] = v;'
    assert np.array_equal(launch("sm_90a", body, np.resize(BETWEEN, 32))[:12, 0], CUT[kind])


@pytest.mark.nvrtc
@pytest.mark.parametrize(("pair", "single"), [("f16x2", "float16"), ("bf16x2", "bfloat16")])
def test_two_at_a_time_are_one_and_one(launch: Callable[..., np.ndarray], pair: str, single: str) -> None:
    x = np.random.default_rng(3).standard_normal(64).astype(np.float32)
    both = f'asm("cvt.rn.{pair}.f32 %0, %1, %2;" : "=r"(r[0]) : "f"(x[i + 32]), "f"(x[i]));'
    found = launch("sm_90a", f"{both} r[1] = pack<{single}>(x[i], x[i + 32]);", x)
    assert np.array_equal(found[:, 0], found[:, 1])
    assert len(np.unique(found[:, 0])) == 32


@pytest.mark.nvrtc
def test_halves_may_begin_between_words(launch: Callable[..., np.ndarray]) -> None:
    """An array of an odd number of halves, at an odd half: what is read of it as words is where it should be."""

    class Odd(PtxDevice):
        def alloc(self, shape: tuple[int, ...], dtype: Any) -> Any:
            if dtype != np.uint16:
                return super().alloc(shape, dtype)
            room = np.zeros(shape[0] + 2, np.uint32).view(np.uint16)  # which begins at a multiple of 4
            return room[1 : 1 + shape[0]]

    x = np.arange(1, 68, dtype=np.uint16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_tensor_arch.PtxDevice", Odd)
        halves = "const unsigned short* h = reinterpret_cast<const unsigned short*>(x);\n"
        words = "r[0] = *reinterpret_cast<const uint32*>(h + 2 * i + 1); r[1] = h[2 * i + 2];"
        found = launch("sm_75", halves + words, x)
    assert np.array_equal(found[:, 0], x[1:65].copy().view(np.uint32))
    assert np.array_equal(found[:, 1], x[2:66:2])


# ---------------------------------------------------------------------------------------------------------------------
# Machine code

HOPPER = {
    "HMMA.16816.F32": 1,
    "HMMA.16816.F32.BF16": 1,
    "HMMA.1688.F32.TF32": 1,
    "LDSM.16.M88.4": 1,
    "LDSM.16.MT88.4": 1,
}
TURING = {"HMMA.1688.F32": 2, "LDSM.16.M88.4": 1, "LDSM.16.MT88.4": 1}


@pytest.mark.nvrtc
@pytest.mark.parametrize(("arch", "expected"), [("sm_90a", HOPPER), ("sm_80", HOPPER), ("sm_75", TURING)])
def test_machine_code_is_the_instructions(arch: str, expected: dict[str, int]) -> None:
    sources = ProbeSources(installed())
    words = listing(sources.of("probe")["only"], arch, sources).split()
    assert {word: words.count(word) for word in set(words) if word.startswith(("HMMA", "LDSM"))} == expected
