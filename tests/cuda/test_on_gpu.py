"""What test_library and test_capture prove on a CuPy that is played, on the real one, where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_capture
import test_library

import pycnn
from pycnn import Tensor, backends, nn, optim

pytestmark = pytest.mark.skipif(not pycnn.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("name", test_library.OPERATIONS)
def test_operations_and_their_gradients_are_those_of_the_cpu(name: str) -> None:
    test_library.test_operations_and_their_gradients_are_those_of_the_cpu(None, name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("optimizer", "options"), [(optim.SGD, {"lr": 0.1, "momentum": 0.9}), (optim.AdamW, {"lr": 0.01})]
)
def test_training_steps_are_those_of_the_cpu(optimizer: Any, options: dict[str, Any]) -> None:
    test_library.test_training_steps_are_those_of_the_cpu(None, optimizer, options)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [test_library.residual, test_library.inception])
def test_blocks_forward_and_backward_are_those_of_the_cpu(make: Callable[[], nn.Module]) -> None:
    test_library.test_blocks_forward_and_backward_are_those_of_the_cpu(None, make)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", test_capture.OPTIMIZERS)
def test_replays_are_eager_steps(name: str) -> None:
    test_capture.test_replays_are_eager_steps(None, name)  # type: ignore[arg-type]


def test_each_shape_has_a_graph_of_its_own() -> None:
    test_capture.test_each_shape_has_a_graph_of_its_own(None)  # type: ignore[arg-type]


def test_what_waits_cannot_be_captured() -> None:
    call = pycnn.cuda.capture(lambda x: x * x.sum().item())
    x = pycnn.ones(3)
    for _ in range(2):
        call(x)
    with pytest.raises(pycnn.cuda.CaptureError, match="the step cannot be captured"):
        call(x)
    assert (pycnn.ones(3, device="cuda") * 2.0).numpy().tolist() == [2.0] * 3  # and the GPU goes on


def test_a_call_is_timed_by_events() -> None:
    x = Tensor(np.ones(2**20, np.float32)).cuda()
    times = backends.get("cuda").timed(lambda: pycnn.relu(x), 5)
    assert len(times) == 5
    assert all(0 < each < 1 for each in times)
