"""Linear layers and matrix products on tensor cores: convolutions of images of one pixel."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from simulated import DEVICES

from pycnn import use_precision
from pycnn.backends.cuda import Host, UnavailableError
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated

pytestmark = pytest.mark.simulator

KINDS = {
    "float16": (np.float16, "float32"),
    "bfloat16": (ml_dtypes.bfloat16, "float32"),
    "tf32": (np.float32, "tf32"),
    "3xtf32": (np.float32, "3xtf32"),
}
# Rows of whole chunks of 16 bytes and others, tails everywhere, more tiles of k than stages.
SIZES = [(5, 33, 70), (40, 64, 96), (130, 10, 400), (1, 1, 1)]


def whole(*shape: int, dtype: Any, seed: int) -> np.ndarray:
    """Integers that every kind multiplies exactly."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["nn", "nt", "tn", "tt"])
def test_gemm_is_the_exact_product_rounded_once(form: str, kind: str, size: tuple[int, int, int]) -> None:
    (M, N, K), (dtype, precision) = size, KINDS[kind]
    trans_a, trans_b = form[0] == "t", form[1] == "t"
    a = whole(*((K, M) if trans_a else (M, K)), dtype=dtype, seed=0)
    b = whole(*((N, K) if trans_b else (K, N)), dtype=dtype, seed=1)
    with use_precision(precision):
        y = DEVICES["random"].gemm(a, b, trans_a, trans_b)
    exact = (a.T if trans_a else a).astype(np.float64) @ (b.T if trans_b else b).astype(np.float64)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    assert np.array_equal(y, exact.astype(dtype))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_linear_layer_is_exact_and_stays_in_one_kernel(kind: str, size: tuple[int, int, int]) -> None:
    (N, outputs, inputs), (dtype, precision) = size, KINDS[kind]
    backend = DEVICES["forward"]
    x, w = whole(N, inputs, dtype=dtype, seed=0), whole(outputs, inputs, dtype=dtype, seed=1)
    b = whole(outputs, dtype=np.float32, seed=2)
    before = len(backend.host.device.launches)
    with use_precision(precision):
        y = backend.linear_fwd(x, w, b)
    launched = [each.kernel for each in backend.host.device.launches[before:]]
    assert np.array_equal(y, (x.astype(np.float64) @ w.astype(np.float64).T + b).astype(dtype))
    expected = ["split_filters", "conv2d_fprop_tensor"] if kind == "3xtf32" else ["conv2d_fprop_tensor"]
    assert [kernel for kernel in launched if kernel != "sum_slices"] == expected


def test_an_empty_sum_and_an_empty_batch() -> None:
    backend = DEVICES["forward"]
    assert backend.linear_fwd(np.ones((0, 8), np.float16), np.ones((3, 8), np.float16), None).shape == (0, 3)
    assert np.array_equal(
        backend.gemm(*(np.ones(s, np.float16) for s in ((2, 0), (0, 3))), False, False), np.zeros((2, 3))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_layer_without_inputs_or_outputs(kind: str) -> None:
    """It has a bias yet, as in float32's own arithmetic."""
    dtype, precision = KINDS[kind]
    b = np.arange(3, dtype=np.float32)
    with use_precision(precision):
        y = DEVICES["forward"].linear_fwd(np.ones((2, 0), dtype), np.ones((3, 0), dtype), b)
        none = DEVICES["forward"].linear_fwd(np.ones((2, 0), dtype), np.ones((3, 0), dtype), None)
        narrow = DEVICES["forward"].linear_fwd(np.ones((2, 5), dtype), np.ones((0, 5), dtype), None)
    assert y.dtype == none.dtype == narrow.dtype == dtype
    assert np.array_equal(y, [[0, 1, 2]] * 2)
    assert np.array_equal(none, np.zeros((2, 3)))
    assert narrow.shape == (2, 0)


def test_bfloat16_where_there_are_no_such_tensor_cores() -> None:
    backend = Simulated(Host(SimDevice("sm_75")))
    a, b = (whole(*shape, dtype=ml_dtypes.bfloat16, seed=0) for shape in ((5, 12), (7, 12)))
    exact = (a.astype(np.float64) @ b.astype(np.float64).T).astype(a.dtype)
    assert np.array_equal(backend.linear_fwd(a, b, None), exact)
    assert np.array_equal(backend.gemm(a, b, False, True), exact)
    assert np.array_equal(backend.gemm(a, np.ascontiguousarray(b.T), False, False), exact)
    assert np.array_equal(backend.gemm(np.ascontiguousarray(a.T), np.ascontiguousarray(b.T), True, False), exact)
    assert not any(each.kernel.endswith("_tensor") for each in backend.host.device.launches)


def test_float32_stays_float32_where_there_are_no_such_tensor_cores() -> None:
    backend = Simulated(Host(SimDevice("sm_75")))
    x = np.full((8, 8), 1 + 2.0**-20, np.float32)
    with use_precision("tf32"):
        y = backend.gemm(x, np.eye(8, dtype=np.float32), False, False)
    assert np.array_equal(y, x)
    assert {each.kernel for each in backend.host.device.launches} == {"sgemm"}


def test_tf32_is_used_when_it_is_asked_for() -> None:
    x = np.full((8, 8), 1 + 2.0**-20, np.float32)
    with use_precision("tf32"):
        assert np.array_equal(DEVICES["forward"].gemm(x, np.eye(8, dtype=np.float32), False, False), np.ones((8, 8)))
    assert np.array_equal(DEVICES["forward"].gemm(x, np.eye(8, dtype=np.float32), False, False), x)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(UnavailableError, match="linear_fwd in float64"):
        DEVICES["forward"].linear_fwd(np.ones((2, 3)), np.ones((2, 3)), None)
