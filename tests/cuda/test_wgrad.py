"""conv2d_wgrad_direct: every instance on the problem lists, in the simulator, against the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated import DEVICES, ORDERS, random_problems

from pycnn.backends import reference
from pycnn.backends.cuda import Host, direct_wgrad
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import check_bias_gradient, check_conv2d, exact_operands, layers, problems, run
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator


def plans(shape: Conv2dShape) -> dict[str, direct_wgrad.WgradPlan]:
    return {plan.name: plan for plan in direct_wgrad.plans("wgrad", shape, installed())}


def able(problem: Problem) -> list[str]:
    return [name for name, plan in plans(problem.shape).items() if plan.reason is None]


def of_wgrad(given: list[Problem]) -> list[Problem]:
    return [replace(problem, operator="wgrad") for problem in given]


EVERYTHING = [(problem, algo) for problem in of_wgrad(problems()) for algo in able(problem)]

# For each instance: two full tiles and a tail of filters and channels (where a layer has so many), tiles of pixels cut
# off at both edges, and several slices of several tiles.
TILES = {
    "direct_r1s1_st1_1x64": "n3c130h11w13_k130r1s1_wgrad",
    "direct_r1s1_st2_4x16": "n2c67h19w41_k67r1s1_st2_wgrad",
    "direct_r3s3_st1_2x32": "n2c35h7w38_k67r3s3_pd1_wgrad",
    "direct_r3s3_st1_4x16": "n2c35h11w19_k67r3s3_pd1_wgrad",
    "direct_r3s3_st1_8x8": "n3c67h9w13_k130r3s3_pd1_wgrad",
    "direct_r3s3_st1_4x32_c4": "n2c5h11w37_k67r3s3_pd1_wgrad",
    "direct_r3s3_st2_2x16": "n2c19h11w37_k67r3s3_st2pd1_wgrad",
    "direct_r5s5_st1_4x16": "n2c19h11w19_k37r5s5_pd2_wgrad",
    "direct_r7s7_st2_2x16_c3": "n2c4h11w37_k67r7s7_st2pd3_wgrad",
    "direct_r11s11_st4_2x16_c3": "n2c4h25w75_k37r11s11_st4pd2_wgrad",
    "direct_any_narrow": "n2c14h9w11_k70r3s3_st1pd1dl2x1_wgrad",
    "direct_any_wide": "n2c14h9w11_k70r3s3_st1pd1dl2x1_wgrad",
}


def test_every_instance_has_a_problem_of_several_slices() -> None:
    assert set(TILES) == set(plans(Problem.parse("n1c1h1_k1r1").shape))
    for algo, text in TILES.items():
        assert plans(Problem.parse(text).shape)[algo].slices > 1, algo


@pytest.mark.parametrize(("problem", "algo"), EVERYTHING, ids=str)
def test_problem_list(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["random"], problem, algo)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("algo", TILES)
def test_full_tiles_and_tails_in_every_order(algo: str, order: str) -> None:
    backend = DEVICES[order]
    before = len(backend.host.device.launches)
    check_conv2d(backend, TILES[algo], algo)
    ran = {instance.name for instance in backend.host.device.launches[before:]}
    assert ran == {algo.removeprefix("direct_").removeprefix("any_"), "w8"}


@pytest.mark.parametrize("algo", TILES)
def test_bias_gradient(algo: str) -> None:
    check_bias_gradient(DEVICES["random"], TILES[algo], algo)
