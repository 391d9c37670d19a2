"""The checkers themselves: the oracle passes every problem, and seeded bugs are caught."""

from __future__ import annotations

import types

import numpy as np
import pytest

from pycnn.backends import reference
from pycnn.shape import Problem
from pycnn.testing import check_conv2d, error_factor, every_pass, exact_operands, layers, problems, regimes, terms

EVERY = every_pass(problems())


@pytest.mark.parametrize("problem", EVERY, ids=str)
def test_reference_passes(problem: Problem) -> None:
    check_conv2d("reference", problem)


def test_channels_last_operands_reach_the_backend() -> None:
    seen = []

    def spy(x: np.ndarray, w: np.ndarray, *rest: object, **kwargs: object) -> np.ndarray:
        seen.append([a.transpose(0, 2, 3, 1).flags.c_contiguous for a in (x, w)])
        return reference.conv2d_fprop(x, w, *rest, **kwargs)  # type: ignore[arg-type]

    check_conv2d(_broken(conv2d_fprop=spy), "n2c4h5w6_k3r3s2_pd1_nhwc", "direct")
    assert [True, True] in seen
    check_conv2d("reference", "n2c4h5w6_k3r3s2_pd1_f64_nhwc_wgrad")


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_16_bits_are_the_exact_sum_rounded_once(dtype: str) -> None:
    problem = f"n2c16h5w6_k3r3s2_pd1_{dtype}"
    check_conv2d("reference", problem)

    def rounded_twice(*args: object, **kwargs: object) -> np.ndarray:
        y = reference.conv2d_fprop(*args, **kwargs)  # type: ignore[arg-type]
        return np.trunc(y.astype(np.float32) / 2).astype(y.dtype) * y.dtype.type(2)

    with pytest.raises(AssertionError, match="must be exact"):
        check_conv2d(_broken(conv2d_fprop=rounded_twice), problem, "direct")


def test_split_operands_keep_every_sum_a_float32_integer() -> None:
    for problem in every_pass(problems("plain", "groups")):
        for side in ("left", "right"):
            operands = regimes.split_operands(problem, side)
            wide = getattr(operands, side)
            assert (256 * np.abs(wide) % 2 == 1).all()
            assert 256 * np.abs(wide).max() > 2**19
            assert 256 * regimes.oracle(problem, regimes.magnitudes(operands)).max() < 2**24


@pytest.mark.parametrize("dropped", ["left", "right"])
def test_split_regime_catches_a_dropped_correction(dropped: str) -> None:
    def high(x: np.ndarray) -> np.ndarray:
        return ((x.view(np.uint32) + 0x1000) & ~np.uint32(0x1FFF)).view(np.float32)

    def without_low_part(x, w, *rest: object, **kwargs: object) -> np.ndarray:  # type: ignore[no-untyped-def]
        x, w = (high(x.copy()), w) if dropped == "left" else (x, high(w.copy()))
        return reference.conv2d_fprop(x, w, *rest)  # type: ignore[arg-type]

    with pytest.raises(AssertionError, match=f"{dropped} of 20 bits"):
        check_conv2d(_broken(conv2d_fprop=without_low_part), "n2c16h9w10_k8r3s3_pd1", "im2col_tensor_3xtf32")


def test_exact_regime_refuses_what_is_too_long() -> None:
    with pytest.raises(ValueError, match="too many"):
        exact_operands(Problem.parse("n64c1h513w513_k1r1_wgrad"))


def test_problem_lists_have_no_doubles() -> None:
    texts = [str(problem) for problem in problems()]
    assert len(set(texts)) == len(texts)
    assert all(Problem.parse(str(problem)) == problem for problem in problems() + layers())


def test_layers_can_be_limited_by_work() -> None:
    assert 0 < len(layers("vgg16", most_macs=10**9)) < len(layers("vgg16"))


def _broken(**functions: object) -> types.ModuleType:
    module = types.ModuleType("broken")
    module.__dict__.update({name: getattr(reference, name) for name in reference.__all__})
    module.__dict__.update(functions)
    return module


def _one_ulp_off(*args: object, **kwargs: object) -> np.ndarray:
    y = reference.conv2d_fprop(*args, **kwargs)  # type: ignore[arg-type]
    y.flat[-1:] = np.nextafter(y.flat[-1:], np.float32(np.inf), dtype=y.dtype)
    return y


def _last_tap_dropped(x, w, *rest: object, **kwargs: object) -> np.ndarray:  # type: ignore[no-untyped-def]
    w = w.copy()
    w[:, -1, -1, -1] = 0
    return reference.conv2d_fprop(x, w, *rest, **kwargs)  # type: ignore[arg-type]


def _modifies_input(x, *rest: object, **kwargs: object) -> np.ndarray:  # type: ignore[no-untyped-def]
    y = reference.conv2d_fprop(x, *rest, **kwargs)  # type: ignore[arg-type]
    x[0, 0, 0, 0] += 1
    return y


def _channels_last_result(*args: object, **kwargs: object) -> np.ndarray:
    y = reference.conv2d_fprop(*args, **kwargs)  # type: ignore[arg-type]
    return np.ascontiguousarray(y.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _ignores_strides(x, *rest: object, **kwargs: object) -> np.ndarray:  # type: ignore[no-untyped-def]
    x = x if x.flags.c_contiguous else x.transpose(0, 2, 3, 1).reshape(x.shape)
    return reference.conv2d_fprop(x, *rest, **kwargs)  # type: ignore[arg-type]


def _random_order() -> object:
    rng = np.random.default_rng(0)

    def conv2d_fprop(*args: object, **kwargs: object) -> np.ndarray:
        y = reference.conv2d_fprop(*args, **kwargs)  # type: ignore[arg-type]
        return y if (y == np.rint(y)).all() else y * np.float32(1 + 2**-23 * rng.integers(0, 2))

    return conv2d_fprop


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        (_one_ulp_off, "must be exact"),
        (_last_tap_dropped, "must be exact"),
        (_modifies_input, "modified"),
        (_channels_last_result, "not contiguous as it should be"),
        (_ignores_strides, "not contiguous"),
        (_random_order(), "two runs differ"),
    ],
    ids=["ulp", "tap", "input", "layout", "strides", "nondeterministic"],
)
def test_seeded_bug_is_caught(bug: object, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_conv2d(_broken(conv2d_fprop=bug), "n2c16h9w10_k8r3s3_pd1", "direct")


@pytest.mark.parametrize("algo", ["direct", "winograd_f4x4_3x3", "winograd_f6x6_3x3"])
def test_bound_catches_one_dropped_product(algo: str) -> None:
    """The float regime alone (no exact equality) finds a dropped tap, even with the widest factor."""
    broken = _broken(
        conv2d_fprop=lambda x, w, *rest, algo: _last_tap_dropped(x, w, *rest, algo="direct"),
    )
    with pytest.raises(AssertionError, match="exceeds the bound"):
        check_conv2d(broken, "n1c256h9w10_k8r3s3_pd1", algo)


def test_exact_operands_stay_in_the_regime() -> None:
    for problem in EVERY:
        for algo, limit in (("direct", 2**24), ("winograd_f2x2_3x3", 2**22 / 9), ("auto", 2**22 / 9)):
            operands = exact_operands(problem, algo)
            largest = max((float(abs(a).max()) for a in (operands.left, operands.right) if a.size), default=0)
            assert terms(problem) * largest**2 + largest < limit


def test_tiles_of_5x5_filters_are_bounded_and_not_exact() -> None:
    assert regimes.is_exact("winograd_f2x2_3x3")
    assert not regimes.is_exact("winograd_f2x2_5x5")
    assert error_factor("winograd_f2x2_5x5") < error_factor("winograd_f4x4_5x5") < error_factor("winograd")


def test_unknown_algorithm_has_no_factor() -> None:
    assert error_factor("im2col_implicit") == error_factor("im2col")
    assert error_factor("winograd_f6x6_3x3") > error_factor("winograd_f2x2_3x3")
    for line, square in (("f1x4_1x3", "f4x4_3x3"), ("f4x1_5x1", "f4x4_5x5")):
        assert not regimes.is_exact(f"winograd_{line}")
        assert error_factor(f"winograd_{line}") < error_factor(f"winograd_{square}")
    with pytest.raises(KeyError, match="fft"):
        error_factor("fft")
