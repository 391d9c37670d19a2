"""ONNX: networks written to its files.  Needs the package onnx: ``pip install 'pycnn[onnx]'``."""

from pycnn.onnx.writer import export, to_model

__all__ = ["export", "to_model"]
