"""`pycnn.compile`: a network as one native program, and `pycnn.load_compiled`, which reads one from a file.

The way of a network: `tracer` and `rules` write down what its own code does; `graph` and `operations` are the form it
is written in; `passes` make fewer and larger operations of it; `lower` makes a `plan` of native steps for one batch
size, with `values` for where things lie, `choose` for the algorithms and `arena` for the memory; `model` runs it,
`files` saves it, `report` describes it.  On a GPU `gpu` has `pycnn.cuda.capture` do the same.
"""

from pycnn.compiler.files import CompiledFileError, load_compiled
from pycnn.compiler.gpu import CompiledOnGpu
from pycnn.compiler.graph import CompileError
from pycnn.compiler.model import CompiledModel, compile, graph_of

__all__ = [
    "CompileError",
    "CompiledFileError",
    "CompiledModel",
    "CompiledOnGpu",
    "compile",
    "graph_of",
    "load_compiled",
]
