"""NumPy and other frameworks on the same arrays, in the settings that serve them best.

Each is made in a process of its own (processes.py), and imported there alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from pycnn._extras import extra
from pycnn.bench.numpy_rows import numpy_call
from pycnn.bench.tasks import Call, Task
from pycnn.shape import Conv2dShape

__all__ = ["PEERS", "NumPy", "Peer", "find_peers"]


class Peer(Protocol):
    """A framework at a number of threads."""

    def contestants(self, task: Task) -> dict[str, Call]:
        """Its ways to do the task, by name; empty where it cannot."""


class NumPy:
    """NumPy with its BLAS."""

    def __init__(self, threads: int) -> None:
        with extra("train", "threadpoolctl"):
            import threadpoolctl

        threadpoolctl.threadpool_limits(threads, user_api="blas")

    def contestants(self, task: Task) -> dict[str, Call]:
        """See `Peer`."""
        return {"numpy": numpy_call(task)}


class Torch:
    """PyTorch, NCHW and channels-last; convolutions only."""

    def __init__(self, threads: int) -> None:
        import torch

        self._torch = torch
        torch.set_num_threads(threads)

    def contestants(self, task: Task) -> dict[str, Call]:
        """See `Peer`."""
        shape = task.shape
        if not isinstance(shape, Conv2dShape):
            return {}
        top, bottom, side, other = shape.padding
        if (top, side) != (bottom, other):
            return {}  # torch pads asymmetrically only by a copy of its own
        torch = self._torch
        found = {}
        for name, layout in (("torch", torch.contiguous_format), ("torch_cl", torch.channels_last)):
            a, b = (self._tensor(array).contiguous(memory_format=layout) for array in task.arrays)
            found[name] = self._call(shape, task.operator, a, b, layout)
        return found

    def _tensor(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(array)

    def _call(self, shape: Conv2dShape, operator: str, a: Any, b: Any, layout: Any) -> Call:
        torch = self._torch
        padding = (shape.padding[0], shape.padding[2])
        if operator == "fprop":

            def fprop() -> Any:
                with torch.inference_mode():
                    return torch.nn.functional.conv2d(a, b, None, shape.stride, padding, shape.dilation, shape.groups)

            return fprop
        # The operand a pass does not read still has to be named, with its shape.
        mask = [operator == "dgrad", operator == "wgrad", False]
        unread = a.new_empty(shape.x_shape if operator == "dgrad" else shape.w_shape).contiguous(memory_format=layout)
        x, w = (unread, b) if operator == "dgrad" else (b, unread)

        def backward() -> Any:
            with torch.inference_mode():
                results = torch.ops.aten.convolution_backward(
                    a, x, w, None, shape.stride, padding, shape.dilation, False, (0, 0), shape.groups, mask
                )
                return results[mask.index(True)]

        return backward


class OnnxRuntime:
    """onnxruntime's CPU provider; forward convolution only."""

    def __init__(self, threads: int) -> None:
        import onnx
        import onnxruntime

        self._onnx = onnx
        self._runtime = onnxruntime
        self._threads = threads

    def contestants(self, task: Task) -> dict[str, Call]:
        """See `Peer`."""
        shape = task.shape
        if task.operator != "fprop" or not isinstance(shape, Conv2dShape):
            return {}
        x, w = task.arrays
        helper, tensor = self._onnx.helper, self._onnx.TensorProto
        top, bottom, side, other = shape.padding
        node = helper.make_node(
            "Conv",
            ["x", "w"],
            ["y"],
            strides=shape.stride,
            pads=[top, side, bottom, other],
            dilations=shape.dilation,
            group=shape.groups,
        )
        graph = helper.make_graph(
            [node],
            "conv",
            [helper.make_tensor_value_info("x", tensor.FLOAT, shape.x_shape)],
            [helper.make_tensor_value_info("y", tensor.FLOAT, shape.y_shape)],
            [self._onnx.numpy_helper.from_array(w, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        session = self._runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return {"onnxruntime": lambda: session.run(None, {"x": x})[0]}


PEERS: dict[str, Callable[[int], Peer]] = {"torch": Torch, "onnxruntime": OnnxRuntime}
_NEEDS = {"torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx")}


def find_peers(names: Sequence[str], backend: str = "cpu") -> dict[str, Callable[[int], Peer]]:
    """The peers of these names ("all": those installed); each is made from its number of threads.

    On the "cuda" backend there is one, torch, which brings cuDNN.

    Raises ValueError for a name that is unknown or not installed.
    """
    missing = {
        name: [package for package in _NEEDS[name] if importlib.util.find_spec(package) is None] for name in PEERS
    }
    if list(names) == ["all"]:
        names = [name for name in PEERS if not missing[name]]
    for name in names:
        if name not in PEERS:
            raise ValueError(f"peers must be among {', '.join(PEERS)}, got {name!r}")
        if missing[name]:
            raise ValueError(f"peer {name!r} needs {' and '.join(missing[name])}: pip install 'pycnn[peers]'")
    if backend != "cuda":
        return {name: PEERS[name] for name in names}
    from pycnn.bench.gpu import TorchCuda

    return {name: TorchCuda for name in names if name == "torch"}
