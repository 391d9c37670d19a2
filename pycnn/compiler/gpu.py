"""A network on a GPU as a CUDA graph, with the interface of a compiled one."""

from __future__ import annotations

from typing import Any

from pycnn.arrays import is_array, module_of
from pycnn.graph import Variable, no_grad, wrap
from pycnn.nn.module import Module, evaluating

__all__ = ["CompiledOnGpu"]


class CompiledOnGpu:
    """What `pycnn.compile` returns for a network on a GPU: its forward pass in evaluation mode by `pycnn.cuda.capture`.

    The first calls for each combination of input shapes run as they are, the next is captured, and from then on a call
    starts one graph.  Results are copies, so they stay.  The parameters are the model's own: a graph reads them when it
    runs, so what training changes in place is seen.

    Attributes:
        graphs: how many graphs were captured so far.
    """

    def __init__(self, model: Module) -> None:
        from pycnn import cuda  # which brings the JIT: nothing for those who compile for a CPU

        def forward(*inputs: Any) -> Any:
            with no_grad(), evaluating(model):
                return model(*[one if isinstance(one, Variable) else wrap(one) for one in inputs])

        forward.__name__ = type(model).__name__
        self._step = cuda.capture(forward)

    @property
    def graphs(self) -> int:
        """Graphs captured so far."""
        return self._step.graphs

    def __call__(self, *inputs: Any) -> Any:
        """The network's result: Tensors for Tensors, else CuPy arrays.

        Args:
            *inputs: Tensors, or NumPy or CuPy arrays.

        Raises:
            pycnn.cuda.CaptureError, ValueError, TypeError, MissingToolError: as `pycnn.cuda.capture`.
        """
        tensors = any(isinstance(one, Variable) for one in inputs)
        return _kept(self._step(*inputs), tensors)


def _kept(result: Any, tensors: bool) -> Any:
    """The graph's own results, copied, before the next replay writes over them."""
    if isinstance(result, Variable):
        copy = module_of(result._data).array(result._data)
        return wrap(copy) if tensors else copy
    if isinstance(result, (tuple, list)):
        parts = [_kept(part, tensors) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    if isinstance(result, dict):
        return {name: _kept(part, tensors) for name, part in result.items()}
    return module_of(result).array(result) if is_array(result) else result
