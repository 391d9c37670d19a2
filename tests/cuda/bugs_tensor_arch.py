"""Seeded bugs of the wrappers of 16-bit numbers, ldmatrix and mma."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, InKernel

from pycnn.backends import reference
from pycnn.jit.sources import Sources
from pycnn.testing.fragments import Experiment, Probe, ProbeSources, experiments

HALF, LOAD, MMA = "arch/half.cuh", "arch/ldmatrix.cuh", "arch/mma.cuh"


@cache
def experiment(what: str) -> Experiment:
    return next(each for each in experiments() if each.what == what)


class Probing(NamedTuple):
    """A wrapper on numbers that tell each other apart."""

    what: str
    source: str
    arch: str = "sm_90a"

    def beside(self, kernels: Sources) -> Sources:
        """The probe and the wrappers."""
        return ProbeSources(kernels)

    def results(self, backend: Any) -> list[np.ndarray]:
        """The registers or numbers that it gives."""
        given = experiment(self.what)
        if backend is reference:
            return [given.said()]
        return [given.found(Probe(backend.host.device, backend.host.sources))]


ROWS, COLUMNS = Probing("ldmatrix", LOAD), Probing("ldmatrix.trans", LOAD)
FLOAT16, BFLOAT16, TF32 = (Probing(f"mma {number}", MMA) for number in ("float16", "bfloat16", "tf32"))
TURING = Probing("mma float16", MMA, "sm_75")
NARROW, NARROW_B = Probing("narrow float16", HALF), Probing("narrow bfloat16", HALF)
NARROW_TURING, NARROW_B_TURING = (Probing(f"narrow {number}", HALF, "sm_75") for number in ("float16", "bfloat16"))
WIDEN, ROUND = Probing("widen float16", HALF), Probing("round tf32", MMA)
CASES = {
    "rows": ROWS,
    "columns": COLUMNS,
    "float16": FLOAT16,
    "float16 by halves": TURING,
    "bfloat16": BFLOAT16,
    "tf32": TF32,
    "narrow float16": NARROW,
    "narrow bfloat16": NARROW_B,
    "narrow float16 one by one": NARROW_TURING,
    "narrow bfloat16 without the instruction": NARROW_B_TURING,
    "widen float16": WIDEN,
    "round tf32": ROUND,
}

BUGS: dict[str, Bug] = {
    "registers of a exchanged": InKernel(
        MMA, '"r"(a[0]), "r"(a[1]), "r"(a[2])', '"r"(a[0]), "r"(a[2]), "r"(a[1])', FLOAT16
    ),
    "registers of b exchanged": InKernel(
        MMA,
        'bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "',
        'bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%9, %8}, "',
        BFLOAT16,
    ),
    "rows and columns of d exchanged": InKernel(
        MMA, "tf32.tf32.f32 {%0, %1, %2, %3}", "tf32.tf32.f32 {%0, %2, %1, %3}", TF32
    ),
    "d not added": InKernel(
        MMA,
        '"{%0, %1, %2, %3};"\n        : "+f"(d[0]), "+f"(d[1])',
        '"{%1, %1, %2, %3};"\n        : "+f"(d[0]), "+f"(d[1])',
        FLOAT16,
    ),
    "bfloat16 multiplied as float16": InKernel(MMA, "f32.bf16.bf16.f32", "f32.f16.f16.f32", BFLOAT16),
    "bfloat16 multiplied as float16 by the simulator": InKernel(MMA, "sim::kBfloat16", "sim::kFloat16", BFLOAT16),
    "halves of b in the wrong order": InKernel(MMA, '"r"(b[half])', '"r"(b[1 - half])', TURING),
    "halves of a in the wrong order": InKernel(
        MMA,
        '"r"(a[2 * half]), "r"(a[2 * half + 1])',
        '"r"(a[2 - 2 * half]), "r"(a[3 - 2 * half])',
        TURING,
    ),
    "one half only": InKernel(MMA, "half < 2", "half < 1", TURING),
    "not transposed": InKernel(LOAD, "m8n8.x4.trans.shared", "m8n8.x4.shared", COLUMNS),
    "not transposed by the simulator": InKernel(LOAD, "sim::ldmatrix<true>", "sim::ldmatrix<false>", COLUMNS),
    "matrices exchanged": InKernel(LOAD, "{%0, %1, %2, %3}, [%4]", "{%0, %2, %1, %3}, [%4]", ROWS),
    "row two bytes further": InKernel(LOAD, ': "r"(place)', ': "r"(place + 2)', ROWS),
    "float16 rounded toward zero": InKernel(HALF, "cvt.rn.f16.f32", "cvt.rz.f16.f32", NARROW_TURING),
    "two float16 rounded toward zero": InKernel(HALF, "cvt.rn.f16x2.f32", "cvt.rz.f16x2.f32", NARROW),
    "two bfloat16 rounded toward zero": InKernel(HALF, "cvt.rn.bf16x2.f32", "cvt.rz.bf16x2.f32", NARROW_B),
    "two float16 exchanged": InKernel(HALF, '"f"(high), "f"(low)', '"f"(low), "f"(high)', NARROW),
    "bfloat16 cut off": InKernel(HALF, "(bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16", "bits >> 16", NARROW_B),
    "ties of bfloat16 away from zero": InKernel(HALF, "0x7FFFu + (bits >> 16 & 1u)", "0x8000u", NARROW_B_TURING),
    "NaN of bfloat16 rounded": InKernel(HALF, "value != value ? 0x7FFFu : rounded", "rounded", NARROW_B_TURING),
    "halves of a word exchanged": InKernel(
        HALF,
        "return static_cast<uint32>(from_float<Type>(low)",
        "return static_cast<uint32>(from_float<Type>(high)",
        NARROW,
    ),
    "float16 widened as bfloat16": InKernel(HALF, "sim::widen_float16", "sim::widen_bfloat16", WIDEN),
    "tf32 not rounded": InKernel(MMA, "cvt.rna.tf32.f32", "mov.b32", ROUND),
    "tf32 not rounded by the simulator": InKernel(
        MMA, "return sim::round_tf32(value);", "return static_cast<uint32>(__float_as_int(value));", ROUND
    ),
}

FAST = ("halves of b in the wrong order", "not transposed")
