"""Settings for good and for a block: `use_backend`, and `use_accuracy` and `use_precision`, made the same way."""

import threading

import numpy as np
import pytest

import pycnn
from pycnn import algorithms, backends, ops
from pycnn.backends import reference


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for kind in (pycnn.use_backend, pycnn.use_accuracy, pycnn.use_precision):
        monkeypatch.setattr(kind, "lasting", [])


def test_a_block_ends():
    with pycnn.use_backend("reference"):
        with pycnn.use_backend("shapes"):
            assert backends.selected() == "shapes"
        assert backends.selected() == "reference"
    assert backends.selected() is None
    assert algorithms.accuracy() == "fast"


def test_without_a_block_it_lasts():
    pycnn.use_backend("reference")
    with pycnn.use_backend("cpu"):
        assert backends.selected() == "cpu"
    assert backends.selected() == "reference"
    pycnn.use_backend("shapes")
    assert backends.selected() == "shapes"
    pycnn.use_backend(None)
    assert backends.selected() is None


def test_none_inside_a_block_lets_the_array_decide():
    pycnn.use_backend("reference")
    with pycnn.use_backend(None):
        assert backends.selected() is None
    assert backends.selected() == "reference"


def test_a_block_holds_for_its_thread_and_a_lasting_one_for_all():
    seen = []
    pycnn.use_accuracy("strict")
    with pycnn.use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append((backends.selected(), algorithms.accuracy())))
        thread.start()
        thread.join()
    assert seen == [(None, "strict")]


def test_blocks_of_two_threads_leave_nothing_behind():
    first, second = pycnn.use_backend("reference"), pycnn.use_backend("reference")  # both made before either is entered
    with first, second:
        pass
    assert backends.selected() is None


def test_a_failed_block_ends_too():
    with pytest.raises(KeyError), pycnn.use_accuracy("strict"):
        raise KeyError
    assert algorithms.accuracy() == "fast"


@pytest.mark.parametrize("use", [pycnn.use_backend, pycnn.use_accuracy, pycnn.use_precision])
def test_an_unknown_name_changes_nothing(use):
    with pytest.raises(ValueError, match="must be one of"):
        use("fastest")
    assert use.lasting == []


PRODUCTS = ("conv2d_fprop", "conv2d_dgrad", "conv2d_wgrad", "linear_fwd", "gemm")


@pytest.fixture
def asked(monkeypatch):
    """What the reference's products are allowed when they are called: (function, precision, accuracy), in turn."""
    seen = []

    def recording(name, function):
        def call(*args, **options):
            seen.append((name, algorithms.precision(), algorithms.accuracy()))
            return function(*args, **options)

        return call

    for name in PRODUCTS:
        monkeypatch.setattr(reference, name, recording(name, getattr(reference, name)))
    with pycnn.use_backend("reference"):
        yield seen


X, W = np.ones((2, 3, 5, 5), np.float32), np.ones((4, 3, 3, 3), np.float32)
Y, M = np.ones((2, 4, 3, 3), np.float32), np.ones((4, 4), np.float32)
TURNED = np.ones((3, 4, 3, 3), np.float32)  # filters of a transposed convolution of X, whose output is like WIDE
WIDE = np.ones((2, 4, 7, 7), np.float32)


@pytest.mark.parametrize(
    ("function", "args", "reaches"),
    [
        (ops.conv2d_fprop, (X, W), "conv2d_fprop"),
        (ops.conv2d_dgrad, (Y, W, X.shape), "conv2d_dgrad"),
        (ops.conv2d_wgrad, (Y, X, W.shape), "conv2d_wgrad"),
        (ops.conv_transpose2d_fprop, (X, TURNED), "conv2d_dgrad"),
        (ops.conv_transpose2d_dgrad, (WIDE, TURNED, X.shape), "conv2d_fprop"),
        (ops.conv_transpose2d_wgrad, (WIDE, X, TURNED.shape), "conv2d_wgrad"),
        (ops.linear, (M, M), "linear_fwd"),
        (ops.gemm, (M, M), "gemm"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_product_may_use_what_its_call_or_else_the_block_names(asked, function, args, reaches):
    function(*args)
    with pycnn.use_precision("tf32"):
        function(*args)
        function(*args, precision="3xtf32")
        function(*args)
    assert [(name, precision) for name, precision, _ in asked] == [
        (reaches, "float32"),
        (reaches, "tf32"),
        (reaches, "3xtf32"),
        (reaches, "tf32"),
    ]
    with pytest.raises(ValueError, match=f"precision must be one of {', '.join(algorithms.PRECISIONS)}, got 'half'"):
        function(*args, precision="half")
    assert algorithms.precision() == "float32"


@pytest.mark.parametrize("function", [pycnn.conv2d, pycnn.conv_transpose2d])
def test_a_convolution_has_its_precision_and_accuracy_in_all_passes(asked, function):
    w = pycnn.Tensor(W if function is pycnn.conv2d else TURNED, requires_grad=True)
    x = pycnn.Tensor(X, requires_grad=True)
    for grad in pycnn.grad(function(x, w, precision="tf32", accuracy="strict").sum(), [x, w], create_graph=True):
        (grad * grad).sum().backward()
    assert {one[1:] for one in asked} == {("tf32", "strict")}
    assert {one[0] for one in asked} == {"conv2d_fprop", "conv2d_dgrad", "conv2d_wgrad"}
    del asked[:]
    function(X[0], w, precision="3xtf32")
    assert [one[1:] for one in asked] == [("3xtf32", "fast")]


def test_a_full_layer_has_its_precision_in_all_passes(asked):
    x, w = (pycnn.Tensor(np.ones((2, 4, 4), np.float32)[i:], requires_grad=True) for i in (0, 1))
    for grad in pycnn.grad(pycnn.linear(x, w[0], precision="tf32").sum(), [x, w], create_graph=True):
        (grad * grad).sum().backward()
    assert {one[1] for one in asked} == {"tf32"}
    assert {one[0] for one in asked} == {"linear_fwd", "gemm"}
