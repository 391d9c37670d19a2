"""A PTX interpreter in NumPy: the code that NVRTC emits, executed without a GPU.

The simulator runs a kernel's C++ source and so never sees what NVRTC makes of it, inline assembly least of all; this
runs the result.  What it cannot see are races: it executes the threads of a block in lockstep as far as they agree.

    parse.py          text -> instructions
    machine.py        one block: lanes, registers, memory, divergence and reconvergence
    instructions.py   what each instruction does
    conversions.py    cvt, and the floats that NumPy lacks
    async_copy.py     cp.async, which lands when it is waited for
    matrix.py         ldmatrix and mma, by whole warps
    device.py         `PtxDevice`: the five calls of pycnn.backends.cuda.device

Reference: NVIDIA, "Parallel Thread Execution ISA", version 9.
"""

from pycnn.testing.ptx.device import PtxDevice
from pycnn.testing.ptx.machine import PtxError
from pycnn.testing.ptx.parse import parse

__all__ = ["PtxDevice", "PtxError", "parse"]
