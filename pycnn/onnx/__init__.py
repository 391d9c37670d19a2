"""Models in the Open Neural Network Exchange format: read, checked and run by pycnn's own operators, and
written.

    import pycnn.onnx
    outputs = pycnn.onnx.prepare(onnx.load("model.onnx")).run([x])
    network = pycnn.onnx.load("model.onnx")  # an nn.Module, to train or to compile
    pycnn.onnx.export(network, x, "network.onnx")

Nothing here is computed by another runtime: each operator is a function in `pycnn.onnx.operators`, written with
pycnn's functions and Tensors, and so runs wherever they do.  The package onnx reads the files and says what operators
look like; it comes with ``pip install 'pycnn[onnx]'``.
"""

from pycnn.onnx.backend import PycnnBackend, PycnnRep
from pycnn.onnx.errors import ModelError, UnsupportedModelError
from pycnn.onnx.module import OnnxModule, load
from pycnn.onnx.writer import export, to_model

prepare = PycnnBackend.prepare
run_model = PycnnBackend.run_model
run_node = PycnnBackend.run_node
supports_device = PycnnBackend.supports_device
is_compatible = PycnnBackend.is_compatible

__all__ = [
    "ModelError",
    "OnnxModule",
    "PycnnBackend",
    "PycnnRep",
    "UnsupportedModelError",
    "export",
    "is_compatible",
    "load",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
    "to_model",
]
