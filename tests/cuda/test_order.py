"""Which algorithm `auto` takes on a GPU, within which workspace, and how that is explained."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn
from pycnn.algorithms import workspace_limit
from pycnn.backends.cuda import Host, order
from pycnn.backends.cuda.device_trace import TraceDevice
from pycnn.cli import main
from pycnn.shape import PASSES, Problem
from pycnn.testing import problems

HOST = Host(TraceDevice())


def chosen(text: str, operator: str = "fprop") -> tuple[str, str]:
    return HOST.conv2d_choose(operator, Problem.parse(text).shape, "float32")


@pytest.mark.parametrize("operator", PASSES)
def test_winograd_where_it_pays(operator: str) -> None:
    name, why = chosen("n32c256h28w28_k256r3s3_pd1", operator)
    assert name.startswith("winograd_f")
    assert "of the work of the best other kernel" in why
    assert chosen("n32c256h28w28_k256r3s3_st2pd1", operator)[0].partition("_")[0] != "winograd"
    assert chosen("n32c256h28w28_k256r1s1", operator)[0].partition("_")[0] != "winograd"


@pytest.mark.parametrize("operator", ["fprop", "dgrad"])
def test_tiles_of_5x5_filters_where_they_pay(operator: str) -> None:
    for images in (1, 128):
        alexnet = f"n{images}c64h27_k192r5_pd2"
        name, why = chosen(alexnet, operator)
        assert name == "winograd_f4x4_5x5"
        assert "of the work of the best other kernel" in why
        with pycnn.use_accuracy("strict"):
            assert not chosen(alexnet, operator)[0].startswith("winograd")
    # Tiles of 4x4 would compute 8x8 results for 5x5: little less work, at more of an error.
    assert chosen("n32c512h5_k512r5_pd2", operator)[0] == "winograd_f2x2_5x5"
    assert not chosen("n1c16h28_k32r5_pd2", operator)[0].startswith("winograd")


@pytest.mark.parametrize("operator", ["fprop", "dgrad"])
def test_filters_of_one_line_where_they_pay(operator: str) -> None:
    for window, tile in (
        ("r1s3_pd0.0.1.1", "winograd_f1x4_1x3"),
        ("r3s1_pd1.1.0.0", "winograd_f4x1_3x1"),
        ("r1s5_pd0.0.2.2", "winograd_f1x4_1x5"),
        ("r5s1_pd2.2.0.0", "winograd_f4x1_5x1"),
    ):
        layer = f"n32c384h16_k384{window}"
        name, why = chosen(layer, operator)
        assert name == tile
        assert "of the work of the best other kernel" in why
        with pycnn.use_accuracy("strict"):
            assert not chosen(layer, operator)[0].startswith("winograd")
        # Little depth to pay for the way to memory and back.
        assert not chosen(layer.replace("384", "64"), operator)[0].startswith("winograd")


@pytest.mark.parametrize("operator", PASSES)
def test_strict_accuracy_allows_no_large_tile(operator: str) -> None:
    with pycnn.use_accuracy("strict"):
        name, _ = chosen("n32c256h28w28_k256r3s3_pd1", operator)
    assert not name.startswith(("winograd_f4x4", "winograd_f6x6", "winograd_f3x3_4x4", "winograd_f3x3_6x6"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n32c3h224w224_k64r7s7_st2pd3", "3 channels a group"),
        ("n32c1h28w28_k32r3s3_pd1", "1 channels a group"),
        ("n8c64h56w56_k64r3s3_pd1g64", "depthwise"),
        ("n8c64h56w56_k4r1s1", "4 filters a group"),
    ],
)
def test_direct_where_a_product_would_idle(text: str, words: str) -> None:
    for operator in PASSES:
        name, why = chosen(text, operator)
        assert name.startswith("direct_")
        assert words in why


def test_an_empty_batch_has_a_plan() -> None:
    assert "nothing is launched" in chosen("n0c64h8w8_k64r3s3_pd1")[1]


@pytest.mark.parametrize("operator", PASSES)
def test_auto_takes_something_able_for_every_problem(operator: str) -> None:
    for problem in problems():
        name, why = HOST.conv2d_choose(operator, problem.shape, "float32")
        assert dict(HOST.conv2d_algorithms(operator, problem.shape, "float32"))[name] is None
        assert why


def test_a_workspace_limit_is_kept() -> None:
    text = "n32c256h28w28_k256r3s3_pd1"
    shape = Problem.parse(text).shape
    table = {name: workspace for name, _, workspace, _ in HOST.conv2d_table("wgrad", shape, "float32")}
    free = chosen(text, "wgrad")[0]
    assert table[free] > 0
    with pycnn.use_workspace_limit(table[free]):
        assert chosen(text, "wgrad")[0] == free
    with pycnn.use_workspace_limit(table[free] - 1):
        assert table[chosen(text, "wgrad")[0]] < table[free]
        with pytest.raises(ValueError, match=f"it needs {table[free]} bytes of workspace, and the limit is"):
            HOST._plan("wgrad", shape, "float32", free)
        reasons = {name: reason for name, reason, *_ in HOST.conv2d_table("wgrad", shape, "float32")}
        assert "the limit is" in str(reasons[free])
    assert HOST._plan("wgrad", shape, "float32", free).name == free


def test_a_plan_is_remembered_with_the_limit_and_the_accuracy_it_was_made_under() -> None:
    shape = Problem.parse("n1c512h7w7_k512r3s3_pd1").shape
    host = Host(TraceDevice())
    free = host._plan("fprop", shape, "float32", "auto")
    assert free.workspace > 0
    assert host._plan("fprop", shape, "float32", "auto") is free
    with pycnn.use_workspace_limit(free.workspace - 1):
        assert host._plan("fprop", shape, "float32", "auto").workspace < free.workspace
    with pycnn.use_accuracy("strict"):
        assert host._plan("fprop", shape, "float32", "auto").name != free.name
    assert host._plan("wgrad", shape, "float32", "auto").name != free.name


@pytest.mark.parametrize("limit", [-1, 1.5, "many"])
def test_a_limit_is_a_number_of_bytes(limit: object) -> None:
    with pytest.raises((ValueError, TypeError), match="limit must be"):
        pycnn.use_workspace_limit(limit)  # type: ignore[arg-type]
    assert workspace_limit() is None


def test_within_a_family_the_lowest_tier_and_the_least_work() -> None:
    shape = Problem.parse("n1c64h56_k64r3_pd1").shape
    plans = [plan for plan in HOST._plans("fprop", shape, np.dtype("f4")) if order.family_of(plan) == "direct"]
    able = [plan for plan in plans if plan.reason is None]
    best = order.least(able)
    assert all((best.tier, best.cost) <= (plan.tier, plan.cost) for plan in able)


def test_explain_lists_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "n32c64h56w56_k64r3s3_st1pd1"]) == 0
    out = capsys.readouterr().out
    for operator in PASSES:
        assert f"{operator}: 3,699,376,128 multiply-adds" in out
    assert "it is compiled for filter 7x7, and the problem has 3x3" in out
    assert out.count("auto takes ") == 3
    assert "MiB" in out


def test_explain_one_pass_within_a_limit_on_either_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "n32c64h56w56_k64r3s3_pd1_wgrad", "--workspace-limit", "0"]) == 0
    out = capsys.readouterr().out
    assert out.count("auto takes ") == 1
    assert "bytes of workspace, and the limit is 0" in out
    assert "auto takes none: no algorithm for wgrad of" in out
    assert main(["explain", "n1c64h56_k64r3_pd1", "--backend", "cpu", "--accuracy", "strict"]) == 0
    assert "auto takes winograd_f2x2_3x3" in capsys.readouterr().out
    assert main(["explain", "nonsense"]) == 2
