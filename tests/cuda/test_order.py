"""Which algorithm `auto` takes on a GPU, within which workspace, and how that is explained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn.algorithms import workspace_limit
from pycnn.backends.cuda import Host, UnavailableError, conv, order
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
    assert "of the work of the best direct or implicit kernel" in why
    assert chosen("n32c256h28w28_k256r3s3_st2pd1", operator)[0].partition("_")[0] != "winograd"
    assert chosen("n32c256h28w28_k256r1s1", operator)[0].partition("_")[0] != "winograd"


@pytest.mark.parametrize("operator", ["fprop", "dgrad"])
def test_tiles_of_5x5_filters_where_they_pay(operator: str) -> None:
    for images in (1, 128):
        alexnet = f"n{images}c64h27_k192r5_pd2"
        name, why = chosen(alexnet, operator)
        assert name == "winograd_f4x4_5x5"
        assert "of the work of the best direct or implicit kernel" in why
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
        assert "of the work of the best direct or implicit kernel" in why
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
    with pytest.raises(UnavailableError, match="conv2d_fprop in float64"):
        host._plan("fprop", shape, np.dtype("f8"), "auto")
    for number in range(conv._MOST_PLANS + 5):
        host._chosen[number,] = free
    other = host._plan("dgrad", shape, "float32", "auto")
    assert host._plan("dgrad", shape, "float32", "auto") is other
    assert len(host._chosen) == 1  # so many shapes, and all of them forgotten


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


# The rules on plans of so much work each, by name: what is taken, and words of the reason.
RULES: dict[str, tuple[str, dict[str, float], str, str]] = {
    "winograd with a fifth less work": ("", {"winograd_f2x2_3x3": 80, "direct_a": 100}, "winograd_f2x2_3x3", "0.80 of"),
    "winograd with less than that": ("", {"winograd_f2x2_3x3": 81, "im2col_implicit_a": 100}, "im2col_implicit_a", ""),
    "the best other kernel is meant": (
        "",
        {"winograd_f4x4_3x3": 75, "im2col_implicit_a": 100, "direct_a": 90},
        "im2col_implicit_a",
        "",
    ),
    "6x6 with a quarter less work": ("", {"winograd_f4x4_3x3": 40, "winograd_f6x6_3x3": 29.9}, "winograd_f6x6_3x3", ""),
    "6x6 with less than that": ("", {"winograd_f4x4_3x3": 40, "winograd_f6x6_3x3": 30.1}, "winograd_f4x4_3x3", ""),
    "6x6 of the filters": ("", {"winograd_f3x3_4x4": 40, "winograd_f3x3_6x6": 30.1}, "winograd_f3x3_4x4", ""),
    "4x4 of 5x5, a quarter less work": (
        "",
        {"winograd_f2x2_5x5": 40, "winograd_f4x4_5x5": 29.9},
        "winograd_f4x4_5x5",
        "",
    ),
    "4x4 of 5x5, less than that": ("", {"winograd_f2x2_5x5": 40, "winograd_f4x4_5x5": 30.1}, "winograd_f2x2_5x5", ""),
    "winograd alone, against the sum as it is written": (
        "n1c10h3_k10r3",
        {"winograd_f2x2_3x3": 721},
        "winograd_f2x2_3x3",
        "only family",
    ),
    "the explicit product is no measure": (
        "",
        {"winograd_f2x2_3x3": 80, "im2col_implicit_a": 100, "im2col_explicit": 60},
        "winograd_f2x2_3x3",
        "0.80 of",
    ),
    "half of the work": ("", {"direct_a": 49, "im2col_implicit_a": 100}, "direct_a", "half or less of the work"),
    "not quite half": ("", {"direct_a": 50, "im2col_implicit_a": 100}, "im2col_implicit_a", "columns never stored"),
    "no product": ("", {"direct_a": 50, "im2col_explicit": 10}, "direct_a", "no implicit product can run it"),
    "direct alone": ("", {"direct_a": 50, "direct_b": 60}, "direct_a", "direct_a's reason"),
    "explicit alone": ("", {"im2col_explicit": 5}, "im2col_explicit", "the only family that can run it"),
    "seven channels": ("n1c7h9_k8r3", {"direct_a": 500, "im2col_implicit_a": 1}, "direct_a", "7 channels a group"),
    "seven filters": ("n1c16h9_k14r3_g2", {"direct_a": 500, "im2col_implicit_a": 1}, "direct_a", "7 filters a group"),
    "four filters": ("n1c8h9_k4r3", {"direct_a": 500, "im2col_implicit_a": 1}, "direct_a", "4 filters a group"),
    "eight of both": ("n1c8h9_k8r3", {"direct_a": 500, "im2col_implicit_a": 1}, "im2col_implicit_a", ""),
    "few channels before winograd": ("n1c3h9_k8r3", {"direct_a": 500, "winograd_f2x2_3x3": 1}, "direct_a", "3 chan"),
    "one channel is not depthwise": (
        "n1c1h9_k8r3",
        {"direct_a": 500, "im2col_implicit_a": 1},
        "direct_a",
        "1 channels",
    ),
    "depthwise": ("n1c9h9_k9r3_g9", {"direct_a": 500, "im2col_implicit_a": 1}, "direct_a", "depthwise"),
    "few channels, not direct": ("n1c3h9_k8r3", {"im2col_implicit_a": 5}, "im2col_implicit_a", "columns never stored"),
    "few channels, tensor cores idle for less": (
        "n1c3h9_k8r3",
        {"direct_a": 500, "im2col_tensor_a": 499},
        "im2col_tensor_a",
        "im2col_tensor_a's reason",
    ),
    "few channels, tensor cores idle for more": (
        "n1c3h9_k8r3",
        {"direct_a": 500, "im2col_tensor_a": 501},
        "direct_a",
        "3 channels a group",
    ),
    "few channels, neither tensor cores nor direct": (
        "n1c3h9_k8r3",
        {"direct_a": 500, "im2col_tensor_a": 400, "im2col_implicit_a": 300},
        "direct_a",
        "3 channels a group",
    ),
    "depthwise, on tensor cores": ("n1c9h9_k9r3_g9", {"direct_a": 5, "im2col_tensor_a": 50}, "direct_a", "depthwise"),
    "less than on tensor cores": (
        "",
        {"direct_a": 30, "im2col_tensor_a": 40},
        "direct_a",
        "less work than on tensor cores, whose tiles idle; direct_a's reason",
    ),
    "nothing to do": ("n0c3h9_k8r3", {"im2col_implicit_a": 50, "direct_a": 5}, "direct_a", "nothing is launched"),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_at_their_borders(rule: str) -> None:
    text, costs, name, words = RULES[rule]
    plans: list[Any] = [
        SimpleNamespace(name=each, cost=cost, tier=0, why=f"{each}'s reason") for each, cost in costs.items()
    ]
    plan, why = order.take("fprop", Problem.parse(text or "n1c16h16_k16r3").shape, plans)
    assert plan.name == name
    assert words in why


def test_strict_accuracy_at_the_border_of_its_rule() -> None:
    plans: list[Any] = [
        SimpleNamespace(name=name, cost=cost, tier=0, why="")
        for name, cost in {"winograd_f2x2_3x3": 70, "winograd_f4x4_3x3": 20, "direct_a": 100}.items()
    ]
    shape = Problem.parse("n1c16h16_k16r3").shape
    assert order.take("fprop", shape, plans)[0].name == "winograd_f4x4_3x3"
    with pycnn.use_accuracy("strict"):
        plan, why = order.take("fprop", shape, plans)
    assert plan.name == "winograd_f2x2_3x3"
    assert "that strict accuracy allows" in why


def test_a_lower_tier_comes_before_less_work() -> None:
    plans: list[Any] = [
        SimpleNamespace(name=f"{tier} {cost}", tier=tier, cost=cost) for tier, cost in ((1, 1), (0, 5), (0, 4))
    ]
    assert order.least(plans).name == "0 4"


# Layers of networks, and what is taken for each pass: counts of work, and the rules, as they are.
TAKEN = {
    "n1c1h28_k6r5_pd2": ("direct_r5s5_st1_14x16_k16", "direct_depthwise_r5s5_st1", "direct_depthwise_r5s5_st1"),
    "n32c3h227_k96r11_st4": ("direct_r11s11_st4_4x32", "direct_any_narrow", "direct_r11s11_st4_2x16_c3"),
    "n1c3h224_k64r7_st2pd3": ("direct_r7s7_st2_8x32", "direct_any_narrow", "direct_r7s7_st2_2x16_c3"),
    "n32c3h224_k64r3_pd1": ("direct_r3s3_st1_8x32", "direct_r3s3_st1_8x32_k16", "direct_r3s3_st1_4x32_c4"),
    "n1c96h27_k256r5_pd2g2": ("winograd_f4x4_5x5", "winograd_f4x4_5x5", "im2col_implicit_64x64"),
    "n32c96h27_k256r5_pd2g2": ("winograd_f4x4_5x5", "winograd_f4x4_5x5", "im2col_implicit_128x128"),
    "n32c64h56_k64r3_pd1": ("winograd_f2x2_3x3", "winograd_f2x2_3x3", "im2col_implicit_64x128"),
    "n1c64h56_k64r3_pd1": ("winograd_f2x2_3x3", "winograd_f2x2_3x3", "im2col_implicit_64x64"),
    "n1c64h56_k256r1": ("im2col_implicit_64x64", "direct_1x1_64x64", "direct_r1s1_st1_1x64"),
    "n32c256h56_k64r1": ("im2col_implicit_64x128", "im2col_implicit_128x128", "im2col_implicit_64x128"),
    "n32c256h56_k128r1_st2": ("im2col_implicit_128x128", "im2col_implicit_128x128", "im2col_implicit_128x128"),
    "n32c128h56_k128r3_st2pd1": ("im2col_implicit_128x128", "im2col_implicit_128x128", "im2col_implicit_128x128"),
    "n1c512h7_k512r3_pd1": ("winograd_f4x4_3x3", "winograd_f4x4_3x3", "winograd_f3x3_4x4"),
    "n32c512h7_k512r3_pd1": ("winograd_f4x4_3x3", "winograd_f4x4_3x3", "winograd_f3x3_4x4"),
    "n32c512h14_k512r3_pd1": ("winograd_f4x4_3x3", "winograd_f4x4_3x3", "winograd_f3x3_4x4"),
    "n32c256h28_k512r3_pd1": ("winograd_f4x4_3x3", "winograd_f4x4_3x3", "winograd_f3x3_4x4"),
    "n8c16h14_k48r5_pd2": ("direct_r5s5_st1_14x16_k16", "direct_r5s5_st1_14x16_k16", "direct_r5s5_st1_4x16"),
    "n8c192h28_k16r1": ("im2col_implicit_64x64", "im2col_implicit_64x128", "direct_r1s1_st1_1x64"),
    "n8c96h28_k128r3_pd1": ("winograd_f2x2_3x3", "winograd_f4x4_3x3", "winograd_f3x3_4x4"),
    "n8c64h56_k64r3_pd1g64": ("direct_depthwise_r3s3_st1", "direct_depthwise_r3s3_st1", "direct_depthwise_r3s3_st1"),
    "n8c64h56_k128r3_st2pd1g64": (
        "direct_depthwise_r3s3_st2",
        "direct_depthwise_r3s3_st2",
        "direct_depthwise_r3s3_st2",
    ),
    "n8c32h20_k48r3_pd2dl2": ("direct_any_narrow", "direct_any_narrow", "direct_any_narrow"),
    "n8c6h14_k16r5": ("direct_r5s5_st1_14x16_k16", "direct_r5s5_st1_14x16_k16", "direct_r5s5_st1_4x16"),
    "n16c32h32_k32r3_pd1g4": ("direct_r3s3_st1_8x32_k16", "direct_r3s3_st1_8x32_k16", "winograd_f3x3_4x4"),
    "n8c5h9w9_k7r1s3_st1x2": ("direct_any_narrow", "direct_any_narrow", "direct_any_narrow"),
    "n8c16h9_k24r4_st3": ("direct_any_narrow", "direct_any_narrow", "direct_any_narrow"),
    "n32c16h12_k40r2_pd1dl3": ("direct_any_narrow", "direct_any_narrow", "direct_any_narrow"),
}


@pytest.mark.parametrize("text", TAKEN)
def test_what_is_taken_for_layers_of_networks(text: str) -> None:
    shape = Problem.parse(text).shape
    assert tuple(HOST.conv2d_choose(operator, shape, "float32")[0] for operator in PASSES) == TAKEN[text]


# Of 16 bits, in NCHW: what tensor cores compute, if only they are busy enough, is theirs.
TAKEN_IN_16_BITS = {
    "n32c3h227_k96r11_st4": ("im2col_tensor_strided_128x128", "im2col_tensor_strided_64x64"),
    "n1c3h224_k64r7_st2pd3": ("im2col_tensor_strided_64x64", "im2col_tensor_strided_64x64"),
    "n32c128h14_k128r3_pd1g32": ("im2col_tensor_strided_64x64", "im2col_tensor_strided_64x64"),
    "n1c8h7_k8r3": ("im2col_tensor_strided_64x64", "im2col_tensor_strided_64x64"),
    "n1c64h7_k64r3_pd1": ("im2col_tensor_strided_64x64", "im2col_tensor_strided_64x64"),
    "n1c1h28_k6r5_pd2": ("direct_depthwise_r5s5_st1", "direct_depthwise_r5s5_st1"),
    "n64c1h28_k32r5_pd2": ("im2col_tensor_strided_64x64", "direct_depthwise_r5s5_st1"),
    "n8c64h56_k64r3_pd1g64": ("direct_depthwise_r3s3_st1", "direct_depthwise_r3s3_st1"),
    "n8c64h56_k128r3_st2pd1g64": ("direct_depthwise_r3s3_st2", "direct_depthwise_r3s3_st2"),
    "n32c32h7_k32r7_pd3g32": ("direct_depthwise_any_narrow", "direct_depthwise_any_narrow"),
    "n1c64h8w33554432_k64r1": ("im2col_tensor_wide", "im2col_tensor_wide"),
    "n1c4h8w1073741824_k4r1_g2": ("direct_any_wide", "direct_any_wide"),  # two of 32 steps of a product
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("text", TAKEN_IN_16_BITS)
def test_what_is_taken_of_16_bits(text: str, dtype: str) -> None:
    shape = Problem.parse(text).shape
    assert tuple(HOST.conv2d_choose(operator, shape, dtype)[0] for operator in PASSES[:2]) == TAKEN_IN_16_BITS[text]


@pytest.mark.parametrize("operator", PASSES)
def test_nothing_of_16_bits_takes_more_work_than_on_tensor_cores(operator: str) -> None:
    for problem in [*problems(), *map(Problem.parse, (*TAKEN, *TAKEN_IN_16_BITS))]:
        table = {
            name: cost for name, reason, _, cost in HOST.conv2d_table(operator, problem.shape, "float16") if not reason
        }
        name, _ = HOST.conv2d_choose(operator, problem.shape, "float16")
        best = min(cost for each, cost in table.items() if each.startswith("im2col_tensor"))
        assert table[name] <= best or not problem.shape.N, problem


@pytest.mark.parametrize("operator", PASSES)
def test_channels_last_images_of_16_bits_are_read_as_they_lie(operator: str) -> None:
    for problem in problems():
        if problem.shape.N:
            name, _ = HOST.conv2d_choose(operator, problem.shape, "float16", True)
            assert name.startswith(("im2col_tensor", "direct_depthwise"))
    turing = Host(TraceDevice("sm_75"))  # whose tensor cores have no bfloat16
    shape = Problem.parse("n8c64h56_k64r3_pd1").shape
    assert turing.conv2d_choose(operator, shape, "bfloat16", True)[0] == "direct_any_narrow"


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
