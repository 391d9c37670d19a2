"""What a network launches, found out without launching: the same as what the simulator is then asked to run."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import pycnn
from pycnn import models, nn
from pycnn.backends import sim, trace
from pycnn.backends.cuda import UnavailableError
from pycnn.backends.cuda.device_trace import Hollow, TraceDevice, hollow
from pycnn.backends.trace import tracing
from pycnn.jit.sources import Instance, installed
from pycnn.models.kernels import kernels_of
from pycnn.nn import init


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.Sigmoid(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, 5),
    )


def step(net: nn.Module, x: np.ndarray) -> None:
    """The forward pass as in evaluation, then a step of training."""
    net.eval()
    with pycnn.no_grad():
        net(pycnn.Tensor(x))
    net.train()
    pycnn.functional.cross_entropy(net(pycnn.Tensor(x)), pycnn.Tensor(np.zeros(len(x), np.int64))).backward()


@pytest.mark.simulator
def test_a_traced_step_launches_what_the_simulator_runs() -> None:
    simulated = sim._default().host.device.launches
    before = len(simulated)
    with pycnn.use_backend("sim"):
        step(small_network(), np.zeros((2, 3, 12, 12), np.float32))
    with tracing("sm_90a") as device:
        step(small_network(), hollow((2, 3, 12, 12), "float32"))
    assert len(device.launches) > 15
    assert device.launches == simulated[before:]


def names(kernels: list[Instance]) -> list[str]:
    return [kernel.kernel for kernel in kernels]


def test_the_forward_pass_alone_has_no_gradients() -> None:
    kernels = names(kernels_of(small_network(), (3, 12, 12), "sm_90a"))
    assert "max_pool2d_fwd" in kernels
    assert not [name for name in kernels if any(word in name for word in ("bwd", "dgrad", "wgrad", "dropout", "step"))]


def test_training_has_every_pass_and_the_optimisers() -> None:
    kernels = kernels_of(small_network(), (3, 12, 12), "sm_90a", batch=4, train=True)
    assert len(set(kernels)) == len(kernels)
    expected = {"max_pool2d_fwd", "max_pool2d_bwd", "dropout", "batch_norm_dx", "sgd_step", "adam_step", "sum_slices"}
    assert expected <= set(names(kernels))
    for operator in ("fprop", "dgrad", "wgrad"):
        assert [name for name in names(kernels) if name.startswith(f"conv2d_{operator}")]


def test_plans_follow_the_batch() -> None:
    few, many = (
        kernels_of(nn.Conv2d(64, 64, 3, padding=1), (64, 14, 14), "sm_90a", batch=batch, train=False)
        for batch in (0, 1)
    )
    assert few == []
    assert len(many) >= 1


def test_a_large_network_takes_neither_memory_nor_time() -> None:
    """ResNet-50 at 128 images keeps some 11 GiB of activations for its backward pass."""
    with init.skip():
        net = models.create("resnet50")
    tracemalloc.start()
    try:
        kernels = kernels_of(net, (3, 224, 224), "sm_90a", batch=128, train=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(kernels) > 20
    assert peak < 40e6  # the graph and its Python objects


@pytest.mark.parametrize("name", ["lenet5_1998", "alexnet_two_tower", "googlenet", "resnet20", "vgg_a_lrn"])
@pytest.mark.parametrize("arch", ["sm_75", "sm_90a"])
def test_networks_can_be_trained(name: str, arch: str) -> None:
    with init.skip():
        net = models.create(name)
    kernels = kernels_of(net, models.info(name).input_shape, arch, batch=8, train=True)
    assert "conv2d_wgrad" in " ".join(names(kernels))


def test_an_operator_without_a_kernel_is_named() -> None:
    with pytest.raises(UnavailableError, match=r"the cuda backend has no kernel for .*float64"):
        kernels_of(nn.Conv2d(3, 3, 3).to("float64"), (3, 8, 8), "sm_90a")


def test_outside_of_a_trace_the_backend_says_so() -> None:
    with pycnn.use_backend("trace"), pytest.raises(RuntimeError, match="works within"):
        pycnn.ops.relu(np.zeros(3, np.float32))
    with pytest.raises(AttributeError):
        trace._nothing  # noqa: B018
    assert not hasattr(trace, "nothing")  # pickle asks all modules for a name


def test_an_instance_of_another_arch_is_refused() -> None:
    instance = installed().instances[0]
    with pytest.raises(ValueError, match=r"is for .*, not sm_60"):
        TraceDevice("sm_60").load(instance)


CASES = {
    "sum": lambda a, b: a + b,
    "scalar": lambda a, b: a * 2.5,
    "scalar of another dtype": lambda a, b: a * np.float64(2.5),
    "broadcast": lambda a, b: a / b[:1, :, :1],
    "comparison": lambda a, b: a > b,
    "two results": lambda a, b: np.frexp(a)[1],
    "all": lambda a, b: a.sum(),
    "axis": lambda a, b: a.sum(axis=1),
    "axes": lambda a, b: a.max(axis=(0, -1), keepdims=True),
    "dtype": lambda a, b: a.sum(axis=0, dtype="float64"),
    "mean": lambda a, b: a.mean(axis=(1, 2)),
    "argmax": lambda a, b: a.argmax(1),
    "astype": lambda a, b: a.astype("float16"),
    "copy": lambda a, b: a[:, 1:].copy(),
    "reshape": lambda a, b: a.reshape(2, -1),
    "transpose": lambda a, b: a.transpose(2, 0, 1) + 1,
    "concatenate": lambda a, b: np.concatenate([a, b, a], axis=-1),
    "where": lambda a, b: np.where(a > 0, a, 0.0),
    "like": lambda a, b: np.zeros_like(a),
    "matmul": lambda a, b: a @ b.swapaxes(1, 2),
    "cumulative": lambda a, b: np.add.accumulate(a, axis=1),
}


@pytest.mark.parametrize("case", CASES)
def test_hollow_results_have_the_shape_and_dtype_of_real_ones(case: str) -> None:
    shape = (2, 3, 4)
    real = CASES[case](np.ones(shape, np.float32), np.ones(shape, np.float32))
    found = CASES[case](hollow(shape, "float32"), hollow(shape, "float32"))
    assert (found.shape, found.dtype) == (real.shape, real.dtype)


def test_writing_into_a_hollow_array_does_nothing() -> None:
    array = hollow((4, 4), "float32")
    before = array
    array += 1
    array[0] = 7
    array.fill(3)
    np.copyto(array, 2)
    np.add.at(array, 0, 1)
    assert array is before
    assert not np.asarray(array).any()
    assert array.flags.c_contiguous
    assert array.ctypes.data % 512 == 0  # as CuPy's


def test_hollow_arithmetic_takes_no_memory() -> None:
    huge = hollow((2**12, 2**12, 2**12), "float32")  # 256 GiB
    result = np.concatenate([np.where(huge > 1, huge * 2, 0.0) - huge.mean(), huge])
    assert type(result) is Hollow
    assert result.shape == (2**13, 2**12, 2**12)
