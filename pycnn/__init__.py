"""pycnn: convolution, pooling and their gradients on CPU and CUDA, under a thin autograd."""

from pycnn import autograd as autograd
from pycnn import ops as ops
from pycnn import random as random
from pycnn.autograd import Function as Function
from pycnn.autograd import checkpoint as checkpoint
from pycnn.autograd import detect_changes as detect_changes
from pycnn.autograd import enable_grad as enable_grad
from pycnn.autograd import grad as grad
from pycnn.autograd import is_grad_enabled as is_grad_enabled
from pycnn.autograd import no_grad as no_grad
from pycnn.autograd import set_debug as set_debug
from pycnn.backends import use_backend as use_backend
from pycnn.random import manual_seed as manual_seed
from pycnn.tensor import Tensor as Tensor
from pycnn.tensor import ones as ones
from pycnn.tensor import tensor as tensor
from pycnn.tensor import zeros as zeros

__version__ = "0.1.0"
