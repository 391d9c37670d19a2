"""Who holds what: probes of ldmatrix, mma and the conversions, and what the PTX manual says they give.

One kernel calls each wrapper of kernels/arch/{half,ldmatrix,mma}.cuh on registers that it is handed, and hands back
what came of it.  The tests run it in the simulator and in the PTX interpreter, ``python -m benchmarks.evidence`` on a
GPU; every element of a matrix is another number, so that any two of them changing places shows.

The layouts are written here once more, element by element as the manual has them, so that they are held against what
the wrappers and both emulations say.

Reference: NVIDIA, "Parallel Thread Execution ISA" 9.2, section 9.7.14.5.7, "Matrix Fragments for mma.m16n8k8", section
9.7.14.5.8, "Matrix Fragments for mma.m16n8k16 with floating point type", figures "MMA .m16n8k8 fragment layout for
matrix A with .f16 / .bf16 type" (71), "... with .tf32 type" (72) and those of B, C and D after them; section
9.7.14.5.15, "ldmatrix", with the table of who gets which part of a row.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pycnn.backends.cuda.device import Device, Reads, Writes
from pycnn.jit.sources import Sources

WARPS = 2  # of a block

_KERNEL = """
#include "arch/ldmatrix.cuh"
#include "arch/mma.cuh"

namespace pycnn {

struct ProbeTile {
    int warps;
};

template <int warps>
struct ProbeShared {
    alignas(16) uint32 rows[warps][32][4];
};

// Each thread reads its words of x and writes its words of y; `what` says which of the wrappers it calls.
template <ProbeTile T>
__global__ void __launch_bounds__(32 * T.warps) probe(const uint32* x, uint32* y, int what) {
    const int n = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    const int lane = n % 32, warp = n / 32 % T.warps;
    if (what <= 1) {  // four words of row `lane` of the warp, and which row to bring the address of
        PYCNN_SHARED(ProbeShared<T.warps>, s);
        for (int i = 0; i < 4; ++i) s.rows[warp][lane][i] = x[5 * n + i];
        __syncthreads();
        uint32 r[4];
        if (what == 0)
            ldmatrix(r, s.rows[warp][x[5 * n + 4]]);
        else
            ldmatrix_trans(r, s.rows[warp][x[5 * n + 4]]);
        for (int i = 0; i < 4; ++i) y[4 * n + i] = r[i];
    } else if (what <= 4) {  // the registers of a, b and d
        uint32 a[4], b[2];
        float d[4];
        for (int i = 0; i < 4; ++i) a[i] = x[10 * n + i];
        for (int i = 0; i < 2; ++i) b[i] = x[10 * n + 4 + i];
        for (int i = 0; i < 4; ++i) d[i] = __int_as_float(static_cast<int>(x[10 * n + 6 + i]));
        if (what == 2)
            mma<float16>(d, a, b);
        else if (what == 3)
            mma<bfloat16>(d, a, b);
        else
            mma<tf32>(d, a, b);
        for (int i = 0; i < 4; ++i) y[4 * n + i] = static_cast<uint32>(__float_as_int(d[i]));
    } else {
        const auto bits = static_cast<unsigned short>(x[n]);
        const float value = __int_as_float(static_cast<int>(x[n]));
        if (what == 5)
            y[n] = static_cast<uint32>(__float_as_int(to_float(float16{bits})));
        else if (what == 6)
            y[n] = static_cast<uint32>(__float_as_int(to_float(bfloat16{bits})));
        else if (what == 7)
            y[n] = pack<float16>(value, -value);
        else if (what == 8)
            y[n] = pack<bfloat16>(value, -value);
        else
            y[n] = tf32_bits(value);
    }
}

}  // namespace pycnn
"""

_INSTANCES = f"""
[probe]
source = "probe.cu"
tile = "ProbeTile"
archs = "all"
[probe.instances]
only = {{ warps = {WARPS} }}
"""

_WHAT: tuple[str, ...] = (
    *("ldmatrix", "ldmatrix.trans", "mma float16", "mma bfloat16", "mma tf32"),
    *("widen float16", "widen bfloat16", "narrow float16", "narrow bfloat16", "round tf32"),
)
NUMBERS = ("float16", "bfloat16", "tf32")


def first_arch(what: str) -> int:
    """The oldest arch that has a wrapper's instruction."""
    return 80 if what in ("mma bfloat16", "mma tf32", "round tf32") else 75


class ProbeSources(Sources):
    """The probe's kernel, beside the wrappers of some kernels, in a folder that goes with this object.

    Args:
        kernels: whose wrappers.
    """

    def __init__(self, kernels: Sources) -> None:
        self._room = TemporaryDirectory()
        folder = Path(self._room.name)
        for path in ("common.cuh", *(f"arch/{name}.cuh" for name in ("half", "ldmatrix", "mma"))):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text((kernels.folder / path).read_text())
        (folder / "probe.cu").write_text(_KERNEL)
        (folder / "instances.toml").write_text(_INSTANCES)
        super().__init__(folder)


class Probe:
    """The probe on a device.

    Args:
        device: one that compiles `sources`.
        sources: a `ProbeSources`.
        put: a NumPy array to one that the device's `fill` takes.
        get: the device's array to a NumPy array.
    """

    def __init__(
        self,
        device: Device,
        sources: Sources,
        put: Callable[[np.ndarray], Any] = np.asarray,
        get: Callable[[Any], np.ndarray] = np.array,
    ) -> None:
        self.device = device
        self._put, self._get = put, get
        self._instance = sources.of("probe")["only"]

    def has(self, what: str) -> bool:
        """Whether the device has the wrapper's instruction."""
        return int(self.device.arch[3:].rstrip("a")) >= first_arch(what)

    def __call__(self, what: str, x: np.ndarray, each: int) -> np.ndarray:
        """What a wrapper gives: x has a row of words for every thread, the result a row of `each`."""
        device = self.device
        given, found = device.alloc(x.shape, np.uint32), device.alloc((len(x), each), np.uint32)
        device.fill(given, self._put(np.ascontiguousarray(x)))
        device.fill(found, 0xFFFFFFFF)
        number = struct.pack("<i", _WHAT.index(what))
        grid, block = (len(x) // (32 * WARPS), 1, 1), (32 * WARPS, 1, 1)
        device.launch(device.load(self._instance), grid, block, 0, [Reads("x", given), Writes("y", found), number])
        return self._get(found)


@dataclass(frozen=True)
class Experiment:
    """Words for every thread, and what the manual says comes of them.

    Attributes:
        what: which wrapper.
        x: a row of words for every thread.
        expected: the same of the result.
        floats: the type of the floats that the result's words consist of, whose NaN are all alike; "" where they are
            numbers.
    """

    what: str
    x: np.ndarray
    expected: np.ndarray
    floats: str = ""

    def found(self, probe: Probe) -> np.ndarray:
        """What comes of it, NaN made alike."""
        return _one_nan(probe(self.what, self.x, self.expected.shape[1]), self.floats)

    def said(self) -> np.ndarray:
        """What the manual says, NaN made alike."""
        return _one_nan(self.expected, self.floats)

    def check(self, probe: Probe) -> int:
        """Compare, bit for bit; how many words that were.  Raises AssertionError naming the first that differs."""
        found, said = self.found(probe), self.said()
        differs = found != said
        if differs.any():
            thread, register = np.argwhere(differs)[0]
            warp, lane = divmod(int(thread), 32)
            there, expected = int(found[thread, register]), int(said[thread, register])
            raise AssertionError(
                f"{self.what}: warp {warp}, lane {lane}, register {register} is {there:#010x}, not {expected:#010x}; "
                f"{differs.sum()} of {differs.size} differ"
            )
        return int(self.expected.size)


def experiments() -> list[Experiment]:
    """Every wrapper on numbers that tell each other apart."""
    return [
        *(_of_ldmatrix(transposed) for transposed in (False, True)),
        *(_of_mma(number) for number in NUMBERS),
        *(_of_widening(number) for number in NUMBERS[:2]),
        *(_of_narrowing(number) for number in NUMBERS[:2]),
        _of_tf32(),
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Layouts

_LANES = np.arange(32)
_GROUP, _MEMBER = _LANES // 4, _LANES % 4  # groupID and threadID_in_group of the manual


def _place_of_a(number: str, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of element a_i of every lane's fragment."""
    if number == "tf32":
        return _GROUP + (8 if i in (1, 3) else 0), _MEMBER + (4 if i >= 2 else 0)
    return _GROUP + (0 if i < 2 or 4 <= i < 6 else 8), 2 * _MEMBER + (i & 1) + (8 if i >= 4 else 0)


def _place_of_b(number: str, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of element b_i."""
    if number == "tf32":
        return _MEMBER + (4 if i == 1 else 0), _GROUP
    return 2 * _MEMBER + (i & 1) + (8 if i >= 2 else 0), _GROUP


def _place_of_c(i: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of element c_i or d_i."""
    return _GROUP + (8 if i >= 2 else 0), 2 * _MEMBER + (i & 1)


def fragments(number: str, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The ten registers of every lane for matrices of several warps: (warps, 16, k), (warps, k, 8), (warps, 16, 8).

    Args:
        number: of which type a and b are: "float16", "bfloat16" or "tf32".
        a, b: float32, each exact in that type.
        c: float32.
    """
    words = np.empty((len(a), 32, 10), np.uint32)
    elements = [
        *(a[:, *_place_of_a(number, i)] for i in range(4 if number == "tf32" else 8)),
        *(b[:, *_place_of_b(number, i)] for i in range(2 if number == "tf32" else 4)),
    ]
    if number == "tf32":
        words[..., :6] = np.stack(elements, axis=-1).view(np.uint32)
    else:
        halves = np.stack([_exact_bits(number, each) for each in elements], axis=-1)
        words[..., :6] = halves[..., 0::2] | halves[..., 1::2] << 16
    words[..., 6:] = np.stack([c[:, *_place_of_c(i)] for i in range(4)], axis=-1).view(np.uint32)
    return words.reshape(-1, 10)


def depth(number: str) -> int:
    """The length of a product's sum."""
    return 8 if number == "tf32" else 16


def _exact_bits(number: str, value: np.ndarray) -> np.ndarray:
    """The bits of 16-bit floats that hold these values exactly."""
    if number == "float16":
        return value.astype(np.float16).view(np.uint16).astype(np.uint32)
    return value.view(np.uint32) >> 16


def _of_ldmatrix(transposed: bool) -> Experiment:
    warps = 2 * WARPS
    rng = np.random.default_rng(0)
    elements = np.arange(warps * 32 * 8, dtype=np.uint16).reshape(warps, 32, 8)
    rows = np.stack([rng.permutation(32) for _ in range(warps)])
    x = np.concatenate([elements.view(np.uint32), rows[..., None].astype(np.uint32)], axis=-1)
    # Matrix j has the rows that lanes 8*j to 8*j + 7 bring the addresses of.
    matrices = np.take_along_axis(elements, rows[..., None], axis=1).reshape(warps, 4, 8, 8)
    if transposed:
        matrices = matrices.transpose(0, 1, 3, 2)
    low, high = (matrices[:, :, _GROUP, 2 * _MEMBER + i].astype(np.uint32) for i in (0, 1))
    expected = (low | high << 16).transpose(0, 2, 1)
    return Experiment("ldmatrix.trans" if transposed else "ldmatrix", x.reshape(-1, 5), expected.reshape(-1, 4))


# Integers that each type holds; of a sum of sixteen products of them every part stays below 2^24.
_LARGEST = {"float16": 600, "bfloat16": 256, "tf32": 800}


def _of_mma(number: str) -> Experiment:
    warps, k = 2 * WARPS, depth(number)
    rng = np.random.default_rng(1)
    numbers = np.arange(-_LARGEST[number], _LARGEST[number] + 1)

    def distinct(*shape: int) -> np.ndarray:
        chosen = [rng.permutation(numbers)[: shape[0] * shape[1]].reshape(shape) for _ in range(warps)]
        return np.stack(chosen).astype(np.float32)

    a, b, c = distinct(16, k), distinct(k, 8), distinct(16, 8) * 1000
    d = (c.astype(np.int64) + a.astype(np.int64) @ b.astype(np.int64)).astype(np.float32)
    expected = np.stack([d[:, *_place_of_c(i)] for i in range(4)], axis=-1)
    return Experiment(f"mma {number}", fragments(number, a, b, c), expected.view(np.uint32).reshape(-1, 4))


# ---------------------------------------------------------------------------------------------------------------------
# Conversions


def _widened(number: str, bits: np.ndarray) -> np.ndarray:
    """The float32 words of 16-bit floats."""
    if number == "float16":
        return bits.astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    return bits.astype(np.uint32) << 16


def _one_nan(words: np.ndarray, floats: str) -> np.ndarray:
    """The floats that words consist of, by their bits, every NaN the same."""
    if not floats:
        return words
    parts: np.ndarray = np.ascontiguousarray(words).view("u4" if floats == "float32" else "u2")
    first_nan = {"float32": 0x7F800001, "float16": 0x7C01, "bfloat16": 0x7F81}[floats]
    sign = 1 << 8 * parts.itemsize - 1
    return np.where(parts & (sign - 1) >= first_nan, first_nan, parts)


def _of_widening(number: str) -> Experiment:
    every = np.arange(2**16, dtype=np.uint32).reshape(-1, 1)
    return Experiment(f"widen {number}", every, _widened(number, every), floats="float32")


def _of_narrowing(number: str) -> Experiment:
    """Every 16-bit float, the middle between it and the next larger, which goes to the even one, and its neighbours."""
    every = np.arange(2**15, dtype=np.uint32)
    infinity = {"float16": 0x7C00, "bfloat16": 0x7F80}[number]
    finite = every[:infinity]
    # The "next" after the largest is what it would be if the exponent went on.
    value = _widened(number, finite).view(np.float32).astype(np.float64)
    step = np.diff(value, append=2 * value[-1] - value[-2])
    middle = (value + step / 2).astype(np.float32).view(np.uint32)
    nearest = finite + (finite & 1)
    # The subnormal ones, the largest, and NaN that rounding as a number would carry out of the exponent.
    extremes = np.array([1, 0x007FFFFF, 0x7F7FFFFF, 0x7F800001, 0x7FFFFFFF], np.uint32)
    smallest = 0 if number == "float16" else 0x0080
    of_extremes = np.array([0, smallest, infinity, 0x7FFF, 0x7FFF], np.uint32)
    pairs = [
        (_widened(number, every), every),
        (middle, nearest),
        (middle - 1, finite),
        (middle + 1, finite + 1),
        (extremes, of_extremes),
    ]
    x = np.concatenate([given for given, _ in pairs])
    y = np.concatenate([result for _, result in pairs])
    x, y = (np.resize(words, -(-len(words) // (32 * WARPS)) * 32 * WARPS) for words in (x, y))
    expected = y | (y | 0x8000) << 16  # of x and of -x
    return Experiment(f"narrow {number}", x[:, None], expected[:, None], floats=number)


def _of_tf32() -> Experiment:
    """Every sign and exponent with fractions about the ties, among them those whose rounding carries."""
    signs_and_exponents = np.arange(512, dtype=np.uint32) << 23
    kept = np.array([0, 1, 0x155, 0x3FE, 0x3FF], np.uint32) << 13
    rest = np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF], np.uint32)
    x = (signs_and_exponents[:, None, None] | kept[:, None] | rest).reshape(-1, 1)
    remainder = x & 0x1FFF
    expected = x - remainder + np.where(remainder >= 0x1000, 0x2000, 0).astype(np.uint32)
    expected = np.where(np.isnan(x.view(np.float32)), 0x7FFFFFFF, expected).astype(np.uint32)
    return Experiment("round tf32", x, expected, floats="float32")


# ---------------------------------------------------------------------------------------------------------------------
# What the manual leaves open


def accumulation(probe: Probe, number: str) -> dict[str, Any]:
    """How mma adds up, which the manual does not say: to be written down, not to be relied on.

    Returns:
        rounding: of 1 + 3 * 2^-24 and its negative: "toward zero", "to nearest", or "no bit below float32's" where the
            parts were cut off before they were added.
        extra_bits: the most j for which 2^j products of 2^-(23+j), each below the last bit of 1, make up that bit.
        subnormal_inputs, subnormal_sums: whether they count.
        overflow: what becomes of the largest float32 and a unit of its last place; None for float16, which has none.
        nan: the bits of a NaN.
        low_bits: whether the 13 bits that tf32 does not have count; None for the others.

    Reference: Fasi, Higham, Mikaitis & Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021, section 3.
    """
    k = depth(number)
    ulp = 2.0**-23

    def total(c: float, products: list[tuple[float, float]]) -> float:
        """One sum, in the upper left corner."""
        a, b, start = (np.zeros((WARPS, *shape), np.float32) for shape in ((16, k), (k, 8), (16, 8)))
        start[:, 0, 0] = c
        for i, (left, right) in enumerate(products):
            a[:, 0, i], b[:, i, 0] = left, right
        return float(probe(f"mma {number}", fragments(number, a, b, start), 4).view(np.float32)[0, 0])

    halves = [(2.0**-12, 2.0**-12)] * 3  # of a unit in the last place of 1
    rounding = {1 + ulp: "toward zero", 1 + 2 * ulp: "to nearest", 1.0: "no bit below float32's"}
    up, down = total(1, halves), -total(-1, [(-x, y) for x, y in halves])
    carried = [j for j in range(1, k.bit_length()) if total(1, [(2.0**-12, 2.0 ** -(11 + j))] * 2**j) == 1 + ulp]
    subnormal = 2.0**-24 if number == "float16" else 2.0**-130
    largest = float(np.finfo(np.float32).max)
    whole = total(largest, [(2.0**52, 2.0**52)]) if number != "float16" else None
    low = float(np.uint32(0x3F801FFF).view(np.float32))
    return {
        "rounding": rounding.get(up, up.hex()) if up == down else f"{up.hex()} and {(-down).hex()}",
        "extra_bits": max(carried, default=0),
        "subnormal_inputs": total(0, [(subnormal, 1)]) == subnormal,
        "subnormal_sums": total(2.0**-140, []) == 2.0**-140,
        "overflow": whole and {largest: "largest", np.inf: "infinite"}.get(whole, whole.hex()),
        "nan": f"{np.float32(total(float('nan'), [])).view(np.uint32):#010x}",
        "low_bits": total(0, [(low, 1)]) != 1 if number == "tf32" else None,
    }
