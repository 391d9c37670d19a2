"""pycnn inside JAX: values and gradients under jit, grad and vmap, and a network that trains."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import backends, functional

jax = pytest.importorskip("jax")
jnp = jax.numpy
check_grads = importlib.import_module("jax.test_util").check_grads
ours = importlib.import_module("pycnn.jax")

RNG = np.random.default_rng(0)
X, W, B = RNG.standard_normal((2, 4, 6, 5)), RNG.standard_normal((6, 2, 3, 3)), RNG.standard_normal(6)
WT = RNG.standard_normal((4, 3, 3, 3))
M, F = RNG.standard_normal((3, 5)), RNG.standard_normal((4, 5))
ONE, TWO = RNG.standard_normal(4), RNG.standard_normal(4)

# Our function in JAX, arrays for it, settings.
CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "conv2d": ("conv2d", (X, W, B), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}),
    "conv2d same": ("conv2d", (X, W), {"padding": "same", "groups": 2, "algo": "direct"}),
    "conv_transpose2d": ("conv_transpose2d", (X, WT, B), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    "linear": ("linear", (M, F, B[:4]), {}),
    "max_pool2d": ("max_pool2d", (X,), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "avg_pool2d": ("avg_pool2d", (X,), {"kernel_size": (3, 2), "padding": 1, "count_include_pad": False}),
    "adaptive_avg_pool2d": ("adaptive_avg_pool2d", (X,), {"output_size": (3, 2)}),
}


@pytest.fixture
def double() -> Iterator[None]:
    """64 bits, so that finite differences are worth something."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_tensors(case: str) -> None:
    name, arrays, how = CASES[case]
    tensors = [pycnn.Tensor(array.copy(), requires_grad=True) for array in arrays]
    y = getattr(functional, name)(*tensors, **how)
    dy = RNG.standard_normal(y.shape)
    y.backward(pycnn.Tensor(dy))

    def weighted(*given: Any) -> Any:
        return (getattr(ours, name)(*given, **how) * dy).sum()

    # The same kernels ran; the bias alone is added, and summed up, elsewhere.
    near = {"rtol": 1e-12, "atol": 1e-12}
    given = [jnp.asarray(array) for array in arrays]
    for call in (jax.jit, lambda function: function):
        np.testing.assert_allclose(call(partial(getattr(ours, name), **how))(*given), y.detach().data, **near)
        for found, tensor in zip(call(jax.grad(weighted, range(len(given))))(*given), tensors, strict=True):
            np.testing.assert_allclose(found, tensor.grad.data, **near)


def _first(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: function(*given)[0]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("case", [*CASES, "batch_norm"])
def test_gradients_to_the_second_order(case: str) -> None:
    name, arrays, how = CASES.get(case, ("batch_norm", (X, ONE, TWO), {}))
    function = partial(getattr(ours, name), **how)
    function = _first(function) if name == "batch_norm" else function
    given = tuple(jnp.asarray(array) for array in arrays)
    check_grads(function, given, order=2, modes=["rev"], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("double")
def test_batch_norm_gives_its_statistics_with_gradients() -> None:
    y, mean, var = ours.batch_norm(X, ONE, TWO)
    np.testing.assert_allclose(mean, X.mean((0, 2, 3)))
    np.testing.assert_allclose(var, X.var((0, 2, 3)))
    np.testing.assert_allclose(y, functional.batch_norm(X, None, None, ONE, TWO, training=True))
    for i in (1, 2):
        check_grads(lambda x, i=i: ours.batch_norm(x)[i], (jnp.asarray(X),), order=1, modes=["rev"])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("case", CASES)
def test_vmap(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, arrays, how = CASES[case]
    function = partial(getattr(ours, name), **how)
    many = jnp.asarray(RNG.standard_normal((2, 5, *arrays[0].shape)))
    rest = [jnp.asarray(array) for array in arrays[1:]]
    calls: list[Any] = []
    for key in ("conv2d_fprop", "max_pool2d", "avg_pool2d"):
        original = getattr(pycnn.ops, key)

        def counted(x: Any, *given: Any, original: Any = original, **options: Any) -> Any:
            if backends.selected() != "shapes":  # which the arguments are tried on
                calls.append(x.shape)
            return original(x, *given, **options)

        monkeypatch.setattr(ours.ops, key, counted)
    one = jax.vmap(lambda x: function(x, *rest))
    y = jax.jit(one)(many[0])
    if name in ("conv2d", "max_pool2d"):
        assert calls == [(10, 4, 6, 5)]  # one call for all
    for i in range(5):
        np.testing.assert_allclose(y[i], function(many[0, i], *rest), rtol=1e-12)
    nested = jax.vmap(one)(many)
    np.testing.assert_allclose(nested[0], y, rtol=1e-12)
    if len(arrays) > 1:
        ws = jnp.stack([rest[0], -rest[0]])
        both = jax.vmap(lambda x, w: function(x, w, *rest[1:]))(many[:, 0], ws)
        np.testing.assert_allclose(both[1], function(many[1, 0], ws[1], *rest[1:]), rtol=1e-12)

        def loss(w: Any, x: Any) -> Any:
            return (function(x, w, *rest[1:]) ** 2).sum()

        each = jax.vmap(jax.grad(loss), in_axes=(None, 0))(rest[0], many[0])  # a gradient for each image
        np.testing.assert_allclose(each[3], jax.grad(loss)(rest[0], many[0, 3]), rtol=1e-10)


def test_indices_come_on_demand() -> None:
    y, indices = jax.jit(partial(ours.max_pool2d, kernel_size=2, return_indices=True))(X)
    expected = functional.max_pool2d(X.astype(np.float32), 2, return_indices=True)
    assert indices.dtype == jnp.int32
    for found, right in zip((y, indices), expected, strict=True):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_dtypes_stay(name: str) -> None:
    x, w = jnp.asarray(X).astype(name), jnp.asarray(W).astype(name)
    y, dw = jax.jit(jax.value_and_grad(lambda w: ours.conv2d(x, w, groups=2).astype(jnp.float32).sum()))(w)
    assert (y.dtype, dw.dtype) == (jnp.float32, name)
    assert ours.max_pool2d(x, 2).dtype == name


def test_large_arrays_do_not_stall() -> None:
    x = jnp.ones((4, 16, 256, 256))  # beyond what JAX hands over without its own threads
    y = jax.jit(lambda x: ours.avg_pool2d(ours.max_pool2d(x, 2) + 1, 2).sum())(x)
    assert float(y) == 2 * 4 * 16 * 64 * 64


def test_it_trains_under_jit() -> None:
    """Bars at one of four places, told apart by two convolutions."""
    labels = RNG.integers(0, 4, 64)
    images = RNG.standard_normal((64, 1, 12, 12)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[0, 3 * label : 3 * label + 3] += 2
    x, t = jnp.asarray(images), jnp.asarray(labels)
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    shapes = {"w1": (8, 1, 3, 3), "w2": (8, 8, 3, 3), "w3": (4, 72)}
    params = {k: jax.random.normal(key, shape) * 0.2 for key, (k, shape) in zip(keys, shapes.items(), strict=True)}

    def loss(p: Any, conv: Any, pool: Any, product: Any) -> Any:
        h = pool(jax.nn.relu(conv(x, p["w1"])))
        h = pool(jax.nn.relu(conv(h, p["w2"])))
        return -jnp.take_along_axis(jax.nn.log_softmax(product(h.reshape(64, -1), p["w3"])), t[:, None], 1).mean()

    def plain_conv(x: Any, w: Any) -> Any:
        return jax.lax.conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)))

    def plain_pool(x: Any) -> Any:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    mine = partial(ours.conv2d, padding=1), partial(ours.max_pool2d, kernel_size=2), ours.linear
    paths = []
    for parts in (mine, (plain_conv, plain_pool, lambda x, w: x @ w.T)):
        step = jax.jit(jax.value_and_grad(partial(loss, conv=parts[0], pool=parts[1], product=parts[2])))
        now, path = params, []
        for _ in range(20):
            value, slopes = step(now)
            now = jax.tree.map(lambda p, g: p - 0.2 * g, now, slopes)
            path.append(float(value))
        paths.append(np.array(path))
    assert paths[0][-1] < 0.5 * paths[0][0]
    assert np.abs(paths[0] - paths[1]).max() < 1e-4  # float32 in other orders, fed back for 20 steps


def _slope(algo: str) -> Any:
    return jax.grad(lambda w: ours.conv2d(X, w, groups=2, algo=algo).sum())(jnp.asarray(W))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ours.conv2d(X[0], W), ValueError, "x must have 4 dimensions"),
        (lambda: ours.conv2d(X, W), ValueError, "channels disagree"),
        (lambda: ours.conv2d(X, W.astype(np.float16), groups=2), TypeError, "all arrays must have one dtype"),
        (lambda: ours.conv2d(np.ones((1, 1, 3, 3), int), W), TypeError, "x must be floating"),
        (lambda: ours.linear(M, W[0, 0]), ValueError, "does not fit"),
        (lambda: ours.max_pool2d(X, 0), ValueError, "kernel_size"),
        (lambda: ours.conv2d(X, W, np.ones(1, np.float32), groups=2), ValueError, "b must have one value a filter"),
        (lambda: ours.batch_norm(X, np.ones(2, np.float32)), ValueError, "weight must have one value a channel"),
        (lambda: ours.batch_norm(X, None, np.ones(X.shape[1], np.float16)), TypeError, "must have one dtype"),
        (lambda: ours.batch_norm(X, eps=-1), ValueError, "eps must be"),
        (lambda: ours.avg_pool2d(X, 2, divisor_override=0), ValueError, "divisor_override must not be 0"),
        (lambda: ours.avg_pool2d(X, 2, ceil_mode="x"), TypeError, "ceil_mode must be True or False"),
        (lambda: ours.max_pool2d(X, 2, ceil_mode=1), TypeError, "ceil_mode must be True or False"),
        (lambda: ours.conv2d(X, W, groups=2, algo="fft"), ValueError, "algo must be one of auto, .*, got 'fft'"),
        (lambda: ours.conv2d(X, W, groups=2, algo=3), TypeError, "algo must be a string"),
        (lambda: jax.jit(lambda x: ours.conv2d(x, W, groups=2, algo="fft"))(X), ValueError, "algo must be one of"),
        (lambda: ours.conv2d(X, W, stride=2, groups=2, algo="winograd"), ValueError, "cannot run fprop of .*stride 1"),
        (lambda: _slope("winograd_f4x4_3x3"), ValueError, "cannot run wgrad of"),
        (lambda: ours.conv_transpose2d(X, WT, algo="fft"), ValueError, "algo must be one of"),
        (lambda: ours.conv_transpose2d(X, WT, stride=2, algo="winograd"), ValueError, "cannot run dgrad of"),
    ],
)
def test_refusals_come_while_jax_traces(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
