"""Matrix products and linear layers of the CPU engine."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_engine import ISAS

import pycnn
from pycnn.backends import cpu

pytestmark = pytest.mark.usefixtures("engine_as_found")


# (m, n, k): tails of every tile, few rows, few columns, an empty reduction or result, several blocks of each axis.
SIZES = (
    (1, 1, 1),
    (7, 5, 3),
    (8, 48, 192),
    (9, 49, 193),
    (1, 1000, 517),
    (12, 130, 70),
    (13, 130, 70),
    (300, 1, 40),
    (70, 900, 260),
    (600, 33, 410),
    (3, 4, 0),
    (3, 40, 0),
    (4, 1100, 21),
    (20, 67, 1),
    (30, 700, 2),
    (5, 64, 3),
    (33, 1025, 4),
    (0, 4, 3),
    (4, 0, 3),
)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_gemm_is_exact_on_integers(size: tuple[int, int, int], dtype: type, isa: str) -> None:
    pycnn.set_isa(isa)
    m, n, k = size
    rng = np.random.default_rng(0)
    a = rng.integers(-8, 9, (m, k))
    b = rng.integers(-8, 9, (k, n))
    for trans_a in (False, True):
        for trans_b in (False, True):
            left = (a.T if trans_a else a).astype(dtype)
            right = (b.T if trans_b else b).astype(dtype)
            got = cpu.gemm(left, right, trans_a, trans_b)
            assert got.dtype == dtype
            assert got.flags.c_contiguous
            assert np.array_equal(got, a @ b), (trans_a, trans_b)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 12, 40])
def test_linear_adds_its_bias(rows: int, isa: str) -> None:
    pycnn.set_isa(isa)
    rng = np.random.default_rng(1)
    x = rng.integers(-8, 9, (rows, 77)).astype(np.float32)
    w = rng.integers(-8, 9, (131, 77)).astype(np.float32)
    b = rng.integers(-8, 9, 131).astype(np.float32)
    assert np.array_equal(cpu.linear_fwd(x, w, b), x @ w.T + b)
    assert np.array_equal(cpu.linear_fwd(x, w, None), x @ w.T)


def test_operands_may_lie_anyhow() -> None:
    rng = np.random.default_rng(2)
    a = rng.integers(-8, 9, (40, 60)).astype(np.float32)[::-2, 3::2]
    b = rng.integers(-8, 9, (50, 29)).astype(np.float32).T
    assert np.array_equal(cpu.gemm(a, b, False, False), a @ b)


def test_thread_count_does_not_change_a_bit() -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((211, 500), dtype=np.float32)
    b = rng.standard_normal((500, 307), dtype=np.float32)
    results = []
    for threads in (1, 2, 3, 5):
        pycnn.set_num_threads(threads)
        results.append(cpu.gemm(a, b, False, False).tobytes() + cpu.linear_fwd(a[:3], b.T, None).tobytes())
    assert len(set(results)) == 1
