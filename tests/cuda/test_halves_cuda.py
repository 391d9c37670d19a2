"""Every kernel that is no product or convolution in float16 and bfloat16, in the simulator and the PTX interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, ORDERS

from pycnn.testing import (
    ADAPTIVE_POOLS,
    check_adaptive_pool2d,
    check_operator,
    check_pool2d,
    half_dtypes,
    operators,
    pools,
    random_pools,
)

pytestmark = pytest.mark.simulator

HALVES = half_dtypes()
PRODUCTS = ("gemm", "linear_fwd")
CASES = [case for case in operators() if case.function not in (*PRODUCTS, "philox_uint32")]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operators_are_the_oracles_rounded_once(case: Any, dtype: np.dtype, order: str) -> None:
    check_operator(DEVICES[order], case, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", pools() + random_pools(10), ids=str)
def test_pooling_is_the_oracles_rounded_once(shape: Any, dtype: np.dtype) -> None:
    check_pool2d(DEVICES["random"], shape, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("x_shape", "out"), ADAPTIVE_POOLS, ids=str)
def test_adaptive_pooling_is_the_oracles_rounded_once(x_shape: Any, out: Any, dtype: np.dtype) -> None:
    check_adaptive_pool2d(DEVICES["random"], x_shape, out, dtype)
