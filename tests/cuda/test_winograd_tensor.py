"""Winograd convolutions whose products are split and computed on tensor cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from simulated import DEVICES, ORDERS

from pycnn import use_precision, winograd
from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.shape import Problem
from pycnn.testing import check_conv2d, every_pass, problems
from pycnn.testing.ptx import PtxDevice
from pycnn.testing.regimes import error_bound, float_operands, oracle, run

pytestmark = pytest.mark.simulator

F4, F6 = "winograd_f4x4_3x3_3xtf32", "winograd_f6x6_3x3_3xtf32"
FLOAT32 = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def _allowed() -> Iterator[None]:
    with use_precision("3xtf32"):
        yield


def of(text: str, operator: str) -> Problem:
    return replace(Problem.parse(text), operator=operator)


EVERY = [problem for problem in every_pass(problems()) if problem.operator != "wgrad" and problem.shape.N]
RUNNING = [
    pytest.param(
        problem,
        name + winograd.SPLIT,
        id=f"{problem} {name}",
        # The fast run takes the smaller tile's, where the simulator is soon through with them.
        marks=() if name == "winograd_f4x4_3x3" and problem.shape.macs < 300_000 else (pytest.mark.slow,),
    )
    for problem in EVERY
    for name in (
        "winograd_f4x4_3x3",
        "winograd_f6x6_3x3",
        "winograd_f4x4_5x5",
        "winograd_f1x4_1x3",
        "winograd_f4x1_5x1",
    )
    if winograd.refuses(name, problem.operator, problem.shape) is None
]


@pytest.mark.parametrize(("problem", "algo"), RUNNING)
def test_problem_list(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["random"], problem, algo)


# Two tiles of the product and a tail along filters and windows, more tiles of channels than stages.
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("operator", ["fprop", "dgrad"])
def test_full_tiles_and_tails_in_every_order(operator: str, order: str) -> None:
    problem = of("n2c70h37w39_k131r3s3_pd1" if operator == "fprop" else "n2c131h37w39_k70r3s3_pd1", operator)
    operands = float_operands(problem)
    y64 = oracle(problem, operands)
    y = run(DEVICES[order], problem, operands, F4)
    assert np.abs(y - y64).max() <= error_bound(problem, operands, y64, F4)


def test_it_is_as_accurate_as_float32s_own_products() -> None:
    """The root mean square error, beside that of the same transforms around float32 products."""
    problem = of("n1c64h20w20_k16r3s3_pd1", "fprop")
    operands = float_operands(problem)
    y64 = oracle(problem, operands)
    errors = [
        np.sqrt(np.mean((run(DEVICES["forward"], problem, operands, algo) - y64) ** 2))
        for algo in (F4, F4.removesuffix(winograd.SPLIT))
    ]
    # Split products leave out 3 * 2^-22 at most, the roundings of the transforms some twenty times 2^-24: within half.
    assert errors[0] <= 1.5 * errors[1]


@pytest.mark.nvrtc
@pytest.mark.parametrize("operator", ["fprop", "dgrad"])
def test_ptx(operator: str) -> None:
    problem = of("n1c9h9w10_k11r3s3_pd1", operator)
    operands = float_operands(problem)
    y64 = oracle(problem, operands)
    y = run(Simulated(Host(PtxDevice("sm_90a"))), problem, operands, F4)
    assert np.abs(y - y64).max() <= error_bound(problem, operands, y64, F4)


def test_its_launches_and_its_memory() -> None:
    backend = Simulated(Host(SimDevice()))
    problem = Problem.parse("n1c40h30w30_k36r3s3_pd1")
    plan = next(plan for plan in backend.host._plans("fprop", problem.shape, FLOAT32) if plan.name == F4)
    run(backend, problem, float_operands(problem), F4)
    assert {each.kernel for each in backend.host.device.launches} == {each.kernel for each in plan.kernels}
    assert plan.workspace == 4 * 36 * (40 * 36 * 3 + 64 * (40 + 36))


@pytest.mark.parametrize(
    ("arch", "text", "algo", "why"),
    [
        ("sm_75", "n1c8h9w9_k8r3_pd1", F4, "its products are for sm_80 and later, this is sm_75"),
        ("sm_90a", "n1c8h9w9_k8r3_st2pd1", F6, "Winograd needs stride 1"),
    ],
)
def test_refusals(arch: str, text: str, algo: str, why: str) -> None:
    problem = Problem.parse(text)
    with pytest.raises(ValueError, match=why):
        run(Simulated(Host(SimDevice(arch))), problem, float_operands(problem), algo)


def test_strict_accuracy_and_other_precisions_leave_it_out() -> None:
    host = DEVICES["forward"].host
    problem = Problem.parse("n8c256h56_k256r3_pd1")
    names = [name for name, _ in host.conv2d_algorithms("fprop", problem.shape, FLOAT32)]
    assert F4 in names
    assert host.conv2d_choose("fprop", problem.shape, FLOAT32)[0].startswith("winograd")
    for precision in ("float32", "tf32"):
        with use_precision(precision):
            assert F4 not in [name for name, _ in host.conv2d_algorithms("fprop", problem.shape, FLOAT32)]
