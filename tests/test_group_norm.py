"""Group, instance, layer and root-mean-square normalisation against PyTorch; the native engine's promises; refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cpu_engine import DTYPES, check, close, instruction_sets

import pycnn
from pycnn import functional as F
from pycnn import nn
from pycnn.backends import cpu, reference

torch = pytest.importorskip("torch")
TF = torch.nn.functional


def cases(count: int = 60) -> Iterator[np.random.Generator]:
    for seed in range(count):
        yield np.random.default_rng(seed)


def same(found: Any, expected: Any, what: object) -> None:
    """Both sides round in float64, and divide by a deviation that may be a hundredth of the values."""
    found, expected = np.asarray(found.detach()), expected.detach().numpy()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), what
    scale = np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * scale, err_msg=str(what))


def compare(mine: Callable[..., Any], theirs: Callable[..., Any], arrays: list[Any], what: object) -> None:
    """Values, gradients, and the gradients of these, of calls that take `arrays`, some of them None."""
    rng = np.random.default_rng(1)
    ours = [None if one is None else pycnn.Tensor(one, requires_grad=True) for one in arrays]
    peers = [None if one is None else torch.from_numpy(one.copy()).requires_grad_() for one in arrays]
    y, ty = mine(*ours), theirs(*peers)
    same(y, ty, what)
    given, leaves = ([one for one in each if one is not None] for each in (ours, peers))
    dy = rng.normal(size=ty.shape)
    fused = pycnn.grad(y, given, pycnn.Tensor(dy), retain_graph=True)
    found = pycnn.grad(y, given, pycnn.Tensor(dy), create_graph=True)
    expected = torch.autograd.grad(ty, leaves, torch.from_numpy(dy), create_graph=True)
    for one, two, right in zip(fused, found, expected, strict=True):
        same(one, right, what)
        same(two, right, what)
    if not (found[0].requires_grad and expected[0].requires_grad):
        return  # of statistics that are given dx is no function of x
    ddx = rng.normal(size=expected[0].shape)
    (second,) = pycnn.grad(found[0], given[:1], pycnn.Tensor(ddx), allow_unused=True)
    (right,) = torch.autograd.grad(expected[0], leaves[:1], torch.from_numpy(ddx), allow_unused=True)
    assert (second is None) == (right is None), what
    if right is None:
        return
    scale = np.abs(right.numpy()).max(initial=1.0)
    # One division by the variance more, which may be 1e-3 here.
    np.testing.assert_allclose(np.asarray(second.detach()), right.numpy(), rtol=0, atol=1e-9 * scale)


def coefficients(rng: np.random.Generator, shape: tuple[int, ...]) -> list[np.ndarray | None]:
    """Weight and bias, the weight alone or none: torch does not differentiate a bias alone."""
    count = int(rng.choice([0, 1, 2, 2]))
    return [rng.normal(size=shape) for _ in range(count)] + [None] * (2 - count)


@pytest.mark.usefixtures("backend")
def test_group_norm_agrees() -> None:
    for rng in cases():
        groups, each = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        sizes = tuple(int(v) for v in rng.integers(1, 7, int(rng.integers(0, 4))))
        shape = (int(rng.integers(1, 4)), groups * each, *sizes)
        eps = float(10 ** rng.uniform(-5, -1))
        if shape[0] * each * int(np.prod(sizes)) == 1:
            with pytest.raises(ValueError, match="more than one value a group"):
                F.group_norm(np.ones(shape), groups)
            continue
        arrays = [rng.normal(1.0, 2.0, shape), *coefficients(rng, shape[1:2])]
        compare(
            lambda x, w, b, g=groups, e=eps: F.group_norm(x, g, w, b, e),
            lambda x, w, b, g=groups, e=eps: TF.group_norm(x, g, w, b, e),
            arrays,
            (shape, groups, eps),
        )


@pytest.mark.usefixtures("backend")
def test_no_samples_have_gradients_of_gradients_too() -> None:
    x, w = np.ones((0, 3, 4)), np.ones(4)
    compare(lambda x: F.group_norm(x, 3), lambda x: TF.group_norm(x, 3), [x], "group")
    compare(lambda x, w: F.layer_norm(x, (4,), w), lambda x, w: TF.layer_norm(x, (4,), w), [x, w], "layer")


@pytest.mark.usefixtures("backend")
def test_layer_and_rms_norm_agree() -> None:
    for rng in cases():
        outer = tuple(int(v) for v in rng.integers(1, 5, int(rng.integers(0, 3))))
        inner = tuple(int(v) for v in rng.integers(1, 7, int(rng.integers(1, 3))))
        size = inner[0] if len(inner) == 1 and rng.random() < 0.5 else inner
        eps = float(10 ** rng.uniform(-5, -1))
        x, (weight, bias) = rng.normal(1.0, 2.0, (*outer, *inner)), coefficients(rng, inner)
        compare(
            lambda x, w, b, s=size, e=eps: F.layer_norm(x, s, w, b, e),
            lambda x, w, b, s=inner, e=eps: TF.layer_norm(x, s, w, b, e),
            [x, weight, bias],
            (outer, inner, eps),
        )
        given = None if rng.random() < 0.3 else eps
        compare(
            lambda x, w, s=size, e=given: F.rms_norm(x, s, w, e),
            lambda x, w, s=inner, e=given: TF.rms_norm(x, s, w, e),
            [x, weight],
            (outer, inner, given),
        )


@pytest.mark.usefixtures("backend")
def test_instance_norm_agrees() -> None:
    for rng in cases():
        sizes = tuple(int(v) for v in rng.integers(1, 6, int(rng.integers(1, 4))))
        shape = (int(rng.integers(1, 4)), int(rng.integers(1, 5)), *sizes)
        own, eps, momentum = bool(rng.random() < 0.7), float(10 ** rng.uniform(-5, -1)), float(rng.uniform(0, 1))
        if own and int(np.prod(sizes)) == 1:
            with pytest.raises(ValueError, match="more than one value a channel"):
                F.instance_norm(np.ones(shape))
            continue
        running = [rng.normal(size=shape[1]), rng.uniform(0.5, 2, shape[1])] if rng.random() < 0.5 or not own else []
        mine = [one.copy() for one in running] or [None, None]
        theirs = [torch.from_numpy(one.copy()) for one in running] or [None, None]
        compare(
            lambda x, w, b, s=mine, r=(own, momentum, eps): F.instance_norm(x, *s, w, b, *r),
            lambda x, w, b, s=theirs, r=(own, momentum, eps): TF.instance_norm(x, *s, w, b, *r),
            [rng.normal(1.0, 2.0, shape), *coefficients(rng, shape[1:2])],
            (shape, own, eps),
        )
        for one, two in zip(mine, theirs, strict=True):
            if one is not None:
                np.testing.assert_allclose(one, two.numpy(), rtol=1e-12)


def test_layers_agree_in_training_and_evaluation() -> None:
    rng = np.random.default_rng(0)
    for layer, args, shape in (
        ("GroupNorm", (2, 6), (3, 6, 4, 5)),
        ("GroupNorm", (3, 6, 1e-3, False), (3, 6)),
        ("LayerNorm", ((4, 5),), (3, 4, 5)),
        ("LayerNorm", (5, 1e-3, True, False), (3, 5)),
        ("RMSNorm", (5,), (3, 5)),
        ("RMSNorm", ((4, 5), 1e-3, False), (3, 4, 5)),
        ("InstanceNorm1d", (4,), (3, 4, 5)),
        ("InstanceNorm1d", (4,), (4, 5)),
        ("InstanceNorm2d", (4, 1e-4, 0.3, True, True), (3, 4, 5, 6)),
        ("InstanceNorm3d", (4, 1e-4, 0.3, False, True), (3, 4, 2, 3, 4)),
        ("BatchNorm3d", (4,), (3, 4, 2, 3, 4)),
    ):
        mine, theirs = getattr(nn, layer)(*args), getattr(torch.nn, layer)(*args)
        assert list(mine.state_dict()) == list(theirs.state_dict()), layer
        for mode in ("train", "eval"):
            getattr(mine, mode)(), getattr(theirs, mode)()
            x = rng.normal(size=shape).astype(np.float32)
            found, expected = mine(pycnn.Tensor(x)), theirs(torch.from_numpy(x))
            # Sums of some sixty numbers near 1 in float32 on both sides.
            np.testing.assert_allclose(np.asarray(found.detach()), expected.detach().numpy(), rtol=0, atol=5e-6)
        for one, two in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
            if two.dtype == torch.float32:
                np.testing.assert_allclose(one.data, two.numpy(), rtol=1e-5)


@pytest.mark.parametrize("layer", ["InstanceNorm2d", "BatchNorm2d"])
def test_reset_parameters_forgets_what_was_learnt_and_what_was_tracked(layer: str) -> None:
    mine, theirs = (getattr(library, layer)(3, affine=True, track_running_stats=True) for library in (nn, torch.nn))
    x = np.random.default_rng(0).normal(3, 2, (4, 3, 5, 6)).astype(np.float32)
    mine(pycnn.Tensor(x))
    mine.weight.data[:] = 5
    assert abs(mine.running_mean.data).min() > 0.1
    mine.reset_parameters()
    for name, value in theirs.state_dict().items():  # a fresh one's
        np.testing.assert_array_equal(mine.state_dict()[name].data, value.numpy(), err_msg=name)


def test_16_bits_beside_float32_parameters() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 6, 4)).astype(np.float16)
    weight, bias = rng.normal(size=(2, 6)).astype(np.float32)
    y = F.group_norm(x, 2, weight, bias)
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, F.group_norm(x.astype(np.float32), 2, weight, bias).astype(np.float16))
    px, w = pycnn.Tensor(x, requires_grad=True), pycnn.Tensor(weight, requires_grad=True)
    dx, dw = pycnn.grad(F.group_norm(px, 2, w).sum(), (px, w))
    assert (dx.dtype, dw.dtype) == (np.float16, np.float32)
    assert F.rms_norm(x, 4).dtype == np.float16
    # As torch: eps is float16's own, 2^-10, where every element is 2^-6 and so their root mean square.
    np.testing.assert_allclose(
        F.rms_norm(np.full((1, 4), 2.0**-6, np.float16), 4), 2**-6 / np.sqrt(2**-12 + 2**-10), 1e-3
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("centred", [True, False])
def test_native_engine_at_every_size(dtype: type, centred: bool) -> None:
    """Around a vector, a chunk of 4,096 elements and a task; the same bits from any number of threads."""
    rng = np.random.default_rng(2)
    shapes = [(3, 4, 5), (2, 4, 17), (5, 6, 1), (3, 33), (2, 300), (1, 2, 4097), (2, 2, 64, 65), (70, 4, 2), (0, 4, 3)]
    for _ in instruction_sets():
        for shape in shapes:
            groups = 2 if shape[1] % 2 == 0 else 1
            x, dy = rng.normal(1.0, 2.0, (2, *shape)).astype(dtype)
            weight, bias = rng.normal(size=(2, shape[1])).astype(dtype)
            found = check(lambda x, w, b, g=groups: cpu.group_norm_fwd(x, g, w, b, 1e-3, centred), x, weight, bias)
            wide = [one.astype(np.float64) for one in (x, weight, bias)]
            expected = reference.group_norm_fwd(wide[0], groups, *wide[1:], 1e-3, centred)
            for one, right in zip(found, expected, strict=True):
                close(
                    one, right, 16
                )  # differences, a quotient, a product, a sum, of numbers at most four deviations off
            _, mean, var = found
            arrays = (dy, x, weight, mean, var)
            found = check(
                lambda dy, x, w, m, v, g=groups: cpu.group_norm_bwd(dy, x, g, w, m, v, 1e-3, centred), *arrays
            )
            dy64, x64, w64, m64, v64 = (one.astype(np.float64) for one in arrays)
            expected = reference.group_norm_bwd(dy64, x64, groups, w64, m64, v64, 1e-3, centred)
            for one, right in zip(found, expected, strict=True):
                close(one, right, 64, scale=max(1.0, float(np.abs(right).max(initial=0.0))))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.group_norm(x, 4), ValueError, "num_groups must divide the 6 channels of input, got 4"),
        (lambda x: F.group_norm(x, 0), ValueError, "num_groups must be between 1"),
        (lambda x: F.group_norm(x, 2, np.ones(5)), ValueError, r"weight must have shape \(6,\)"),
        (lambda x: F.group_norm(x, 2, eps=-1), ValueError, "eps must be a finite number"),
        (lambda x: F.group_norm([1.0], 2), TypeError, "input must be a Tensor or an array"),
        (lambda x: F.layer_norm(x, (6, 5)), ValueError, "normalized_shape must be the sizes of input's last"),
        (lambda x: F.layer_norm(x, ()), ValueError, "normalized_shape must be the sizes of input's last"),
        (lambda x: F.layer_norm(x, 4, np.ones(3)), ValueError, r"weight must have shape \(4,\)"),
        (lambda x: F.instance_norm(x[0, 0]), ValueError, "input must have at least 2 dimensions"),
        (lambda x: F.instance_norm(x[0]), ValueError, "input must have at least 3 dimensions"),
        (lambda x: F.instance_norm(x, use_input_stats=False), ValueError, "needs running_mean and running_var"),
        (lambda x: F.instance_norm(x, np.ones(3), np.ones(6)), ValueError, "running_mean must have shape"),
        (lambda x: nn.GroupNorm(4, 6), ValueError, "num_groups must divide num_channels"),
        (lambda x: nn.InstanceNorm2d(6)(x[0, 0]), ValueError, "takes input of rank 3 or 4"),
        (lambda x: nn.InstanceNorm1d(5)(x), ValueError, "x must have 5 channels"),
        (lambda x: pycnn.ops.group_norm(x, 4), ValueError, "groups must divide the 6 channels"),
        (
            lambda x: pycnn.ops.group_norm_backward(x, x, 2, None, x[0], x[0]),
            ValueError,
            "mean must have one value a group",
        ),
        (lambda x: pycnn._cpu.group_norm_fwd(x, 4, None, None, 1e-5, True), ValueError, "groups must divide"),
        (lambda x: pycnn._cpu.group_norm_fwd(x, 2, np.ones(5), None, 1e-5, True), ValueError, "one value a channel"),
    ],
)
def test_refusals(call: Callable[[np.ndarray], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(np.ones((2, 6, 4)))
