"""NumPy and other frameworks on the same arrays, in the settings that serve them best, and ourselves among them.

pytorch.py   PyTorch: NCHW, channels-last, weights frozen and packed
engines.py   onnxruntime, OpenVINO, ncnn and MNN: what runs an ONNX file, or what was made from it
own.py       pycnn, call by call and compiled

Each is made in a process of its own (processes.py), and imported there alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pycnn._extras import extra
from pycnn.bench.numpy_rows import numpy_call
from pycnn.bench.peers.engines import MNN, Ncnn, OnnxRuntime, OpenVINO
from pycnn.bench.peers.pytorch import Torch, TorchChannelsLast, TorchCompiled, TorchFrozen
from pycnn.bench.tasks import Call, Task

__all__ = ["PEERS", "Factory", "NumPy", "Peer", "find_peers"]


class Peer(Protocol):
    """A framework at a number of threads.

    Its class may have an `environment`: the variables with which its process is fastest.
    """

    def contestants(self, task: Any) -> dict[str, Call]:
        """Its ways to do the task (a `pycnn.bench.tasks.Work`), by name; empty where it cannot."""


Factory = Callable[[int], Peer]


class NumPy:
    """NumPy with its BLAS."""

    def __init__(self, threads: int) -> None:
        with extra("train", "threadpoolctl"):
            import threadpoolctl

        threadpoolctl.threadpool_limits(threads, user_api="blas")

    def contestants(self, task: Task) -> dict[str, Call]:
        """See `Peer`."""
        return {"numpy": numpy_call(task)}


PEERS: dict[str, dict[str, Factory]] = {
    "torch": {"torch": Torch, "torch_cl": TorchChannelsLast, "torch_frozen": TorchFrozen},
    "onnxruntime": {"onnxruntime": OnnxRuntime},
    "openvino": {"openvino": OpenVINO},
    "ncnn": {"ncnn": Ncnn},
    "mnn": {"mnn": MNN},
}
_ON_REQUEST: dict[str, dict[str, Factory]] = {"torch": {"torch_compile": TorchCompiled}}
_NEEDS = {
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "ncnn": ("ncnn", "pnnx", "onnx"),
    "mnn": ("MNN", "onnx"),
}


def find_peers(names: Sequence[str], backend: str = "cpu") -> dict[str, Factory]:
    """The contestants of these frameworks, by name; each is made from a number of threads.

    Args:
        names: frameworks, each for its contestants, or contestants, "torch_compile" among them, which has to be asked
            for; "all" for every framework that is installed.
        backend: on "cuda" there is one, torch, which brings cuDNN.

    Raises ValueError for a name that is unknown or not installed.
    """
    found: dict[str, Factory] = {}
    for name in names:
        if name == "all":
            for framework, contestants in PEERS.items():
                found |= {} if _missing(framework) else contestants
            continue
        framework = _framework(name)
        if missing := _missing(framework):
            raise ValueError(f"peer {name!r} needs {' and '.join(missing)}: pip install 'pycnn[peers]'")
        every = {**PEERS[framework], **_ON_REQUEST.get(framework, {})}
        found |= PEERS[name] if name == framework else {name: every[name]}
    if backend != "cuda":
        return found
    from pycnn.bench.gpu import TorchCuda

    return {"torch": TorchCuda} if "torch" in found else {}


def _missing(framework: str) -> list[str]:
    """The packages of a framework that are not installed."""
    return [package for package in _NEEDS[framework] if importlib.util.find_spec(package) is None]


def _framework(name: str) -> str:
    """The framework of this name, or that a contestant of this name runs on."""
    for framework, contestants in PEERS.items():
        if name in (framework, *contestants, *_ON_REQUEST.get(framework, {})):
            return framework
    raise ValueError(f"peers must be among {', '.join(PEERS)}, got {name!r}")
