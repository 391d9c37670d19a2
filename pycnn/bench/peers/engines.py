"""The inference engines: each runs an ONNX file, or what its own converter makes of one.

All of them compute in true float32, with the weights converted when the model is loaded.  What a call is timed for is
one run from an input that lies in the engine's own memory, or may be read in place, to an output there.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.bench.tasks import INPUT, MODEL, ONE_IMAGE, Call, FirstCall, Inference, TrainingStep, Work
from pycnn.shape import Conv2dShape

__all__ = ["MNN", "Engine", "Ncnn", "OnnxRuntime", "OpenVINO"]


class Engine(ABC):
    """What all engines share: forward passes alone, from the model file in a folder."""

    name: str
    batched = True  # whether one run takes a whole batch; otherwise the file is made for one image

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def contestants(self, task: Work) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`."""
        if isinstance(task, (Inference, FirstCall)):
            path = Path(task.folder) / (MODEL if self.batched else ONE_IMAGE)
            if not path.exists():
                return {}
            self.make_ready(path.parent)
            x = np.load(Path(task.folder) / INPUT)
            return {self.name: self.load(path, x) if isinstance(task, Inference) else lambda: self.load(path, x)()}
        if isinstance(task, TrainingStep) or task.operator != "fprop" or not isinstance(task.shape, Conv2dShape):
            return {}
        x, w = task.arrays
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / MODEL
            _write_convolution(path, task.shape, w, len(x) if self.batched else 1)
            self.convert(path)
            return {self.name: self.load(path, x)}

    @classmethod
    def make_ready(cls, folder: Path) -> None:
        """Make the engine's own files of the ONNX file in a network's folder, if it has one."""
        path = folder / (MODEL if cls.batched else ONE_IMAGE)
        if path.exists():
            cls.convert(path)

    @staticmethod
    def convert(path: Path) -> None:
        """Make the engine's own files beside the ONNX file at `path`.

        Raises RuntimeError, with what the converter said last, if there is none then.
        """
        return None

    @abstractmethod
    def load(self, path: Path, x: np.ndarray) -> Call:
        """A run of the model at `path` on `x`."""


def _write_convolution(path: Path, shape: Conv2dShape, w: np.ndarray, batch: int) -> None:
    """An ONNX file of one convolution without bias, from "x" to "y"."""
    import onnx

    helper, tensor = onnx.helper, onnx.TensorProto
    top, bottom, left, right = shape.padding
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        kernel_shape=w.shape[2:],
        strides=shape.stride,
        pads=[top, left, bottom, right],
        dilations=shape.dilation,
        group=shape.groups,
    )
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", tensor.FLOAT, (batch, *shape.x_shape[1:]))],
        [helper.make_tensor_value_info("y", tensor.FLOAT, (batch, *shape.y_shape[1:]))],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _run_converter(command: list[str], made: Path) -> None:
    """Run a converter in the folder of the file that it makes; RuntimeError with its last words if it did not.

    A file that is there already is taken as it is.
    """
    if made.exists():
        return
    done = subprocess.run(
        command, cwd=made.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode or not made.exists():
        last = (done.stdout.strip().splitlines() or ["no word"])[-1]
        raise RuntimeError(f"{Path(command[0]).name} made no {made.name}: {last}")


class OnnxRuntime(Engine):
    """onnxruntime's CPU provider, its input and output bound ahead."""

    name = "onnxruntime"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import onnxruntime

        self._runtime = onnxruntime

    def load(self, path: Path, x: np.ndarray) -> Call:
        """See `Engine`."""
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = self._runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        source = self._runtime.OrtValue.ortvalue_from_numpy(x)
        binding.bind_ortvalue_input(session.get_inputs()[0].name, source)
        binding.bind_output(session.get_outputs()[0].name)

        def run() -> Any:
            session.run_with_iobinding(binding)
            return binding.get_outputs()[0]

        return run


class OpenVINO(Engine):
    """OpenVINO's CPU device, float32 and the latency hint."""

    name = "openvino"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # or the import below reports itself home
        import openvino

        self._openvino = openvino
        self._core = openvino.Core()

    def load(self, path: Path, x: np.ndarray) -> Call:
        """See `Engine`."""
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
        }
        request = self._core.compile_model(self._core.read_model(path), "CPU", settings).create_infer_request()
        source = self._openvino.Tensor(x, shared_memory=True)

        def run() -> Any:
            request.set_input_tensor(source)
            request.infer()
            return request.get_output_tensor().data

        return run


class Ncnn(Engine):
    """ncnn through pnnx: no half precision anywhere, Winograd and packed layouts on; a batch is a loop over images."""

    name = "ncnn"
    batched = False

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import ncnn

        self._ncnn = ncnn

    @staticmethod
    def convert(path: Path) -> None:
        """See `Engine`."""
        program = importlib.metadata.distribution("pnnx").locate_file("pnnx/pnnx")  # importing it would import torch
        _run_converter([str(program), path.name, "fp16=0"], path.with_suffix(".ncnn.bin"))

    def load(self, path: Path, x: np.ndarray) -> Call:
        """See `Engine`."""
        ncnn = self._ncnn
        net = ncnn.Net()
        for option in dir(net.opt):
            if option.startswith(("use_fp16", "use_bf16", "use_int8")):
                setattr(net.opt, option, False)
        net.opt.num_threads = self.threads
        for load, suffix in ((net.load_param, ".ncnn.param"), (net.load_model, ".ncnn.bin")):
            if load(str(path.with_suffix(suffix))):
                raise RuntimeError(f"ncnn cannot load {path.stem}{suffix}")
        (source,), (target,) = net.input_names(), net.output_names()
        images = [ncnn.Mat(image).clone() for image in x]

        def run() -> _Mats:
            outputs = []
            for image in images:
                extractor = net.create_extractor()
                if extractor.input(source, image):
                    raise RuntimeError("ncnn refuses the input")
                failed, output = extractor.extract(target)
                if failed:
                    raise RuntimeError("ncnn cannot compute the output")
                outputs.append(output)
            return _Mats(outputs)

        return run


class _Mats(list[Any]):
    """ncnn's outputs of a batch, as one array where that is asked for."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.stack([np.array(mat, dtype) for mat in self])


class MNN(Engine):
    """MNN, precision high, through its native converter: its Python one installs packages and calls home."""

    name = "mnn"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import MNN as engine

        self._engine = engine

    @staticmethod
    def convert(path: Path) -> None:
        """See `Engine`."""
        made = path.with_suffix(".mnn")
        arguments = ["mnnconvert", "-f", "ONNX", "--modelFile", path.name, "--MNNModel", made.name, "--bizCode", "none"]
        _run_converter([sys.executable, "-c", f"import _tools; _tools.mnnconvert({arguments!r})"], made)

    def load(self, path: Path, x: np.ndarray) -> Call:
        """See `Engine`."""
        engine = self._engine
        interpreter = engine.Interpreter(str(path.with_suffix(".mnn")))
        session = interpreter.createSession({"backend": "CPU", "numThread": self.threads, "precision": "high"})
        source = interpreter.getSessionInput(session)
        if source.getShape() != x.shape:
            interpreter.resizeTensor(source, x.shape)
            interpreter.resizeSession(session)
        plain = engine.Tensor_DimensionType_Caffe
        image = engine.Tensor(x.shape, engine.Halide_Type_Float, x, plain)
        target = interpreter.getSessionOutput(session)

        def run() -> _MnnOutput:
            source.copyFrom(image)  # every time: a run uses the input's memory again
            interpreter.runSession(session)
            return _MnnOutput(engine, target, session, interpreter)

        return run


class _MnnOutput:
    """MNN's output, as an array where that is asked for."""

    def __init__(self, engine: Any, target: Any, *owners: Any) -> None:
        self._engine, self._target = engine, target
        self._owners = owners  # without which there is no output

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        engine, shape = self._engine, self._target.getShape()
        host = engine.Tensor(
            shape, engine.Halide_Type_Float, np.zeros(shape, np.float32), engine.Tensor_DimensionType_Caffe
        )
        self._target.copyToHostTensor(host)
        return np.array(host.getNumpyData(), dtype).reshape(shape)
