"""pycnn: convolution, pooling and their gradients on CPU and CUDA, under a thin autograd."""

from pycnn import ops as ops
from pycnn.backends import use_backend as use_backend

__version__ = "0.1.0"
