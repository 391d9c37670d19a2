"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

# For benchmarks; at the end, so that an installed pycnn stays the one under test.
sys.path.append(str(Path(__file__).resolve().parents[1]))
os.environ["PYCNN_TUNING"] = "off"  # what somebody measured on this machine is nobody's expectation

import pycnn

# Tests that take the `backend` fixture run once for each of these.  A native module that is built but broken fails.
BACKENDS = ["reference", *(["cpu"] if importlib.util.find_spec("pycnn._cpu") else [])]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also what takes minutes: all archs, large networks")


# Examples that Hypothesis draws: the same every time, or, with --slow, many and others each time.
hypothesis.settings.register_profile("fast", max_examples=300, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("slow", max_examples=20000, deadline=None, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("slow" if config.getoption("--slow") else "fast")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: run with --slow"))


@pytest.fixture
def on_reference() -> Iterator[None]:
    """The reference backend, for what is tested above the operators."""
    with pycnn.use_backend("reference"):
        yield


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend that can run here, selected for the length of the test; its name."""
    with pycnn.use_backend(request.param):
        yield request.param


@pytest.fixture
def engine_as_found() -> Iterator[None]:
    """The test starts from the default threads and the best instruction set, and leaves them so."""
    yield
    pycnn.set_isa("auto")
    pycnn.set_num_threads(0)


@pytest.fixture(params=["float16", "bfloat16"])
def low(request: pytest.FixtureRequest) -> np.dtype[Any]:
    """A dtype of 16 bits."""
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return np.dtype(request.param)


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """PyTorch's own threads only slow small arrays down."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
