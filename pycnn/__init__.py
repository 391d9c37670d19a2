"""pycnn: convolution, pooling and their gradients on CPU and CUDA, under a thin autograd."""

from pycnn import ops as ops
from pycnn.algorithms import use_accuracy as use_accuracy
from pycnn.backends import use_backend as use_backend
from pycnn.machine import get_isa as get_isa
from pycnn.machine import get_num_threads as get_num_threads
from pycnn.machine import set_isa as set_isa
from pycnn.machine import set_num_threads as set_num_threads

__version__ = "0.1.0"
