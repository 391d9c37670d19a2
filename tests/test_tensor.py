"""Tensor's own methods: NumPy's values, torch's names, and gradients."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tensors import normal

import pycnn
from pycnn import Tensor
from pycnn.testing.gradcheck import gradcheck, gradgradcheck


def positive(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).uniform(0.5, 2.0, shape), requires_grad=True)


A, B = normal(3, 4), normal(3, 4, seed=1)
ROW = normal(4, seed=2)
POSITIVE = positive(3, 4, seed=3)
CUBE = normal(2, 3, 4, seed=4)

METHODS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "add": (lambda a, b: a + b, (A, B)),
    "add broadcast": (lambda a, b: b + a, (A, ROW)),
    "add number": (lambda a: 2 + a + 1.5, (A,)),
    "add array": (lambda a: np.ones((3, 4)) + a, (A,)),
    "add scaled": (lambda a, b: a.add(b, alpha=3).sub(b, alpha=0.5), (A, B)),
    "sub": (lambda a, b: a - b, (A, ROW)),
    "rsub": (lambda a: 1 - a, (A,)),
    "mul": (lambda a, b: a * b, (A, ROW)),
    "mul by itself": (lambda a: a * a, (A,)),
    "mul column by row": (lambda a, b: a[:, :1] * b, (A, ROW)),
    "div": (lambda a, b: a / b, (ROW, POSITIVE)),
    "rdiv": (lambda a: 2 / a, (POSITIVE,)),
    "neg": (lambda a: -a, (A,)),
    "pow number": (lambda a: a**3 + a**2.0, (A,)),
    "pow fraction": (lambda a: a**-0.5, (POSITIVE,)),
    "pow zero": (lambda a: a**0, (A,)),
    "pow tensor": (lambda a, b: a**b, (POSITIVE, ROW)),
    "rpow": (lambda a: 2.0**a, (A,)),
    "matmul": (lambda a, b: a @ b, (A, normal(4, 2))),
    "matmul batched": (lambda a, b: a @ b, (CUBE, normal(4, 2))),
    "matmul broadcast": (lambda a, b: a @ b, (normal(3, 4), normal(2, 4, 2))),
    "matmul vector matrix": (lambda a, b: a @ b, (ROW, normal(4, 2))),
    "matmul matrix vector": (lambda a, b: a @ b, (A, ROW)),
    "matmul batch vector": (lambda a, b: a @ b, (CUBE, ROW)),
    "matmul vector batch": (lambda a, b: a @ b, (ROW, normal(2, 4, 3))),
    "dot": (lambda a, b: a @ b, (ROW, normal(4))),
    "exp": (lambda a: a.exp(), (A,)),
    "log": (lambda a: a.log(), (POSITIVE,)),
    "sqrt": (lambda a: a.sqrt(), (POSITIVE,)),
    "abs": (lambda a: abs(a), (A,)),
    "square": (lambda a: a.square(), (A,)),
    "clamp": (lambda a: a.clamp(-0.5, 0.5), (A,)),
    "clamp one side": (lambda a: a.clamp(max=0.3), (A,)),
    "maximum": (lambda a, b: a.maximum(b), (A, ROW)),
    "minimum": (lambda a, b: a.minimum(b), (A, B)),
    "maximum number": (lambda a: a.maximum(0.1), (A,)),
    "sum": (lambda a: a.sum(), (CUBE,)),
    "sum dims": (lambda a: a.sum((0, -1)), (CUBE,)),
    "sum keepdim": (lambda a: a.sum(1, keepdim=True), (CUBE,)),
    "mean": (lambda a: a.mean((1, 2), keepdim=True) * a.mean(), (CUBE,)),
    "var": (lambda a: a.var(1) + a.var(), (A,)),
    "var biased": (lambda a: a.var((0, 2), correction=0, keepdim=True), (CUBE,)),
    "std": (lambda a: a.std(0), (A,)),
    "max": (lambda a: a.max(), (A,)),
    "min": (lambda a: a.min(), (A,)),
    "max along": (lambda a: a.max(1)[0], (CUBE,)),
    "min along keepdim": (lambda a: a.min(-1, keepdim=True)[0], (CUBE,)),
    "amax": (lambda a: a.amax((0, 1)), (CUBE,)),
    "amin": (lambda a: a.amin(2, keepdim=True), (CUBE,)),
    "reshape": (lambda a: a.reshape(4, -1) * 2.0, (CUBE,)),
    "view": (lambda a: a.view((6, 4)), (CUBE,)),
    "flatten": (lambda a: a.flatten(1), (CUBE,)),
    "transpose": (lambda a: a.transpose(0, -1), (CUBE,)),
    "permute": (lambda a: a.permute(2, 0, 1), (CUBE,)),
    "T": (lambda a: a.T, (A,)),
    "squeeze": (lambda a: a[:, :1].squeeze(1), (A,)),
    "unsqueeze": (lambda a: a.unsqueeze(0).unsqueeze(-1), (A,)),
    "expand": (lambda a: a.expand(3, -1), (ROW,)),
    "clone": (lambda a: a.clone(), (A,)),
    "contiguous": (lambda a: a.T.contiguous(), (A,)),
    "getitem int": (lambda a: a[1], (CUBE,)),
    "getitem element": (lambda a: a[1, 2, 3], (CUBE,)),
    "getitem slices": (lambda a: a[:, ::2, None, 1:], (CUBE,)),
    "getitem ellipsis": (lambda a: a[..., -1], (CUBE,)),
    "getitem repeated": (lambda a: a[np.array([0, 2, 0])], (A,)),
    "getitem pairs": (lambda a: a[[0, 1, 1], [3, 2, 2]], (A,)),
    "getitem mask": (lambda a: a[a > 0.0], (A,)),
    "getitem tensor": (lambda a: a[:, pycnn.tensor([1, 1])], (A,)),
    "iter": (lambda a: sum(row * (i + 1.0) for i, row in enumerate(a)), (A,)),
}


@pytest.mark.parametrize("name", METHODS)
def test_gradient_is_the_slope_twice_over(name: str) -> None:
    function, inputs = METHODS[name]

    def curved(*values: Tensor) -> Tensor:
        y = function(*values)
        return y + y * y * 0.5  # so that linear methods have a second derivative to check

    gradcheck(curved, inputs)
    gradgradcheck(curved, inputs)


NUMPY: dict[str, Callable[[Any], Any]] = {
    "arithmetic": lambda a: (2 - a) * a / (a * a + 1) - a**2,
    "matmul": lambda a: a.transpose(0, 2, 1) @ a if isinstance(a, np.ndarray) else a.permute(0, 2, 1) @ a,
    "abs": abs,
    "neg": lambda a: -a,
    "index": lambda a: a[1, ::2],
    "advanced index": lambda a: a[:, [0, 2, 0]],
    "compare": lambda a: (a > 0) & (a <= 1) | (a == a[0]),
    "invert": lambda a: ~(a < 0),
}


@pytest.mark.parametrize("name", NUMPY)
def test_values_are_numpys(name: str) -> None:
    expected = NUMPY[name](CUBE.data)
    found = NUMPY[name](CUBE.detach())
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.data, expected)


def test_reductions_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.tensor(CUBE.data)
    for call in (
        lambda t: t.var(1),
        lambda t: t.var(dim=(0, 2), correction=0, keepdim=True),
        lambda t: t.std(),
        lambda t: t.mean((0, 1)),
        lambda t: t.max(1)[0],
        lambda t: t.max(1, keepdim=True)[1],
        lambda t: t.argmin(2),
        lambda t: t.argmax(),
        lambda t: t.amin((0, 2)),
    ):
        # Sums of 24 terms in another order: a few units in the last place.
        np.testing.assert_allclose(call(CUBE.detach()).numpy(), call(theirs).numpy(), rtol=1e-14)


@pytest.mark.parametrize("call", [lambda t: t.max(), lambda t: t.amax(1).sum(), lambda t: t.min(0)[0].sum()])
def test_ties_share_the_gradient_as_torchs(call: Callable[[Any], Any]) -> None:
    torch = pytest.importorskip("torch")
    values = np.array([[2.0, 2.0, 1.0], [2.0, 1.0, 1.0]])
    x, t = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    call(x).backward()
    call(t).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.data, t.grad.numpy(), rtol=1e-15)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_elementwise_ties_split_the_gradient_as_torchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    a, b = np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])
    mine = [Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)]
    theirs = [torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)]
    getattr(mine[0], name)(mine[1]).sum().backward()
    getattr(torch, name)(*theirs).sum().backward()
    for x, t in zip(mine, theirs, strict=True):
        assert x.grad is not None
        assert np.array_equal(x.grad.data, t.grad.numpy())


# ------------------------------------------------------------------------------------------------- dtypes and kinds


def test_numbers_do_not_widen() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        x = Tensor(np.array(2.0, dtype), requires_grad=True)
        for y in (x + 1, 1.5 * x, x / 3, 2 / x, x**2, x - np.float64(1), 2.0**x, x.mean(), x.clamp(0, 1)):
            assert y.dtype == dtype
            assert y.shape == ()
            assert isinstance(y.data, np.ndarray)


def test_promotion_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    kinds = [np.float32, np.float64, np.int64]
    for a in kinds:
        for b in kinds:
            for first, second in (((2,), (2,)), ((2,), ()), ((), (2,))):
                x, y = np.ones(first, a), np.ones(second, b)
                expected = torch.tensor(x) * torch.tensor(y)
                assert str((Tensor(x) * Tensor(y)).dtype) == str(expected.dtype).removeprefix("torch.")
                expected = torch.tensor(x) / torch.tensor(y)
                assert str((Tensor(x) / Tensor(y)).dtype) == str(expected.dtype).removeprefix("torch.")
    assert (Tensor([1, 2]) * 0.5).dtype == np.float32


def test_gradients_come_back_in_the_inputs_dtype() -> None:
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    w = Tensor(np.ones(3), requires_grad=True)
    ((x * w) + x.to(np.float64)).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [2, 2, 2]
    assert w.grad is not None
    assert w.grad.dtype == np.float64


def test_bfloat16_takes_part() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = Tensor(np.ones(3, ml_dtypes.bfloat16), requires_grad=True)
    (x * 2.0 + x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == ml_dtypes.bfloat16
    assert x.grad.tolist() == [3, 3, 3]
    y = x**2.0
    y.sum().backward()
    assert y.dtype == x.grad.dtype == ml_dtypes.bfloat16


def test_construction() -> None:
    array = np.zeros(3)
    assert np.shares_memory(Tensor(array).data, array)
    assert not np.shares_memory(pycnn.tensor(array).data, array)
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor([1, 2]).dtype == np.int64
    assert Tensor(3.0).shape == ()
    assert Tensor(array, dtype=np.float32).dtype == np.float32
    assert pycnn.zeros(2, 3).shape == pycnn.ones((2, 3)).shape == (2, 3)
    with pytest.raises(RuntimeError, match="only floating"):
        Tensor([1, 2], requires_grad=True)
    with pytest.raises(TypeError, match="holds numbers"):
        Tensor(["a"])


def test_torch_shares_memory_both_ways() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.zeros(3)
    mine = Tensor(theirs)
    mine[0] = 5.0
    assert theirs[0] == 5
    back = torch.from_dlpack(mine)
    back[1] = 7.0
    assert mine[1].item() == 7


def test_bounds_may_be_tensors() -> None:
    x = Tensor(np.array([-2.0, 0.5, 2.0]), requires_grad=True)
    low, high = Tensor([[-1.0], [0.0]], requires_grad=True), Tensor(1.0, requires_grad=True)
    y = x.clamp(low, high)
    assert y.tolist() == [[-1.0, 0.5, 1.0], [0.0, 0.5, 1.0]]
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.tolist() == [0, 2, 0]
    assert low.grad.tolist() == [[1], [1]]
    assert high.grad.tolist() == 2
    assert x.detach().clamp(max=np.array([0, 1, 1])).tolist() == [-2, 0.5, 1]
    assert x.detach().max(Tensor(np.zeros(3))).tolist() == [0, 0.5, 2]
    assert x.detach().min(Tensor(np.zeros(3))).tolist() == [-2, 0, 0]


def test_division_that_rounds() -> None:
    x = Tensor(np.array([-7, 7]))
    assert x.div(2, rounding_mode="trunc").tolist() == [-3, 3]
    assert x.div(2, rounding_mode="floor").tolist() == [-4, 3]
    assert x.div(2, rounding_mode="floor").dtype == np.int64
    assert x.double().div(2.0, rounding_mode="trunc").tolist() == [-3, 3]
    with pytest.raises(ValueError, match="rounding_mode must be None, 'trunc' or 'floor', got 'ceil'"):
        x.div(2, rounding_mode="ceil")


def test_truth_over_dimensions() -> None:
    x = Tensor(np.array([[1, 0, 2], [3, 0, 0]]))
    assert x.all(0).tolist() == [True, False, False]
    assert x.any((0, 1), keepdim=True).tolist() == [[True]]
    assert x.any(-1, keepdim=True).shape == (2, 1)
    assert not x.all().item()


def test_dimension_zero_of_a_scalar() -> None:
    x = Tensor(2.0)
    assert [one.shape for one in (x.transpose(0, -1), x.squeeze(0), x.amax(0, keepdim=True), x.sum((0,)))] == [()] * 4
    assert [one.item() for one in x.max(0)] == [2.0, 0]
    assert pycnn.ones(1, 1).squeeze(()).shape == (1, 1)


def test_variance_by_either_name() -> None:
    x = Tensor(np.array([1.0, 3.0]))
    assert x.var(True).item() == x.var(None, None).item() == x.var(unbiased=True).item() == 2
    assert x.var(False).item() == x.std(0, unbiased=False).item() == 1


def test_to_copies_when_asked() -> None:
    x = pycnn.ones(2)
    assert x.to("cpu", np.float32, False, True).data is not x.data
    assert x.to(np.float32, copy=True).data is not x.data
    assert x.to("cpu", False) is x
    last = pycnn.ones(1, 2, 3, 3).double(memory_format=pycnn.channels_last)
    assert (last.dtype, last.is_contiguous(pycnn.channels_last)) == (np.float64, True)


def test_conversions() -> None:
    x = Tensor(np.array([1.5, 2.0]))
    assert np.asarray(x) is x.data
    assert np.array(x, dtype=np.float32).dtype == np.float32
    assert float(x[0]) == 1.5
    assert int(x[1]) == 2
    assert f"{x[0]:.2f}" == "1.50"
    assert [10, 20, 30][Tensor(1)] == 20
    assert bool(x[0])
    assert len(x) == 2
    assert [value.item() for value in x] == [1.5, 2.0]
    assert x.numel() == 2
    assert x.size(0) == 2
    assert x.tolist() == [1.5, 2.0]
    for call, message in (
        (lambda: bool(x), "ambiguous"),
        (x.item, "one element"),
        (lambda: len(x[0]), "0-d"),
        (lambda: iter(x[0]), "0-d"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()


def test_numpy_would_lose_the_gradient() -> None:
    x = Tensor([1.0], requires_grad=True)
    for call in (x.numpy, lambda: np.asarray(x), lambda: np.from_dlpack(x)):
        with pytest.raises(RuntimeError, match="detach"):
            call()


def test_repr_says_what_matters() -> None:
    x = Tensor([1.0], requires_grad=True)
    assert repr(x) == "tensor([1.], requires_grad=True)"
    assert repr(x * 2.0) == "tensor([2.], grad_fn=<Mul>)"
    assert repr(Tensor(np.zeros((0, 2)))) == "tensor([], dtype=float64, shape=(0, 2))"


def test_views_share_memory_and_version() -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3))
    views = [x[0], x[:, 1:], x.reshape(6), x.T, x.unsqueeze(0), x.detach(), x.flatten(), x[1, 1]]
    for view in views:
        assert np.shares_memory(view.data, x.data)
    x[0, 0] = 9.0
    assert {view.version for view in views} == {1}
    for copied in (x[[0, 1]], x.T.reshape(6), x.clone(), x[x > 0.0]):
        assert copied.version == 0
    with pytest.raises(ValueError, match="needs a copy"):
        x.T.view(6)


def test_copies_and_pickles() -> None:
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    (x * x).sum().backward()
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert other.requires_grad
        assert other.tolist() == [1, 2]
        assert not np.shares_memory(other.data, x.data)
    assert copy.deepcopy(x).grad.tolist() == [2, 4]
    with pytest.raises(RuntimeError, match="only leaves"):
        copy.deepcopy(x * 1.0)


def test_in_place_methods() -> None:
    x = Tensor(np.array([4.0, 9.0]))
    array = x.data
    x += 1.0
    x -= np.array([1.0, 1.0])
    x *= 2
    x /= 2
    x **= 2
    x.sqrt_().sub_(4.0, alpha=0.5).clamp_(max=5.0).exp_()
    assert x.data is array
    np.testing.assert_allclose(array, np.exp([2.0, 5.0]), rtol=1e-15)
    assert x.version == 9
    assert x.fill_(3).tolist() == [3, 3]
    assert x.copy_(Tensor(7.0)).tolist() == [7, 7]
    assert x.zero_().tolist() == [0, 0]


def test_statistics_of_too_little_are_nan() -> None:
    assert math.isnan(Tensor([1.0]).var().item())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.sum(2), "dimension 2 is out of range"),
        (lambda x: x.transpose(0, 5), "dimension 5 is out of range"),
        (lambda x: x.flatten(1, 0), "lies behind"),
        (lambda x: x.clamp(), "needs min"),
        (lambda x: x + "a", "unsupported operand"),
        (lambda x: x @ 2.0, "must be a Tensor or an array"),
        (lambda x: x.sum(0.5), "must be an int"),
        (lambda x: setattr(x, "grad", np.zeros(2)), "grad must be a Tensor"),
        (lambda x: setattr(x, "grad", Tensor([1.0])), "must have the tensor's shape"),
        (lambda x: setattr(x * 1.0, "requires_grad", False), "only a leaf"),
    ],
)
def test_bad_calls_name_what_is_wrong(call: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError, IndexError, RuntimeError), match=message):
        call(Tensor(np.ones((2, 3)), requires_grad=True))
