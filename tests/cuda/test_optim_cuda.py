"""kernels/optimizer.cu in the simulator and the PTX interpreter, against the optimisers of pycnn.optim."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from simulated import ORDERS, Ends, view_off_by_one

import pycnn
from pycnn import optim
from pycnn.backends.cuda import Host, UnavailableError
from pycnn.backends.cuda.device import Device, Pointers, Reads, Writes
from pycnn.backends.cuda.device_sim import SimDevice, SimulationError
from pycnn.backends.cuda.optim import ARRAYS, adam_settings, sgd_settings
from pycnn.backends.sim import Simulated
from pycnn.testing import check_optimisers
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

HAS_BFLOAT16 = importlib.util.find_spec("ml_dtypes") is not None

# Scalars, tails, several chunks, an empty one in the middle.
SHAPES: list[tuple[int, ...]] = [(), (7,), (3, 0), (64, 3, 3, 3), (5, 1001), (4096,), (1,)]


def arrays(seed: int, shapes: list[tuple[int, ...]] | None = None) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in (SHAPES if shapes is None else shapes)]


def onto(device: Device, given: Any) -> Any:
    if isinstance(given, list):
        return [onto(device, one) for one in given]
    array = device.alloc(np.shape(given), np.asarray(given).dtype)
    device.fill(array, given)
    return array


def settings_on(device: Device, values: tuple[float, ...]) -> Any:
    return onto(device, np.array(values, np.float32))


def trained(kind: type[optim.Optimizer], steps: int, options: dict[str, Any]) -> list[np.ndarray]:
    """The parameters after so many steps of pycnn.optim on the CPU."""
    params = [pycnn.Tensor(array, requires_grad=True) for array in arrays(0)]
    optimizer = kind(params, **options)
    for step in range(steps):
        for param, grad in zip(params, arrays(100 + step), strict=True):
            param.grad = pycnn.Tensor(grad)
        optimizer.step()
    return [param.data for param in params]


SGD = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.3},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 1e-2},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2},
]


def sgd(device: Device, steps: int, lr: float, nesterov: bool = False, **options: float) -> list[np.ndarray]:
    host = Host(device)
    params, momentum = onto(device, arrays(0)), options.get("momentum", 0.0)
    buffers = [device.alloc(param.shape, np.float32) for param in params] if momentum else None
    rest = (momentum, options.get("dampening", 0.0), options.get("weight_decay", 0.0))
    settings = settings_on(device, sgd_settings(lr, *rest))
    for step in range(steps):
        host.sgd_step(params, onto(device, arrays(100 + step)), buffers, settings, nesterov, first=step == 0)
    return [np.array(param) for param in params]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("options", SGD, ids=str)
def test_sgd_is_that_of_the_cpu_bit_for_bit(options: dict[str, Any], order: str) -> None:
    for found, expected in zip(
        sgd(SimDevice(order=order, seed=5), 3, **options), trained(optim.SGD, 3, options), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.nvrtc
@pytest.mark.parametrize("options", SGD[3:], ids=str)
def test_sgd_in_ptx_is_that_of_the_cpu_bit_for_bit(options: dict[str, Any]) -> None:
    for found, expected in zip(sgd(PtxDevice(), 2, **options), trained(optim.SGD, 2, options), strict=True):
        np.testing.assert_array_equal(found, expected)


ADAM: list[tuple[type[optim.Adam], dict[str, Any]]] = [
    (optim.Adam, {"lr": 0.1}),
    (optim.Adam, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (optim.Adam, {"lr": 0.01, "betas": (0.0, 0.0)}),
    (optim.AdamW, {"lr": 0.01, "betas": (0.9, 0.9999), "weight_decay": 0.1}),
]


def adam(device: Device, steps: int, decoupled: bool, options: dict[str, Any]) -> list[np.ndarray]:
    host = Host(device)
    params = onto(device, arrays(0))
    moments = [[onto(device, np.zeros(shape, np.float32)) for shape in SHAPES] for _ in range(2)]
    rest = (options.get("betas", (0.9, 0.999)), options.get("eps", 1e-8), options.get("weight_decay", 0.0))
    settings = settings_on(device, adam_settings(options["lr"], *rest))
    step = onto(device, np.array(0, np.int64))
    for number in range(steps):
        host.advance(step, 1)
        host.adam_step(params, onto(device, arrays(100 + number)), *moments, settings, step, decoupled)
    return [np.array(param) for param in params]


def adam_is_close(found: list[np.ndarray], steps: int, kind: type[optim.Adam], options: dict[str, Any]) -> None:
    # The CPU takes 1 - b^t in double and rounds once; here log1p, a product and expm1 make some 4 roundings of it, in
    # the step size and, halved by the root, in the spread; so each step of at most some lr is off by 8 roundings, and
    # the parameters, of size 4, by one more each.
    slack = steps * 2.0**-24 * (8 * options["lr"] * 10 + 4)
    for one, expected in zip(found, trained(kind, steps, options), strict=True):
        np.testing.assert_allclose(one, expected, rtol=0, atol=slack)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("kind", "options"), ADAM, ids=str)
def test_adam(kind: type[optim.Adam], options: dict[str, Any], order: str) -> None:
    found = adam(SimDevice(order=order, seed=5), 4, kind is optim.AdamW, options)
    adam_is_close(found, 4, kind, options)


@pytest.mark.nvrtc
@pytest.mark.parametrize(("kind", "options"), ADAM[1:], ids=str)
def test_adam_in_ptx(kind: type[optim.Adam], options: dict[str, Any]) -> None:
    adam_is_close(adam(PtxDevice(), 2, kind is optim.AdamW, options), 2, kind, options)


@pytest.mark.parametrize("t", [1, 2, 10, 1000, 10**6, 2**40])
@pytest.mark.parametrize("b2", [0.5, 0.999, 0.9999])
def test_adams_corrections_keep_their_digits(t: int, b2: float) -> None:
    """From b2 = 0.999 in float32 alone, 1 - b2^t would be wrong in the fifth digit."""
    device = SimDevice()
    param, grad, m, v = (onto(device, [np.array([x], np.float32)]) for x in (0.0, 1.0, 0.0, 0.0))
    settings = settings_on(device, adam_settings(1.0, (0.0, b2), 0.0, 0.0))
    Host(device).adam_step(param, grad, m, v, settings, onto(device, np.array(t, np.int64)), False)
    expected = -np.sqrt(-np.expm1(t * np.log1p(-(1 - b2))) / (1 - b2))  # g / sqrt((1 - b2) g^2 / (1 - b2^t))
    np.testing.assert_allclose(param[0], expected, rtol=8 * 2.0**-24)


def test_a_learning_rate_written_to_the_device_is_taken() -> None:
    device = SimDevice()
    host = Host(device)
    params, grads = onto(device, [np.ones(3, np.float32)]), onto(device, [np.ones(3, np.float32)])
    settings = settings_on(device, sgd_settings(0.5, 0.0, 0.0, 0.0))
    host.sgd_step(params, grads, None, settings, False, False)
    settings[0] = 0.25
    host.sgd_step(params, grads, None, settings, False, False)
    assert params[0].tolist() == [0.25] * 3


def test_lists_longer_than_a_launch() -> None:
    shapes: list[tuple[int, ...]] = [(i % 7,) for i in range(3 * ARRAYS)]
    device = SimDevice()
    host = Host(device)
    values, slopes = arrays(1, shapes), arrays(2, shapes)
    params, grads = onto(device, values), onto(device, slopes)
    settings = settings_on(device, sgd_settings(0.5, 0.0, 0.0, 0.0))
    host.sgd_step(params, grads, None, settings, False, False)
    full = sum(size > 0 for (size,) in shapes)
    assert len(device.launches) == -(-full // ARRAYS)
    for param, value, slope in zip(params, values, slopes, strict=True):
        np.testing.assert_array_equal(param, value - np.float32(0.5) * slope)
    expected = np.sqrt(sum(float(np.vdot(slope, slope)) for slope in slopes))
    np.testing.assert_allclose(host.gradient_norm(grads), expected, rtol=1e-6)


def test_arrays_that_start_between_vectors() -> None:
    device = SimDevice()
    value, slope = arrays(3, [(4096,), (4096,)])
    settings = settings_on(device, sgd_settings(0.5, 0.9, 0.0, 0.0))
    params, buffers = [view_off_by_one(device, value)], [view_off_by_one(device, value)]
    Host(device).sgd_step(params, onto(device, [slope]), buffers, settings, False, True)
    np.testing.assert_array_equal(params[0], value - np.float32(0.5) * slope)
    np.testing.assert_array_equal(buffers[0], slope)


@pytest.mark.parametrize("order", ORDERS)
def test_norm_and_clipping(order: str) -> None:
    device = SimDevice(order=order, seed=2)
    host = Host(device)
    slopes = [np.random.default_rng(i).integers(-9, 10, shape).astype(np.float32) for i, shape in enumerate(SHAPES)]
    grads = onto(device, slopes)
    norm = host.gradient_norm(grads)
    squares = sum(int((slope.astype(np.int64) ** 2).sum()) for slope in slopes)
    assert norm == np.sqrt(np.float32(squares))  # integers below 2^24: exact before the root
    host.clip_gradients(grads, norm, 2.0 * float(norm))
    for grad, slope in zip(grads, slopes, strict=True):
        np.testing.assert_array_equal(grad, slope)
    host.clip_gradients(grads, norm, 1.0)
    tensors = [pycnn.Tensor(np.zeros(shape, np.float32), requires_grad=True) for shape in SHAPES]
    for tensor, slope in zip(tensors, slopes, strict=True):
        tensor.grad = pycnn.Tensor(slope)
    optim.clip_grad_norm_(tensors, 1.0)
    for grad, tensor in zip(grads, tensors, strict=True):
        np.testing.assert_allclose(grad, tensor.grad.data, rtol=4 * 2.0**-24)  # the factor's roundings


@pytest.mark.nvrtc
def test_norm_and_clipping_in_ptx() -> None:
    device = PtxDevice()
    host = Host(device)
    grads = onto(device, [np.full((3000,), 2, np.float32), np.full((4,), -10, np.float32)])
    norm = host.gradient_norm(grads)
    np.testing.assert_allclose(norm, 12400**0.5, rtol=2.0**-23)
    host.clip_gradients(grads, norm, float(norm) / 2)
    np.testing.assert_allclose(grads[0], 1.0, rtol=4 * 2.0**-24)


def test_a_nan_in_a_gradient_is_in_the_norm_and_then_everywhere() -> None:
    device = SimDevice()
    host = Host(device)
    grads = onto(device, [np.array([1, np.nan], np.float32), np.ones(3, np.float32)])
    norm = host.gradient_norm(grads)
    assert np.isnan(norm)
    host.clip_gradients(grads, norm, 1.0)
    assert all(np.isnan(grad).all() for grad in grads)


def test_what_a_gpu_is_held_to_holds_here() -> None:
    assert check_optimisers(Simulated(Host(SimDevice()))) == 7


def test_no_arrays_at_all() -> None:
    device = SimDevice()
    host = Host(device)
    assert host.gradient_norm([]) == 0
    launched = len(device.launches)
    host.sgd_step([], [], None, settings_on(device, sgd_settings(1, 0, 0, 0)), False, False)
    host.clip_gradients(onto(device, [np.ones((0,), np.float32)]), onto(device, np.float32(1)), 1.0)
    assert len(device.launches) == launched


def test_past_two_to_the_31_elements() -> None:
    device = Ends()
    host = Host(device)
    size = 2**31 + 10
    param, grad = device.alloc((size,), np.float32), device.alloc((size,), np.float32)
    param[:2], param[-2:], grad[:2], grad[-2:] = 1, 2, 3, 4
    settings = settings_on(device, sgd_settings(0.5, 0.0, 0.0, 0.0))
    host.sgd_step([param], [grad], None, settings, False, False)
    assert (param[:2].tolist(), param[-2:].tolist()) == ([-0.5, -0.5], [0, 0])
    host.clip_gradients([grad], onto(device, np.array(1.0 - 1e-6, np.float32)), 0.5)
    assert (grad[:2].tolist(), grad[-2:].tolist()) == ([1.5, 1.5], [2, 2])


def scaled(device: Device, found: float, scale: float = 1024.0) -> list[np.ndarray]:
    """SGD and Adam with gradients that are multiplied by `scale`: parameters, buffers and moments, then the count."""
    host = Host(device)
    factor, flag = onto(device, np.float32(scale)), onto(device, np.float32(found))
    params, buffers = onto(device, arrays(0)), onto(device, arrays(1))
    grads = onto(device, [grad * np.float32(scale) for grad in arrays(2)])
    rule = settings_on(device, sgd_settings(0.1, 0.9, 0.3, 1e-2))
    host.sgd_step(params, grads, buffers, rule, False, False, factor, flag)
    others, moments = onto(device, arrays(0)), [onto(device, [abs(one) for one in arrays(i)]) for i in (3, 4)]
    step, rule = onto(device, np.array(4, np.int64)), settings_on(device, adam_settings(0.1, (0.9, 0.99), 1e-8, 0.1))
    host.count_step(step, flag)
    host.adam_step(others, grads, *moments, rule, step, True, factor, flag)
    return [np.array(one) for one in (*params, *buffers, *others, *moments[0], *moments[1], step)]


@pytest.mark.parametrize("order", ORDERS)
def test_a_scale_of_two_changes_no_bit(order: str) -> None:
    plain = scaled(SimDevice(order=order, seed=3), 0.0, 1.0)
    for one, expected in zip(scaled(SimDevice(order=order, seed=3), 0.0), plain, strict=True):
        np.testing.assert_array_equal(one, expected)
    assert plain[-1] == 5


@pytest.mark.parametrize("order", ORDERS)
def test_what_was_found_leaves_all_as_it_is(order: str) -> None:
    found = scaled(SimDevice(order=order, seed=3), 1.0)
    expected = [*arrays(0), *arrays(1), *arrays(0), *(abs(one) for one in (*arrays(3), *arrays(4))), np.array(4)]
    for one, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, right)


@pytest.mark.nvrtc
def test_scaled_steps_in_ptx() -> None:
    for found in (0.0, 1.0):
        for one, expected in zip(scaled(PtxDevice(), found), scaled(SimDevice(), found), strict=True):
            # Adam's corrections go through other logarithms in the interpreter.
            np.testing.assert_allclose(one, expected, rtol=2.0**-21, atol=0)


# An array, an element of it and a number: multiplied by two, 3e38 is too large, and 1 is not.
PLACED = [(0, 0, np.inf), (3, 1727, np.nan), (4, 5004, -np.inf), (6, 0, np.nan), (3, 1, 3e38), (3, 1, 1.0)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("write", [False, True])
def test_gradients_that_are_not_finite_are_found(write: bool, order: str) -> None:
    for place, element, value in PLACED:
        device = SimDevice(order=order, seed=4)
        slopes = arrays(5)
        slopes[place].reshape(-1)[element] = value
        grads, found = onto(device, slopes), onto(device, np.float32(0))
        Host(device).unscale_gradients(grads, onto(device, np.float32(0.5)), found, write)
        assert found == (value != 1.0)
        with np.errstate(over="ignore"):
            for grad, slope in zip(grads, slopes, strict=True):
                np.testing.assert_array_equal(grad, slope * np.float32(2) if write else slope)


def test_what_was_found_before_stays_found() -> None:
    device = SimDevice()
    found = onto(device, np.float32(1))
    Host(device).unscale_gradients(onto(device, arrays(0)), onto(device, np.float32(8)), found, False)
    assert found == 1
    many = [np.zeros(2, np.float32) for _ in range(3 * ARRAYS)]
    many[-1][1] = np.nan  # in the last of three launches
    found = onto(device, np.float32(0))
    Host(device).unscale_gradients(onto(device, many), onto(device, np.float32(8)), found, True)
    assert found == 1


@pytest.mark.parametrize("rule", [(2.0, 0.5, 3), (1.7, 0.3, 1), (2.0, 0.5, 0)], ids=str)
def test_the_next_scale_is_that_of_the_host(rule: tuple[float, float, int]) -> None:
    growth, backoff, interval = rule
    scaler = pycnn.amp.GradScaler(3.0, growth, backoff, interval or None)
    device = SimDevice()
    scale, steady = onto(device, np.float32(3)), onto(device, np.array(0, np.int64))
    rng = np.random.default_rng(6)
    for _ in range(40):
        flags = [np.array(flag, np.float32) for flag in rng.random(3) < 0.1]
        founds = onto(device, flags)
        Host(device).next_scale(founds, scale, steady, growth, backoff, interval)
        scaler._next_scale(flags)
        state = scaler.state_dict()
        assert (float(scale), int(steady)) == (state["scale"], state["_growth_tracker"])
        assert [float(found) for found in founds] == [0, 0, 0]


def test_a_scale_does_not_grow_past_float32() -> None:
    device = SimDevice()
    scale, steady = onto(device, np.float32(2.0**127)), onto(device, np.array(6, np.int64))
    Host(device).next_scale([onto(device, np.float32(0))], scale, steady, 2.0, 0.5, 7)
    assert (scale, steady) == (np.float32(2.0**127), 0)


@pytest.mark.nvrtc
def test_the_scale_in_ptx() -> None:
    device = PtxDevice()
    host = Host(device)
    slopes = [np.full(3000, 6, np.float32), np.array([1, 2, np.inf], np.float32)]
    scale, steady = onto(device, np.float32(3)), onto(device, np.array(1, np.int64))
    for chosen, expected in (
        (slopes[:1], (np.float32(3 * 1.7), 0)),
        (slopes, (np.float32(float(np.float32(3 * 1.7)) * 0.3), 0)),
    ):
        grads, found = onto(device, chosen), onto(device, np.float32(0))
        host.unscale_gradients(grads, scale, found, True)
        np.testing.assert_array_equal(grads[0], slopes[0] * (np.float32(1) / np.float32(scale)))
        assert found == len(chosen) - 1
        host.next_scale([found], scale, steady, 1.7, 0.3, 2)
        assert (scale, steady) == expected
        assert found == 0


HALVES = ["float16", pytest.param("bfloat16", marks=pytest.mark.skipif(not HAS_BFLOAT16, reason="no ml_dtypes"))]


def copies(name: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Parameters of 16 bits and their copies, of which every seventh element was not rounded to its parameter."""
    kept = [np.asarray(10 * array) for array in arrays(7)]
    params = [np.asarray(array.astype(name)) for array in kept]
    for array in params:
        array.reshape(-1)[::7] = 320.0  # none is near it
    return params, kept


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", HALVES)
def test_master_copies(name: str, order: str) -> None:
    device = SimDevice(order=order, seed=8)
    host, (params, kept) = Host(device), copies(name)
    held, masters = onto(device, params), onto(device, kept)
    host.take_over(masters, held)
    for found, array, param in zip(masters, kept, params, strict=True):
        expected = array.copy()
        expected.reshape(-1)[::7] = 320.0
        np.testing.assert_array_equal(found, expected)
        assert array.size < 100 or not np.array_equal(found, param.astype(np.float32))  # more than 16 bits of it
    stepped = [np.asarray(array + np.float32(0.01)) for array in masters]
    host.round_all(held, onto(device, stepped))
    wides = onto(device, [np.zeros_like(array) for array in stepped])
    host.widen_all(wides, held)
    for param, wide, array in zip(held, wides, stepped, strict=True):
        assert param.dtype == np.dtype(name)
        np.testing.assert_array_equal(np.asarray(param).view(np.uint16), np.asarray(array.astype(name)).view(np.uint16))
        np.testing.assert_array_equal(wide, array.astype(name).astype(np.float32))


@pytest.mark.nvrtc
@pytest.mark.parametrize("name", HALVES)
def test_master_copies_in_ptx(name: str) -> None:
    results = []
    for device in (PtxDevice(), SimDevice()):
        params, kept = copies(name)
        held, masters = onto(device, params), onto(device, kept)
        Host(device).take_over(masters, held)
        wides = onto(device, [np.zeros_like(array) for array in kept])
        Host(device).widen_all(wides, held)
        Host(device).round_all(held, onto(device, [np.asarray(1.01 * array).astype(np.float32) for array in kept]))
        results.append([np.asarray(one, np.float32) for one in (*masters, *wides, *held)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="no ml_dtypes")
def test_master_copies_of_both_kinds_and_more_than_a_launch_takes() -> None:
    device = SimDevice()
    shapes: list[tuple[int, ...]] = [(1 + i % 40,) for i in range(3 * ARRAYS)]
    kept = arrays(9, shapes)
    params = [array.astype(("float16", "bfloat16")[i % 3 == 0]) for i, array in enumerate(kept)]
    held = onto(device, [np.zeros_like(param) for param in params])
    Host(device).round_all(held, onto(device, kept))
    assert len(device.launches) == 3  # of 128 and of 64 arrays
    for found, param in zip(held, params, strict=True):
        assert found.dtype == param.dtype
        np.testing.assert_array_equal(found, param)


def test_copies_of_what_is_no_number_or_too_large() -> None:
    device = SimDevice()
    param = onto(device, [np.array([np.nan, np.inf, -np.inf, 1, -0.0], np.float16)])
    kept = onto(device, [np.array([np.nan, 1e6, 1e6, np.nan, 0.0], np.float32)])
    Host(device).take_over(kept, param)
    np.testing.assert_array_equal(kept[0], [np.nan, 1e6, -np.inf, 1, 0.0])  # 1e6 rounds to infinity: nobody wrote it
    halves = view_off_by_one(device, (np.arange(5000) % 1000).astype(np.float16))
    wide = device.alloc((5000,), np.float32)
    Host(device).widen_all([wide], [halves])
    np.testing.assert_array_equal(wide, np.arange(5000) % 1000)


def refused() -> list[Any]:
    device = SimDevice()
    one, two = onto(device, [np.ones(3, np.float32)]), onto(device, [np.ones(2, np.float32)])
    four, step = onto(device, np.ones(4, np.float32)), onto(device, np.array(1, np.int64))
    gaps = [device.alloc((6,), np.float32)[::2]]
    doubles = onto(device, [np.ones(3)])
    host = Host(device)
    return [
        (lambda: host.sgd_step(one, two, None, four, False, False), ValueError, r"grads\[0\] has shape \(2,\)"),
        (lambda: host.sgd_step(one, [], None, four, False, False), ValueError, "grads has 0 arrays where there are 1"),
        (lambda: host.sgd_step(gaps, one, None, four, False, False), ValueError, r"params\[0\] is changed in place"),
        (lambda: host.sgd_step(one, one, None, one[0], False, False), ValueError, "settings must be 4 float32"),
        (lambda: host.adam_step(one, one, one, one, four, step, False), ValueError, "settings must be 6 float32"),
        (lambda: host.gradient_norm(doubles), UnavailableError, "an optimiser's grads in float64"),
        (lambda: host.count_step(step, step), ValueError, "found must be one float32, got int64"),
        (lambda: host.unscale_gradients(one, four, one[0], True), ValueError, "scale must be one float32, got float32"),
        (lambda: host.sgd_step(one, one, None, four, False, False, step), ValueError, "scale must be one float32"),
        (lambda: host.take_over(one, one), ValueError, r"params\[0\] must be float16 or bfloat16, got f32"),
        (
            lambda: host.round_all(doubles, one),
            ValueError,
            r"params\[0\] must be float16 or bfloat16, got another dtype",
        ),
        (lambda: host.widen_all(one, []), ValueError, "wides has 1 arrays and halves 0"),
    ]


@pytest.mark.parametrize("which", range(12))
def test_what_does_not_fit_is_refused(which: int) -> None:
    call, error, message = refused()[which]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.nvrtc
def test_gradients_are_write_protected_in_a_struct_of_pointers() -> None:
    """The simulator and the interpreter know the arrays behind a struct, and which of them a kernel may write."""
    for device, error in ((SimDevice(), SimulationError), (PtxDevice(), Exception)):
        host = Host(device)
        params, norm = onto(device, [np.ones(3, np.float32)]), onto(device, np.float32(4))
        launch = device.launch

        def swap(kernel: Any, grid: Any, block: Any, shared: int, given: Any, launch: Any = launch) -> None:
            given = [Pointers(g.name, g.arrays, False, g.capacity) if isinstance(g, Pointers) else g for g in given]
            launch(kernel, grid, block, shared, given)

        device.launch = swap  # type: ignore[method-assign]
        with pytest.raises(error, match=r"grads\[0\].*input"):
            host.clip_gradients(params, norm, 1.0)


def test_a_struct_of_pointers_is_packed_in_order() -> None:
    pointers = Pointers("x", ["a", None, "c"], written=True, capacity=5)
    assert pointers.parts == [Writes("x[0]", "a"), Writes("x[1]", None), Writes("x[2]", "c")]
    numbers = {"a": 7, None: 0, "c": 2**40}
    packed = np.frombuffer(pointers.pack(lambda part: numbers[part.array]), np.uint64)
    assert packed.tolist() == [7, 0, 2**40, 0, 0]
    assert Pointers("x", ["a"], written=False, capacity=1).parts == [Reads("x[0]", "a")]
    with pytest.raises(ValueError, match="3 arrays do not fit into a struct of 2"):
        Pointers("x", ["a", None, "c"], True, 2).pack(lambda part: 0)
