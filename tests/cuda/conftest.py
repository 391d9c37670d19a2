"""What the CUDA tests need: g++ for the simulator, NVRTC for cubins and PTX; tests without theirs are skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycnn.jit import MissingToolError, nvrtc

# The simulator is compiled from csrc/sim of this checkout, also where the package under test is an installed one.
os.environ.setdefault("PYCNN_REPOSITORY", str(Path(__file__).resolve().parents[2]))


def _has_nvrtc() -> bool:
    try:
        nvrtc.version()
    except MissingToolError:
        return False
    return True


HAS_NVRTC = _has_nvrtc()
HAS_COMPILER = shutil.which("g++") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("nvrtc") and not HAS_NVRTC:
            item.add_marker(pytest.mark.skip(reason="NVRTC is not installed (pip install 'pycnn[cuda13]')"))
        if item.get_closest_marker("simulator") and not HAS_COMPILER:
            item.add_marker(pytest.mark.skip(reason="the simulator needs g++"))


_MANY = 2000  # tests: for fewer it is not worth compiling every kernel


@pytest.fixture(scope="session", autouse=True)
def _compiled_ahead(request: pytest.FixtureRequest) -> Iterator[None]:
    """A process that compiles kernels on another core while the tests run; their cache may be empty."""
    if len(request.session.items) < _MANY or len(os.sched_getaffinity(0)) < 2:
        yield
        return
    program = [sys.executable, str(Path(__file__).with_name("ahead.py"))]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ahead:
        yield
        ahead.kill()
