"""Kernels of your own: register one under a name, and `algo=` takes that name wherever it takes pycnn's.

registry.py   the names: `register_conv2d`, the entry points, what a registered kernel is
dispatch.py   a call that names one: checks, the kernel, what it returned, bias and epilogue
text.py       `CudaKernel`: a pass that is CUDA C++ text, on a GPU or in the simulator

`pycnn.testing.verify_conv2d` proves one, ``pycnn bench --kernel FILE`` proves and races it, `pycnn.examples` has two.
"""

from pycnn.custom.registry import register_conv2d, unregister_conv2d

__all__ = ["register_conv2d", "unregister_conv2d"]
