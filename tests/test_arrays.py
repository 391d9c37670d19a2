"""Arrays of any library go in and come out as the same kind, without a copy on the way in."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import ops
from pycnn.ops._arrays import Call, kind

pytestmark = pytest.mark.usefixtures("backend")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 6, 7)).astype(np.float32)
W = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
B = RNG.standard_normal(4).astype(np.float32)


class Exporter:
    """Something of a library nobody has heard of, with nothing but DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_numpy_is_not_copied() -> None:
    call = Call("b", x=X, w=W, b=None)
    assert call.arrays[0] is X
    assert call.arrays[2] is None


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        lambda x: x[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
        lambda x: np.repeat(x, 2, axis=3)[:, :, :, ::2],
        lambda x: x.astype(x.dtype.newbyteorder(">")),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
        lambda x: x.view(type("Subclass", (np.ndarray,), {})),
    ],
    ids=["channels last", "reversed", "gaps", "big endian", "unaligned", "subclass"],
)
def test_any_numpy_array_gives_the_same(change: Any) -> None:
    x = change(X)
    x.flags.writeable = False
    before = x.tobytes()
    y = ops.conv2d_fprop(x, W, B, padding=1)
    # Equal values in other strides may be summed in another order: 27 terms of float32.
    np.testing.assert_allclose(y, ops.conv2d_fprop(X, W, B, padding=1), rtol=0, atol=1e-5)
    assert type(y) is np.ndarray
    assert y.dtype == np.float32
    assert x.tobytes() == before


def test_zero_dimensions_stay_zero() -> None:
    y = ops.relu(np.array(-1.0))
    assert y.shape == ()
    assert ops.dropout(np.array(2.0), 0.0, 1).shape == ()


def test_float16_is_computed_in_float32() -> None:
    """2048 + 1 + 1 is 2050; summed in float16 it would stay 2048."""
    x = np.array([2048, 1, 1], np.float16).reshape(1, 3, 1, 1)
    y = ops.conv2d_fprop(x, np.ones((1, 3, 1, 1), np.float16))
    assert y.dtype == np.float16
    assert y.item() == 2050


@pytest.mark.filterwarnings("error")
def test_float16_overflows_to_infinity() -> None:
    assert ops.add(np.array([6e4], np.float16), np.array([6e4], np.float16)).tolist() == [np.inf]


def test_float16_keeps_its_indices() -> None:
    y, indices = ops.max_pool2d(X.astype(np.float16), 2)
    assert (y.dtype, indices.dtype) == (np.float16, np.int64)
    np.testing.assert_array_equal(ops.plane_take(X.astype(np.float16), indices), y)


def test_bfloat16_of_ml_dtypes() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    y = ops.conv2d_fprop(X.astype(bfloat16), W.astype(bfloat16))
    assert y.dtype == bfloat16
    exact = ops.conv2d_fprop(X.astype(bfloat16).astype(np.float32), W.astype(bfloat16).astype(np.float32))
    np.testing.assert_array_equal(y, exact.astype(bfloat16))


def test_bfloat16_of_torch_needs_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(TypeError, match=r"x cannot be read .* bfloat16 needs the package ml_dtypes"):
        ops.relu(torch.zeros(3, dtype=torch.bfloat16))


def test_dlpack_alone_is_enough() -> None:
    y = ops.conv2d_fprop(Exporter(X), Exporter(W), Exporter(B))
    assert isinstance(y, np.ndarray)
    np.testing.assert_array_equal(y, ops.conv2d_fprop(X, W, B))
    assert np.shares_memory(Call(x=Exporter(X)).arrays[0], X)


def test_dlpack_of_another_device_is_named() -> None:
    class Far(Exporter):
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, **kwargs: Any) -> Any:
            raise BufferError("on a GPU")

    with pytest.raises(TypeError, match="x cannot be read through DLPack: "):
        ops.relu(Far(X))


def test_libraries_do_not_mix() -> None:
    with pytest.raises(TypeError, match="one library, got x: numpy, w: dlpack"):
        ops.conv2d_fprop(X, Exporter(W))
    y, indices = ops.max_pool2d(X, 2)
    with pytest.raises(TypeError, match="one library, got indices: dlpack beside numpy"):
        ops.plane_take(y, Exporter(indices))


def test_an_object_with_a_shape_is_no_array() -> None:
    with pytest.raises(TypeError, match="not an array"):
        kind(SimpleNamespace(shape=(1,), dtype=np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_indices_may_be_any_integers(dtype: type) -> None:
    y, indices = ops.max_pool2d(X, 2)
    np.testing.assert_array_equal(ops.plane_take(X, indices.astype(dtype)), y)


class TestTorch:
    torch = property(lambda self: pytest.importorskip("torch"))

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
    def test_same_kind_out(self, dtype: str) -> None:
        torch = self.torch
        dtype = getattr(torch, dtype)
        x, w, b = (torch.from_numpy(a).to(dtype) for a in (X, W, B))
        y = ops.conv2d_fprop(x, w, b, padding=1)
        assert isinstance(y, torch.Tensor)
        assert y.dtype == dtype
        expected = torch.nn.functional.conv2d(x.double(), w.double(), b.double(), padding=1)
        # One rounding to the dtype, at values below 16, on top of float32's 28 terms.
        assert (y.double() - expected).abs().max() <= 16 * torch.finfo(dtype).eps / 2 + 1e-5

    def test_zero_copy(self) -> None:
        torch = self.torch
        x = torch.zeros(4)
        assert Call(x=x).arrays[0].ctypes.data == x.data_ptr()
        half = torch.zeros(4, dtype=torch.bfloat16)
        half[2] = 3
        assert ops.relu(half).tolist() == [0, 0, 3, 0]

    def test_awkward_tensors(self) -> None:
        torch = self.torch
        x = torch.from_numpy(X)
        expected = ops.conv2d_fprop(X, W)
        weight = torch.nn.Parameter(torch.from_numpy(W))
        for tensor in (x.to(memory_format=torch.channels_last), x.clone().requires_grad_()):
            y = ops.conv2d_fprop(tensor, weight)
            assert not y.requires_grad
            np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=1e-5)  # other strides, another order of sums
        repeated = x[:1].expand(2, 3, 6, 7)  # a stride of 0
        assert torch.equal(ops.relu(repeated), repeated.clamp(min=0))
        imaginary = torch.conj(torch.complex(torch.zeros(3), -torch.ones(3))).imag  # a view that is negated lazily
        assert ops.relu(imaginary).tolist() == [1, 1, 1]
        assert ops.relu(torch.zeros(0, 3)).shape == (0, 3)
        assert ops.relu(torch.tensor(-1.0)).shape == ()

    def test_refusals(self) -> None:
        torch = self.torch
        with pytest.raises(TypeError, match="x is a torch tensor on meta"):
            ops.relu(torch.zeros(3, device="meta"))
        with pytest.raises(TypeError, match="x must be a dense torch tensor"):
            ops.relu(torch.zeros(3).to_sparse())
        with pytest.raises(TypeError, match="one library, got x: torch, w: numpy"):
            ops.conv2d_fprop(torch.from_numpy(X), W)

    def test_several_results(self) -> None:
        torch = self.torch
        x = torch.from_numpy(X)
        y, indices = ops.max_pool2d(x, 2)
        assert (y.dtype, indices.dtype) == (torch.float32, torch.int64)
        assert torch.equal(ops.plane_take(x, indices), y)
        dx = ops.max_pool2d_backward(y, indices, x.shape, 2)
        assert dx.shape == x.shape
        assert all(isinstance(a, torch.Tensor) for a in ops.batch_norm(x))

    def test_subclass_counts_as_torch(self) -> None:
        torch = self.torch
        x = torch.zeros(3).as_subclass(type("Mine", (torch.Tensor,), {"__module__": "mine"}))
        assert kind(x) == "torch"


def test_jax_arrays() -> None:
    jax = pytest.importorskip("jax")
    for dtype in ("float32", "bfloat16", "float16"):
        x, w = (jax.numpy.asarray(a).astype(dtype) for a in (X, W))
        y = ops.conv2d_fprop(x, w)
        assert isinstance(y, jax.Array)
        assert str(y.dtype) == dtype
        assert np.shares_memory(Call(x=x).arrays[0], np.asarray(x)) or dtype != "float32"
    x = jax.numpy.asarray(X)
    y, indices = ops.max_pool2d(x, 2)
    assert (np.asarray(ops.plane_take(x, indices)) == np.asarray(y)).all()


def address(array: Any) -> int:
    """Where the first element of an array of any library lies."""
    if hasattr(array, "data_ptr"):
        return array.data_ptr()
    return array.unsafe_buffer_pointer() if hasattr(array, "unsafe_buffer_pointer") else array.ctypes.data


def foreign(library: str, array: np.ndarray) -> Any:
    """`array`, copied into one of another library."""
    if library == "numpy":
        return array.copy(order="K")
    module = pytest.importorskip(library)
    if library == "jax":
        return module.numpy.asarray(array)
    bits = array.view(np.int16) if array.dtype.name == "bfloat16" else array
    tensor = module.from_numpy(bits.copy(order="K"))
    return tensor.view(module.bfloat16) if bits is not array else tensor


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "int32", "uint8", "bool"])
class TestExchange:
    """`pycnn.from_dlpack` and `Tensor.__dlpack__`."""

    @pytest.fixture
    def theirs(self, library: str, name: str) -> Any:
        if name == "bfloat16":
            ml_dtypes = pytest.importorskip("ml_dtypes")
            if library == "numpy":  # whose own DLPack leaves it out
                return pycnn.Tensor(X.astype(ml_dtypes.bfloat16))
        return foreign(library, X.astype(name))

    def test_in_without_a_copy(self, theirs: Any, library: str, name: str) -> None:
        tensor = pycnn.from_dlpack(theirs)
        assert tensor.dtype.name == name
        assert tensor.shape == X.shape
        assert address(tensor.data) == address(theirs.data if isinstance(theirs, pycnn.Tensor) else theirs)
        assert tensor.data.astype(np.float32).tolist() == X.astype(tensor.dtype).astype(np.float32).tolist()
        assert tensor.data.flags.writeable == (library != "jax")  # JAX's arrays never change

    def test_out_without_a_copy(self, library: str, name: str) -> None:
        if name == "bfloat16":
            pytest.importorskip("ml_dtypes")
        if (library, name) == ("numpy", "bfloat16"):
            pytest.skip("NumPy reads no bfloat16 by DLPack; np.asarray(tensor) gives it")
        mine = pycnn.Tensor(ops.add(X, X).astype(np.dtype(name)))
        if library == "jax":
            lines = 64  # bytes: what XLA asks of memory that it is to share
            mine = pycnn.Tensor(aligned(mine.data, lines))
        back = getattr(pytest.importorskip(library), "dlpack" if library == "jax" else "from_dlpack")
        theirs = (back.from_dlpack if library == "jax" else back)(mine)
        assert name in str(theirs.dtype)
        assert address(theirs) == address(mine.data)


def aligned(array: np.ndarray, alignment: int) -> np.ndarray:
    """A copy that begins at a multiple of `alignment` bytes."""
    memory = np.empty(array.nbytes + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_strides_cross_both_ways(library: str) -> None:
    last = np.ascontiguousarray(X.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for array in (last, X[:, ::2, 1:, ::3], X.T, np.broadcast_to(X[:, :1], X.shape)):
        if library == "torch":
            theirs = pytest.importorskip("torch").from_dlpack(pycnn.Tensor(array))
            assert theirs.stride() == tuple(step // 4 for step in array.strides)
        else:
            theirs = np.from_dlpack(pycnn.Tensor(array))
            assert theirs.strides == array.strides
        back = pycnn.from_dlpack(theirs)
        assert back.data.strides == array.strides
        assert address(back.data) == address(array)


@pytest.mark.parametrize("library", ["numpy", "torch", "jax.dlpack"])
def test_reversed_axes_cross_as_copies(library: str) -> None:
    """PyTorch would end the process at a negative stride."""
    mine = pycnn.Tensor(X[:, ::-1, :, ::-1])
    theirs = pytest.importorskip(library).from_dlpack(mine)
    assert np.array_equal(np.asarray(theirs), X[:, ::-1, :, ::-1])
    with pytest.raises(BufferError, match="needs a copy"):
        mine.__dlpack__(copy=False)


def test_options_of_the_protocol() -> None:
    tensor = pycnn.Tensor(X.copy())
    name = "dltensor_versioned" if np.lib.NumpyVersion(np.__version__) >= "2.1.0" else "dltensor"
    assert '"dltensor"' in repr(tensor.__dlpack__())
    assert f'"{name}"' in repr(tensor.__dlpack__(max_version=(1, 0)))
    assert tensor.__dlpack_device__() == (1, 0)
    assert np.shares_memory(np.from_dlpack(tensor), tensor.data)
    with pytest.raises(BufferError):
        tensor.__dlpack__(dl_device=(2, 0), max_version=(1, 0))
    copy = np.from_dlpack(tensor, copy=True)
    assert not np.shares_memory(copy, tensor.data)
    assert np.array_equal(copy, X)
    assert not np.shares_memory(pycnn.from_dlpack(X, copy=True).data, X)
    assert np.shares_memory(pycnn.from_dlpack(X, copy=False, device="cpu").data, X)
    with pytest.raises(BufferError, match="x is on cpu: it does not get to cuda:0 without a copy"):
        pycnn.from_dlpack(X, copy=False, device="cuda:0")
    with pytest.raises(TypeError, match="x must be an array with __dlpack__"):
        pycnn.from_dlpack([1.0, 2.0])


def test_read_only_arrays_are_never_written() -> None:
    x = X.copy()
    x.flags.writeable = False
    tensor = pycnn.from_dlpack(x)
    assert not tensor.data.flags.writeable
    assert not np.from_dlpack(tensor).flags.writeable
    with pytest.raises(BufferError):
        tensor.__dlpack__()  # a reader of before DLPack 1.0 could not be told
    with pytest.raises(ValueError, match="read-only"):
        tensor += 1
    parameter = pycnn.nn.Parameter(tensor.data)
    parameter.grad = pycnn.Tensor(np.ones_like(X))
    for optimizer in (pycnn.optim.SGD, pycnn.optim.Adam):
        with pytest.raises(ValueError, match=r"read-only|writeable"):
            optimizer([parameter], lr=1.0).step()
    mean = x[0, :, 0, 0]
    with pytest.raises(ValueError, match=r"read-only|writeable"):
        pycnn.functional.batch_norm(X, mean, mean, training=True)
    assert np.array_equal(x, X)


def test_jax_results_share_the_engines_memory() -> None:
    jax = pytest.importorskip("jax")
    made = aligned(X, 64)  # as the CPU engine's memory is; JAX copies what is not
    y = Call(x=jax.numpy.asarray(X)).back(made)
    assert isinstance(y, jax.Array)
    assert address(y) == address(made)
    assert np.array_equal(np.asarray(y), X)
    with pycnn.use_backend("cpu"):
        assert ops.add(X, X).ctypes.data % 64 == 0


def test_a_traced_array_is_sent_to_the_right_door() -> None:
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match=r"x is traced by JAX .* pycnn\.jax"):
        jax.jit(ops.relu)(jax.numpy.asarray(X))


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_torch_channels_last_in_and_out(name: str) -> None:
    torch = pytest.importorskip("torch")
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    last = torch.channels_last
    x, w = (torch.from_numpy(a).to(getattr(torch, name)) for a in (X, W))
    seen = x.to(memory_format=last)
    assert Call(x=seen).arrays[0].__array_interface__["data"][0] == seen.data_ptr() or name == "bfloat16"
    y = ops.conv2d_fprop(seen, w)
    assert y.is_contiguous(memory_format=last)
    assert not y.is_contiguous()
    assert ops.conv2d_fprop(x, w).is_contiguous()
    assert all(one.is_contiguous(memory_format=last) for one in ops.max_pool2d(seen, 2))


P = RNG.standard_normal((2, 4, 4, 5)).astype(np.float32)  # a result of X and W, and something to be added to it
ONE, TWO, THREE = (np.abs(RNG.standard_normal(3)).astype(np.float32) + 0.1 for _ in range(3))  # values by channel of X
M = RNG.standard_normal((5, 6)).astype(np.float32)
F = np.abs(RNG.standard_normal(5)).astype(np.float32) + 0.1

# An operator, what has 16 bits, and what has one value a channel and stays in float32.
MIXTURES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "conv2d": (ops.conv2d_fprop, {"x": X, "w": W, "residual": P}, {"b": B, "scale": B}),
    "conv_transpose2d": (ops.conv_transpose2d_fprop, {"x": P, "w": W}, {"b": ONE}),
    "linear": (ops.linear, {"x": M, "w": M}, {"b": F}),
    "batch_norm": (ops.batch_norm, {"x": X, "residual": X}, {"weight": ONE, "bias": TWO}),
    "batch_norm_backward": (ops.batch_norm_backward, {"dy": X, "x": X}, {"weight": ONE, "mean": TWO, "var": THREE}),
    "batch_norm_eval": (ops.batch_norm_eval, {"x": X}, {"mean": TWO, "var": ONE, "weight": TWO, "bias": THREE}),
    "channel_affine": (ops.channel_affine, {"x": X}, {"scale": ONE, "shift": TWO}),
}


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("which", MIXTURES)
def test_what_has_one_value_a_channel_may_be_float32_beside_16_bits(which: str, name: str) -> None:
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    dtype = np.dtype(name)
    operator, half, single = MIXTURES[which]
    rounded = {key: array.astype(dtype) for key, array in half.items()}
    found = operator(**rounded, **single)
    expected = operator(**{key: array.astype(np.float32) for key, array in rounded.items()}, **single)
    if not isinstance(found, tuple):
        found, expected = (found,), (expected,)
    assert found[0].dtype == dtype  # x decides
    assert np.array_equal(found[0], expected[0].astype(dtype))
    for one, right in zip(found[1:], expected[1:], strict=True):  # statistics, and gradients of what is float32
        assert one.dtype == np.float32
        assert np.array_equal(one, right)
    for key in single:  # as 16 bits they are other numbers, unless they happen not to matter
        narrowed = operator(**rounded, **(single | {key: single[key].astype(dtype)}))
        narrowed = narrowed if isinstance(narrowed, tuple) else (narrowed,)
        assert any(not np.array_equal(a, b) for a, b in zip(found, narrowed, strict=True)), key
    with pytest.raises(TypeError, match="all arrays must have one dtype"):
        operator(**rounded, **(single | {key: single[key].astype(np.float64)}))
    with pytest.raises(TypeError, match="all arrays must have one dtype"):
        operator(**half, **(single | {key: single[key].astype(dtype)}))


def test_the_gradient_of_a_bias_may_be_float32_beside_16_bits() -> None:
    dy, x = P.astype(np.float16), X.astype(np.float16)
    total = ops.channel_sum(dy.astype(np.float32))
    assert ops.channel_sum(dy).dtype == np.float16
    assert np.array_equal(ops.channel_sum(dy, "float32"), total)
    dw, db = ops.conv2d_wgrad(dy, x, W.shape, bias=True, bias_dtype=np.float32)
    assert dw.dtype == np.float16
    assert np.array_equal(db, total)
    assert ops.conv2d_wgrad(dy, x, W.shape, bias=True)[1].dtype == np.float16
    for call in (
        lambda: ops.channel_sum(P, "float16"),
        lambda: ops.conv2d_wgrad(P, X, W.shape, bias=True, bias_dtype="float64"),
    ):
        with pytest.raises(TypeError, match=r"dtype must be the arrays' own, float32, got float(16|64)"):
            call()
    with pytest.raises(TypeError, match="dtype must be the arrays' own, float16 or float32, got int32"):
        ops.channel_sum(dy, np.int32)


def test_statistics_of_16_bits_are_not_rounded() -> None:
    x = (X + 20).astype(np.float16)
    _, mean, var = ops.batch_norm(x)
    _, expected, spread = ops.batch_norm(x.astype(np.float32))
    assert np.array_equal(mean, expected)
    assert np.array_equal(var, spread)
    _, dweight, dbias = ops.batch_norm_backward(x, x, ONE.astype(np.float16), mean, var)
    assert dweight.dtype == dbias.dtype == np.float16  # the weight's
    _, dweight, _ = ops.batch_norm_backward(x, x, None, mean, var)
    assert dweight.dtype == np.float32
