"""The engine's elementwise functions and softmax: units in the last place, special values, every length and axis."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from cpu_engine import DTYPES, ISAS, check, close, instruction_sets

from pycnn import _cpu, ops
from pycnn.backends import cpu, reference

SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-40, 3e38, -3e38, 88.7, 88.8, -87.4, -103.9]
# Lengths around a vector and around a task of 16,384 elements.
LENGTHS = [0, 1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 65, 1000, 16383, 16384, 16385, 40001]


def sigmoid64(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1.0 + small)


# The errors vecmath.h states, in units in the last place.
FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "exp": (np.exp, 1.5),
    "log": (np.log, 1.5),
    "tanh_fwd": (np.tanh, 3.0),
    "sigmoid_fwd": (sigmoid64, 3.0),
}


def ulps(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest error in units in the last place of found's dtype; both must be infinite or NaN together."""
    with np.errstate(over="ignore"):
        rounded = expected.astype(found.dtype)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded))
    # A value within 3 ulp of the largest float may round either way.
    edge = np.abs(expected) > np.finfo(found.dtype).max * (1 - 4 * np.finfo(found.dtype).eps)
    np.testing.assert_array_equal(found[np.isinf(rounded) & ~edge], rounded[np.isinf(rounded) & ~edge])
    finite = np.isfinite(rounded) & np.isfinite(found)
    unit = np.spacing(np.abs(rounded[finite])).astype(expected.dtype)
    errors = np.abs(found[finite].astype(expected.dtype) - expected[finite]) / unit
    return float(errors.max(initial=0))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_functions_keep_their_ulps(name: str, isa: str) -> None:
    """Every 2,039th of all 2^32 floats (a prime, so that all exponents and mantissas come by)."""
    truth, limit = FUNCTIONS[name]
    x = np.arange(0, 2**32, 2039, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, np.array(SPECIAL, np.float32), np.linspace(-110, 110, 200001, dtype=np.float32)])
    _cpu.set_isa(isa)
    try:
        found = getattr(_cpu, name)(x)
    finally:
        _cpu.set_isa("auto")
    with np.errstate(all="ignore"):
        assert ulps(found, truth(x.astype(np.float64))) <= limit


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="needs a long double of 64 bits of mantissa")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_functions_keep_their_ulps(name: str) -> None:
    truth, limit = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, 100_000, dtype=np.uint64).view(np.float64)
    x = np.concatenate([bits, rng.uniform(-745.2, 710, 100_000), rng.normal(size=100_000), np.array(SPECIAL)])
    with np.errstate(all="ignore"):
        expected = truth(x.astype(np.longdouble))
        for isa in instruction_sets():
            assert ulps(getattr(_cpu, name)(x), expected) <= limit, isa


def softplus64(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# Functions of the family by what is under them: expm1, log1p, erf and the normal distribution's tail have the errors
# that vecmath.h states; a product with x or a sum adds one half.
FAMILY: dict[str, tuple[tuple[float, ...], Callable[[np.ndarray], np.ndarray], float]] = {
    "elu": ((1.0, 1.0, 1.0), lambda x: np.where(x <= 0, np.expm1(np.minimum(x, 0)), x), 3.0),
    "erf": ((0.0, 0.0, 0.0), np.vectorize(math.erf, otypes=[np.float64]), 3.0),
    "gelu": ((0.0, 0.0, 0.0), lambda x: x * np.vectorize(math.erfc)(-x / math.sqrt(2)) / 2, 8.5),
    "silu": ((0.0, 0.0, 0.0), lambda x: x * sigmoid64(x), 3.5),
    "softplus": ((1.0, np.inf, 0.0), softplus64, 3.5),
    "logsigmoid": ((0.0, 0.0, 0.0), lambda x: -softplus64(-x), 3.5),
    "mish": ((0.0, 0.0, 0.0), lambda x: x * np.tanh(softplus64(x)), 4.5),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", FAMILY)
def test_float32_family_keeps_its_ulps(name: str, isa: str) -> None:
    """Every 20,399th of all floats, and densely where the functions bend; results that are normal numbers."""
    settings, truth, limit = FAMILY[name]
    x = np.arange(0, 2**32, 20399, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x[np.isfinite(x)], np.linspace(-30, 30, 100_001, dtype=np.float32)])
    if name in ("silu", "mish"):
        x = x[x > -87]  # below, e^x is no normal number, and has fewer bits than its product with x
    with np.errstate(all="ignore"):
        expected = truth(x.astype(np.float64))
    normal = ~(np.abs(expected) < np.finfo(np.float32).tiny)
    _cpu.set_isa(isa)
    try:
        found = _cpu.activation_fwd(x, name, *settings)
    finally:
        _cpu.set_isa("auto")
    assert ulps(found[normal], expected[normal]) <= limit
    assert (np.abs(found[~normal]) <= 2 * np.finfo(np.float32).tiny).all()


@pytest.mark.parametrize("name", FAMILY)
def test_float64_family_keeps_its_ulps(name: str) -> None:
    mp = pytest.importorskip("mpmath")
    truths = {
        "elu": lambda v: mp.expm1(v) if v <= 0 else v,
        "erf": mp.erf,
        "gelu": lambda v: v * mp.erfc(-v / mp.sqrt(2)) / 2,
        "silu": lambda v: v / (1 + mp.exp(-v)),
        "softplus": lambda v: mp.log1p(mp.exp(v)),
        "logsigmoid": lambda v: -mp.log1p(mp.exp(-v)),
        "mish": lambda v: v * mp.tanh(mp.log1p(mp.exp(v))),
    }
    settings, _, limit = FAMILY[name]
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-37, 10, 400), rng.normal(size=400), 1e-5 * rng.normal(size=50)])
    with mp.workdps(40):
        exact = [truths[name](mp.mpf(float(v))) for v in x]
        for isa in instruction_sets():
            for v, y, right in zip(x, _cpu.activation_fwd(x, name, *settings), exact, strict=True):
                unit = float(np.spacing(abs(float(right))))
                assert abs(mp.mpf(float(y)) - right) <= limit * unit, (isa, v)


@pytest.mark.parametrize("dtype", DTYPES)
def test_family_at_every_length(dtype: type) -> None:
    rng = np.random.default_rng(1)
    for _ in instruction_sets():
        for length in LENGTHS:
            x, dy = rng.normal(scale=3, size=(2, length)).astype(dtype)
            (y,) = check(lambda x: cpu.activation_fwd(x, "leaky_relu", 0.25), x)
            np.testing.assert_array_equal(y, reference.activation_fwd(x, "leaky_relu", 0.25))
            (dx,) = check(lambda dy, x: cpu.activation_bwd(dy, x, "hardtanh", -1.0, 2.0), dy, x)
            np.testing.assert_array_equal(dx, reference.activation_bwd(dy, x, "hardtanh", -1.0, 2.0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_family_equals_reference(name: str, dtype: type) -> None:
    rng = np.random.default_rng(2)
    settings = (0.5, 2.0, 0.25)
    for _ in instruction_sets():
        x, dy = rng.normal(scale=3, size=(2, 1003)).astype(dtype)
        (y,) = check(lambda x: cpu.activation_fwd(x, name, *settings), x)
        # Errors as above, of numbers of size x in the product that mish's and gelu's slopes have.
        close(y, reference.activation_fwd(x.astype(np.float64), name, *settings), 24)
        (dx,) = check(lambda dy, x: cpu.activation_bwd(dy, x, name, *settings), dy, x)
        close(dx, reference.activation_bwd(dy.astype(np.float64), x.astype(np.float64), name, *settings), 48)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["relu_fwd", "tanh_fwd", "sigmoid_fwd"])
def test_forward_equals_reference_at_every_length(name: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    for _ in instruction_sets():
        for length in LENGTHS:
            x = rng.normal(scale=3, size=length).astype(dtype)
            (y,) = check(getattr(cpu, name), x)
            # relu copies; the others have at most 3 ulp, which are at most 6 roundings of a result near 1.
            close(y, getattr(reference, name)(x.astype(np.float64)), 0 if name == "relu_fwd" else 6, scale=1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["relu_bwd", "tanh_bwd", "sigmoid_bwd", "add"])
def test_two_operands_equal_reference_at_every_length(name: str, dtype: type) -> None:
    rng = np.random.default_rng(2)
    for _ in instruction_sets():
        for length in LENGTHS:
            a, b = rng.normal(size=(2, length)).astype(dtype)
            (y,) = check(getattr(cpu, name), a, b)
            # Three roundings, or one; products of two normals in a cubic term reach some ten times the largest result.
            close(y, getattr(reference, name)(a.astype(np.float64), b.astype(np.float64)), 30)


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_are_those_of_the_reference(dtype: type) -> None:
    with np.errstate(over="ignore"):
        x = np.array(SPECIAL).astype(dtype)
    for _ in instruction_sets():
        for name in ("relu_fwd", "tanh_fwd", "sigmoid_fwd"):
            np.testing.assert_allclose(getattr(cpu, name)(x), getattr(reference, name)(x), rtol=4e-7)
        for dy in (dtype(2), dtype(np.nan), dtype(np.inf)):
            np.testing.assert_array_equal(
                cpu.relu_bwd(np.full_like(x, dy), x), reference.relu_bwd(np.full_like(x, dy), x)
            )
        assert np.signbit(cpu.tanh_fwd(np.array([-0.0], dtype)))[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_in_place_are_those_of_numpy(dtype: type) -> None:
    rng = np.random.default_rng(5)
    for _ in instruction_sets():
        for length in LENGTHS:
            a, b = rng.normal(size=(2, length)).astype(dtype)
            expected, before = a + b, b.tobytes()
            cpu.add_to(a, b)
            np.testing.assert_array_equal(a, expected)
            assert b.tobytes() == before
            cpu.add_to(a, a)
            np.testing.assert_array_equal(a, 2 * expected)


def test_scalars_stay_scalars() -> None:
    assert cpu.relu_fwd(np.array(-1.0)).shape == ()
    assert cpu.add(np.array(1.0), np.array(2.0)) == 3.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1,), 0),
        ((10,), 0),
        ((3, 1), 1),
        ((8, 10), 1),
        ((5, 17), -1),
        ((2, 1000), 1),
        ((3, 5003), 1),
        ((2, 21, 9, 11), 1),
        ((2, 3, 67), 1),
        ((4, 1, 5), 1),
        ((5000, 3), 0),
        ((7, 300), 0),
        ((300, 200), 0),
        ((3, 2, 2050), 1),
        ((0, 4), 1),
        ((2, 3, 0), 1),
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_softmax_equals_reference(shape: tuple[int, ...], axis: int, log: bool, dtype: type) -> None:
    prefix = "log_softmax" if log else "softmax"
    forward, backward = f"{prefix}_fwd", f"{prefix}_bwd"
    rng = np.random.default_rng(3)
    x = rng.normal(scale=4, size=shape).astype(dtype)
    dy = rng.normal(size=shape).astype(dtype)
    length = shape[axis]
    for _ in instruction_sets():
        (y,) = check(lambda x: getattr(cpu, forward)(x, axis), x)
        expected = getattr(reference, forward)(x.astype(np.float64), axis)
        # An exponential of 2 ulp, a sum in parts (of 256 terms a lane, then of as many parts as there are), and a
        # division; log-softmax rounds twice at the size of its operands, which is that of the largest result.
        close(y, expected, 24)
        (dx,) = check(lambda dy, y: getattr(cpu, backward)(dy, y, axis), dy, y)
        expected = getattr(reference, backward)(dy.astype(np.float64), y.astype(np.float64), axis)
        # The sum of `length` normal numbers is some sqrt(length) in size, and so are its rounding errors.
        close(dx, expected, 32, scale=float(np.abs(expected).max(initial=0)) + length**0.5)


@pytest.mark.parametrize("inner", [(), (3,)])
def test_softmax_of_special_values(inner: tuple[int, ...]) -> None:
    rows = np.array(
        [
            [1e4, 0, 0],
            [-1e4, -1e4, -1e4],
            [np.nan, 0, 1],
            [0, np.nan, 1],
            [np.inf, 0, 0],
            [-np.inf, 0, 1],
            [-np.inf] * 3,
        ]
    )
    x = np.ascontiguousarray(np.broadcast_to(rows.reshape(7, 3, *(1,) * len(inner)), (7, 3, *inner)), np.float32)
    for _ in instruction_sets():
        for name in ("softmax_fwd", "log_softmax_fwd"):
            np.testing.assert_allclose(getattr(cpu, name)(x, 1), getattr(reference, name)(x, 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: _cpu.add(x, x[:1].copy()), "one shape"),
        (lambda x: _cpu.add_to(x, x[:1].copy()), "one shape"),
        (lambda x: _cpu.tanh_bwd(x, x.T.copy()), "one shape"),
        (lambda x: _cpu.activation_bwd(x, x.T.copy(), "silu", 0.0, 0.0, 0.0), "one shape"),
        (lambda x: _cpu.activation_fwd(x, "relu", 0.0, 0.0, 0.0), "no function"),
        (lambda x: _cpu.softmax_fwd(x, 2, False), "axis"),
        (lambda x: _cpu.softmax_fwd(x, -3, False), "axis"),
        (lambda x: _cpu.softmax_bwd(x, x[:1].copy(), 0, True), "one shape"),
    ],
)
def test_bad_shapes_raise(call: Callable[[np.ndarray], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.ones((2, 3), np.float32))


def test_other_dtypes_and_strides_are_refused_not_copied() -> None:
    for x in (np.ones(4, np.int32), np.ones(4, np.float16), np.ones(8, np.float32)[::2], np.ones(4, ">f4")):
        with pytest.raises(TypeError):
            _cpu.relu_fwd(x)
