"""Kernels of one's own: registered, dispatched, refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from own_kernel import DY, HOW, SMALL, W, X, dgrad, fprop, wgrad, whole

import pycnn
from pycnn import backends, nn, ops
from pycnn.custom import registry
from pycnn.shape import Conv2dShape
from pycnn.testing import verify_conv2d


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's kernels are gone when it ends."""
    monkeypatch.setattr(registry, "_kernels", {})


# --------------------------------------------------------------------------------------------------------- the calls


def test_each_pass_is_the_kernels_own() -> None:
    calls: list[tuple[str, Conv2dShape]] = []

    def spied(operator: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def spy(left: Any, right: Any, shape: Conv2dShape) -> Any:
            assert left.flags.c_contiguous
            assert right.flags.c_contiguous
            calls.append((operator, shape))
            return run(left, right, shape)

        return spy

    passes = {"fprop": fprop, "dgrad": dgrad, "wgrad": wgrad}
    pycnn.register_conv2d("mine", **{name: spied(name, run) for name, run in passes.items()})
    b, scale, residual = whole((6,), 4), whole((6,), 5), whole(SMALL.shape.y_shape, 6)
    awkward = np.ascontiguousarray(X.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for options in ({}, {"scale": scale}, {"residual": residual, "relu": True}, {"scale": scale, "relu": True}):
        for bias in (None, b):
            expected = ops.conv2d_fprop(X, W, bias, *HOW, algo="direct", **options)
            assert np.array_equal(ops.conv2d_fprop(awkward, W, bias, *HOW, algo="mine", **options), expected)
    assert set(calls) == {("fprop", SMALL.shape)}
    assert len(calls) == 8
    dx = ops.conv2d_dgrad(DY, W, X.shape, *HOW, algo="mine")
    assert np.array_equal(dx, ops.conv2d_dgrad(DY, W, X.shape, *HOW, algo="direct"))
    for mine, ours in zip(
        ops.conv2d_wgrad(DY, X, W.shape, *HOW, algo="mine", bias=True),
        ops.conv2d_wgrad(DY, X, W.shape, *HOW, algo="direct", bias=True),
        strict=True,
    ):
        assert np.array_equal(mine, ours)
    assert calls[8:] == [("dgrad", SMALL.shape), ("wgrad", SMALL.shape)]


def test_gradients_go_through_the_kernels_passes() -> None:
    pycnn.register_conv2d("mine", fprop, dgrad, wgrad)
    found = []
    for algo in ("mine", "direct"):
        x, w, b = (pycnn.Tensor(one.copy(), requires_grad=True) for one in (X, W, whole((6,), 4)))
        y = pycnn.conv2d(x, w, b, *HOW, algo=algo)
        dx, dw, db = pycnn.grad((y * pycnn.Tensor(DY)).sum(), [x, w, b], create_graph=True)
        assert dx is not None
        (ddw,) = pycnn.grad((dx * dx).sum(), w)
        found.append([one.detach().numpy() for one in (y, dx, dw, db, ddw)])  # type: ignore[union-attr]
    for mine, ours in zip(*found, strict=True):
        assert np.array_equal(mine, ours)


def test_a_layer_and_the_transposed_convolution_take_the_name() -> None:
    pycnn.register_conv2d("mine", fprop, dgrad, wgrad)
    pycnn.manual_seed(1)
    layer = nn.Conv2d(4, 6, 3, algo="mine")
    y = layer(pycnn.Tensor(X))
    layer.algo = "direct"
    # The reference sums in float64 and rounds once; direct rounds each of 36 sums, whose terms are below 2.
    np.testing.assert_allclose(y.detach().numpy(), layer(pycnn.Tensor(X)).detach().numpy(), atol=1e-4)
    t = whole((4, 3, 2, 3), 5)
    assert np.array_equal(
        ops.conv_transpose2d_fprop(X, t, algo="mine"), ops.conv_transpose2d_fprop(X, t, algo="direct")
    )


def test_passes_may_have_different_algorithms() -> None:
    pycnn.register_conv2d("mine", fprop)
    x = pycnn.Tensor(X, requires_grad=True)
    pycnn.conv2d(x, W, None, *HOW, algo={"fprop": "mine"}).sum().backward()
    assert x.grad is not None
    y = pycnn.conv2d(x, W, None, *HOW, algo="mine")
    with pytest.raises(
        ValueError, match=r"algo='mine' cannot run dgrad of n2c4.*it was registered for fprop only; algo"
    ):
        y.sum().backward()


def test_auto_never_takes_one() -> None:
    pycnn.register_conv2d("mine", lambda *given: pytest.fail("taken"))
    pycnn.conv2d(X, W, None, *HOW)
    names = [name for name, _ in backends.get("cpu").conv2d_algorithms("fprop", SMALL.shape, "float32")]
    assert "mine" not in names


def test_empty_batches_stay_away() -> None:
    pycnn.register_conv2d("mine", *[lambda *given: pytest.fail("called")] * 3)
    none, dy = np.zeros((0, 3, 5, 5), np.float32), np.zeros((0, 2, 3, 3), np.float32)
    w = np.ones((2, 3, 3, 3), np.float32)
    assert pycnn.conv2d(none, w, np.ones(2, np.float32), algo="mine").shape == (0, 2, 3, 3)
    assert ops.conv2d_dgrad(dy, w, none.shape, algo="mine").shape == none.shape
    dw, db = ops.conv2d_wgrad(dy, none, w.shape, algo="mine", bias=True)
    assert not dw.any()
    assert not db.any()


def test_halves_and_doubles_are_as_for_every_algorithm() -> None:
    seen = []
    pycnn.register_conv2d("mine", lambda x, w, shape: (seen.append(x.dtype), fprop(x, w, shape))[1])
    for dtype in (np.float64, np.float16):
        y = pycnn.conv2d(X.astype(dtype), W.astype(dtype), None, *HOW, algo="mine")
        assert np.array_equal(y, pycnn.conv2d(X, W, None, *HOW, algo="direct").astype(dtype))
    assert seen == [np.float64, np.float32]  # the CPU computes halves in float32


def test_torch_in_torch_out() -> None:
    torch = pytest.importorskip("torch")
    pycnn.register_conv2d("mine", fprop)
    y = pycnn.conv2d(torch.from_numpy(X), torch.from_numpy(W), None, *HOW, algo="mine")
    assert isinstance(y, torch.Tensor)
    assert np.array_equal(y.numpy(), pycnn.conv2d(X, W, None, *HOW, algo="direct"))


def test_shapes_need_no_kernel() -> None:
    pycnn.register_conv2d("mine", lambda *given: pytest.fail("called"))
    with pycnn.use_backend("shapes"):
        assert pycnn.conv2d(X, W, None, *HOW, algo="mine").shape == SMALL.shape.y_shape


def test_a_compiled_network_has_none() -> None:
    pycnn.register_conv2d("mine", fprop)
    with pytest.raises(pycnn.CompileError, match="algo='mine' is none of pycnn's own algorithms"):
        pycnn.compile(nn.Sequential(nn.Conv2d(4, 6, 3, algo="mine")), X)


# -------------------------------------------------------------------------------------------------------- what is bad

BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "family": (
        lambda: pycnn.register_conv2d("winograd", fprop),
        ValueError,
        "names that begin with winograd are pycnn",
    ),
    "variant": (lambda: pycnn.register_conv2d("direct_mine", fprop), ValueError, "begin with direct"),
    "auto": (lambda: pycnn.register_conv2d("auto", fprop), ValueError, "begin with auto"),
    "contestant": (lambda: pycnn.register_conv2d("numpy", fprop), ValueError, "begin with numpy"),
    "word": (
        lambda: pycnn.register_conv2d("my-kernel", fprop),
        ValueError,
        "letters, digits and underscores.*'my-kernel'",
    ),
    "no string": (lambda: pycnn.register_conv2d(3, fprop), ValueError, "letters, digits"),  # type: ignore[arg-type]
    "taken": (
        lambda: pycnn.register_conv2d("taken", fprop),
        ValueError,
        r"already; pycnn.unregister_conv2d\('taken'\)",
    ),
    "nothing": (lambda: pycnn.register_conv2d("mine"), ValueError, "at least one of fprop, dgrad, wgrad"),
    "no function": (
        lambda: pycnn.register_conv2d("mine", dgrad=3),
        TypeError,
        "dgrad of the kernel mine must be callable",
    ),  # type: ignore[arg-type]
    "no condition": (
        lambda: pycnn.register_conv2d("mine", fprop, refuses="no"),
        TypeError,
        "refuses of the kernel mine",
    ),  # type: ignore[arg-type]
    "backend": (
        lambda: pycnn.register_conv2d("mine", fprop, backends=["gpu"]),
        ValueError,
        "backends must be among.*'gpu'",
    ),
    "no backend": (
        lambda: pycnn.register_conv2d("mine", fprop, backends=[]),
        ValueError,
        "backends must name at least",
    ),
    "bound": (
        lambda: pycnn.register_conv2d("mine", fprop, bound="exact"),
        ValueError,
        "bound must be the name.*'exact'",
    ),
    "bound auto": (lambda: pycnn.register_conv2d("mine", fprop, bound="auto"), ValueError, "bound must be the name"),
    "unknown": (
        lambda: pycnn.unregister_conv2d("mine"),
        ValueError,
        "no kernel is registered as 'mine'; there are taken",
    ),
    "verified": (lambda: verify_conv2d("mine"), ValueError, "no kernel is registered as 'mine'; there are taken"),
    "called": (
        lambda: pycnn.conv2d(X, W, None, *HOW, algo="mine"),
        ValueError,
        r"algo must be one of .* \(taken\), got 'mine'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    pycnn.register_conv2d("taken", fprop)
    call, error, words = BAD[case]
    with pytest.raises(error, match=words):
        call()
    assert registry.names() == ["taken"]


def test_a_name_can_be_given_again() -> None:
    pycnn.register_conv2d("mine", lambda *given: pytest.fail("the old one"))
    pycnn.unregister_conv2d("mine")
    pycnn.register_conv2d("mine", fprop)
    pycnn.conv2d(X, W, None, *HOW, algo="mine")


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (lambda y: None, TypeError, "must return an array of numpy, got NoneType"),
        (lambda y: y.tolist(), TypeError, "must return an array of numpy, got list"),
        (lambda y: y.astype(np.float64), TypeError, "must return float32, as its operands are, got float64"),
        (lambda y: y[:, :, :-1].copy(), ValueError, r"must return the shape \(2, 6, 2, 7\), got \(2, 6, 1, 7\)"),
        (
            lambda y: y.transpose(1, 0, 2, 3).copy().transpose(1, 0, 2, 3),
            ValueError,
            "must return a C-contiguous array",
        ),
    ],
)
def test_what_a_kernel_returns_is_looked_at(result: Callable[[Any], Any], error: type[Exception], words: str) -> None:
    pycnn.register_conv2d("mine", lambda x, w, shape: result(fprop(x, w, shape)))
    with pytest.raises(error, match=f"^fprop of the registered kernel mine {words}.*for {SMALL.shape}$"):
        pycnn.conv2d(X, W, None, *HOW, algo="mine")


def test_conditions_are_sentences() -> None:
    asked = []

    def refuses(operator: str, shape: Conv2dShape, dtype: str) -> Any:
        asked.append((operator, shape, dtype))
        return "it takes one group" if shape.groups > 1 else 3 if shape.N == 2 else None

    pycnn.register_conv2d("mine", fprop, refuses=refuses)
    with pytest.raises(ValueError, match=rf"algo='mine' cannot run fprop of {SMALL.shape} \(it takes one group\)"):
        pycnn.conv2d(X, W, None, *HOW, algo="mine")
    assert asked == [("fprop", SMALL.shape, "float32")]
    with pytest.raises(TypeError, match="`refuses` of the registered kernel mine must give a sentence or None, got 3"):
        pycnn.conv2d(X, whole((2, 4, 1, 1)), algo="mine")
    assert pycnn.conv2d(X[:1], whole((2, 4, 1, 1)), algo="mine").shape == (1, 2, 5, 6)


def test_a_kernel_runs_where_it_was_registered_for() -> None:
    pycnn.register_conv2d("mine", fprop, backends=["reference"])
    with pytest.raises(ValueError, match="registered for the backends reference, and this call goes to cpu"):
        pycnn.conv2d(X, W, None, *HOW, algo="mine")
    with pycnn.use_backend("reference"):
        pycnn.conv2d(X, W, None, *HOW, algo="mine")
