"""What is wrong with a model, in one line each."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ModelError", "UnsupportedModelError"]


class ModelError(ValueError):
    """A file that is no valid ONNX model, or a model that cannot run with what it was given."""


class UnsupportedModelError(ModelError):
    """A valid model with operators that pycnn does not have.

    Attributes:
        missing: (operator, its domain, the opset it was asked of, the names of the nodes) for each of them.
    """

    def __init__(self, missing: Sequence[tuple[str, str, int, tuple[str, ...]]], where: str = "") -> None:
        self.missing = tuple(missing)
        super().__init__(f"{where}no such operators: " + "; ".join(_line(*one) for one in self.missing))


def _line(operator: str, domain: str, opset: int, nodes: tuple[str, ...]) -> str:
    shown = ", ".join(nodes[:_SHOWN]) + (f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else "")
    return f"{domain or 'ai.onnx'}.{operator} (opset {opset}) in {shown}"


_SHOWN = 8  # nodes of one operator that the message names; `missing` has all
