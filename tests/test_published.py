"""Convolution problems that oneDNN publishes for its tests, on the CPU engine: three passes, all exact.

The fast run takes a sample: three planar problems of at most 20 million multiply-adds and one of three axes of at most
4 million, drawn by a fixed seed, of every property (see `Published.property`) of every list.  All, list by list:
`pytest --slow tests/test_published.py`.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from published import check
from published.check import EXACT, PASSES, operands, prove
from published.lists import Published, parse, published, sample, text_of
from published.restate import problem as restated
from published.run import Report, look

from pycnn.shape import Problem
from pycnn.testing import conv2d_dgrad_loops, conv2d_fprop_loops, conv2d_wgrad_loops

PROBLEMS, LINES = published()
MOST_MACS = 20_000_000
SAMPLE = [
    *sample((one for one in PROBLEMS if len(one.axes) == 2), each=3, most_macs=MOST_MACS),
    *sample((one for one in PROBLEMS if len(one.axes) == 3), each=1, most_macs=MOST_MACS // 5),
]


@pytest.mark.parametrize("part", range(4))
def test_a_sample_is_exact(part: int) -> None:
    report = Report()
    for problem in SAMPLE[part::4]:
        look(problem, report)
    assert report.wrong == []
    assert not report.left_out
    assert report.right["auto"] + report.right["auto, 3-D"] == 3 * len(SAMPLE[part::4])


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_every_problem_is_exact(name: str) -> None:
    """Each problem once, with the first of its lists."""
    report = Report()
    for problem in PROBLEMS:
        if problem.lists[0] == name:
            look(problem, report)
    assert report.wrong == []
    assert all("GiB" in reason for reason in report.left_out.values())


def test_the_sample_has_every_list_and_property() -> None:
    of_lists = {(name, one.property) for one in PROBLEMS for name in one.lists if one.macs <= MOST_MACS // 5}
    assert of_lists <= {(name, one.property) for one in SAMPLE for name in one.lists}
    assert len(SAMPLE) == len(set(SAMPLE))


def test_strings_are_those_of_this_project() -> None:
    for one in PROBLEMS[::7]:
        (n, c, k, groups), axes = parse(one.text)
        assert text_of(n, c, k, groups, axes) == one.text
        if len(axes) == 2:
            problem = Problem.parse(one.text)
            assert str(problem) == one.text
            assert (problem.shape.y_shape, problem.shape.macs) == (one.y_shape, one.macs)
    assert sum(LINES.values()) == 35308
    assert all(len(one.axes) in (2, 3) for one in PROBLEMS)


@pytest.mark.parametrize(
    ("descriptor", "text"),
    [
        ('g2mb256ic96ih27oc256oh27kh5ph2n"alexnet:conv2"', "n256c96h27w27_k256r5s5_st1pd2dl1g2"),
        ("mb1_ic8ih9iw10_oc4_kh3kw2_sh2_ph1pw0_dh1dw0", "n1c8h9w10_k4r3s2_st2x1pd1x0dl2x1g1"),
        ("ic32oc13_ih13oh12kh3ph0_n", "n2c32h13w13_k13r3s3_st1pd0.1.0.1dl1g1"),  # what is missing is padded behind
        ("ic4iw15oc4kw1", "n2c4h1w15_k4r1s1_st1pd0dl1g1"),
        ("ic4id1ih9oc4kd1kh3pd0ph1", "n2c4h9w9_k4r3s3_st1pd1dl1g1"),  # a depth of one point is none
        ("ic4id5oc8kd3pd1sd2", "n2c4d5h5w5_k8t3r3s3_st2pd1dl1g1"),
        ("ic4id5ih6iw7oc8kd3kh1kw2", "n2c4d5h6w7_k8t3r1s2_st1pd0dl1g1"),
    ],
)
def test_descriptors_are_read_as_they_are_meant(descriptor: str, text: str) -> None:
    assert restated(descriptor) == text


def test_malformed_descriptors_are_refused() -> None:
    with pytest.raises(ValueError, match="'q7'"):
        restated("ic4ih5q7")
    with pytest.raises(ValueError, match="not a published problem"):
        parse("n1c1h1w1")


STRANGE = ("n2c4h7w9_k6r3s2_st2x3pd1.0.2.3dl2x1g2", "n3c3h5w4_k3r2s2_st1pd1dl1g3", "n1c2h1w8_k5r1s3_st3pd0x4dl1g1")


@pytest.mark.parametrize("text", STRANGE)
@pytest.mark.parametrize("operator", PASSES)
def test_both_proofs_accept_the_exact_sum_alone(operator: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seven loops share nothing with the check; and every single wrong element is seen."""
    one = Published(text, ())
    shape = Problem.parse(text).shape
    left, right = operands(one, operator)
    geometry = (shape.stride, shape.padding, shape.dilation, shape.groups)
    exact = {
        "fprop": lambda: conv2d_fprop_loops(left, right, None, *geometry),
        "dgrad": lambda: conv2d_dgrad_loops(left, right, shape.x_shape, *geometry),
        "wgrad": lambda: conv2d_wgrad_loops(left, right, shape.w_shape, *geometry),
    }[operator]().astype(np.float32)
    for every_element in (True, False):
        monkeypatch.setattr(check, "_every_element", lambda *_, answer=every_element: answer)
        wrong = prove(one, operator, (left, right))
        assert wrong(exact) is None
        for at in itertools.islice(np.ndindex(exact.shape), 0, None, 5):
            for value in (exact[at] + 1, np.nan, np.inf):
                spoiled = exact.copy()
                spoiled[at] = value
                assert wrong(spoiled) is not None
        assert wrong(exact[..., :-1]) is not None
        assert wrong(np.ascontiguousarray(exact[..., ::-1])) is not None


@pytest.mark.parametrize("operator", PASSES)
def test_functionals_see_errors_that_sums_would_not(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two results that changed places, and errors that cancel, in the axes that are weighed."""
    monkeypatch.setattr(check, "_every_element", lambda *_: False)
    one = Published("n4c6h5w5_k8r3s3_st1pd1dl1g1", ())
    given = operands(one, operator)
    wrong = prove(one, operator, given)
    exact = check._sums(one, operator, given).astype(np.float32)
    assert wrong(exact) is None
    assert wrong(np.ascontiguousarray(exact[:, ::-1])) is not None
    assert wrong(np.ascontiguousarray(exact[::-1])) is not None
    cancelling = exact.copy()
    cancelling[0, 0], cancelling[1, 0] = exact[0, 0] + 1, exact[1, 0] - 1
    assert wrong(cancelling) is not None


@pytest.mark.parametrize("operator", PASSES)
def test_operands_of_long_sums_are_thin(operator: str) -> None:
    one = Published("n4c600h40w40_k600r3s3_st1pd1dl1g1", ())
    for largest in (EXACT, 1000):
        left, right = operands(one, operator, largest)
        sums = check._sums(one, operator, (np.abs(left[:1]), np.abs(right))) if operator != "wgrad" else None
        if sums is not None:
            assert 0 < sums.max() <= largest
        assert np.abs(left).max() >= 1
