"""What every backend is held against: problem lists, exact inputs, error bounds, checkers.

problems.py   convolution problems by reason, and the lecture networks' layers
regimes.py    operands on which results must be exact; the bound on errors elsewhere
check.py      `check_conv2d`: one algorithm of one backend on one problem
epilogue.py   `check_epilogue`, `check_bias_gradient`: what is fused with a convolution
pooling.py    pooling problems by reason; `check_pool2d`, `check_adaptive_pool2d`
operators.py  every other operator: cases of it; `check_operator`
halves.py     float16 and bfloat16 in these checks; `check_conversions`
optimisers.py a device's optimiser steps: `check_optimisers`
fragments.py  tensor cores: who holds which element, instruction by instruction; how they add up
loops.py      the seven loops that check the reference itself
gradient.py   gradients of functions of arrays, along one random direction: cheap, for the backends
verify.py     `verify_conv2d`: a registered kernel on all of the problems
gradcheck.py  gradients of functions of Tensors, element by element, and gradients of those: for autograd
ptx/          an interpreter of the PTX that NVRTC makes of the kernels
"""

from pycnn.testing.check import channels_last, check_conv2d, laid_out, scattered
from pycnn.testing.epilogue import check_bias_gradient, check_epilogue
from pycnn.testing.gradient import check_gradient, directional_derivative
from pycnn.testing.halves import check_conversions, half_dtypes
from pycnn.testing.loops import conv2d_dgrad_loops, conv2d_fprop_loops, conv2d_wgrad_loops
from pycnn.testing.operators import Case, check_operator, operators
from pycnn.testing.optimisers import check_optimisers
from pycnn.testing.pooling import (
    ADAPTIVE_POOLS,
    POOLS,
    check_adaptive_pool2d,
    check_pool2d,
    pools,
    random_pools,
)
from pycnn.testing.problems import BY_REASON, LAYERS, every_pass, layers, problems
from pycnn.testing.regimes import (
    Operands,
    allowed_error,
    error_bound,
    error_factor,
    exact_operands,
    float_operands,
    is_exact,
    magnitudes,
    oracle,
    run,
    terms,
)
from pycnn.testing.verify import Verification, verify_conv2d

__all__ = [
    "ADAPTIVE_POOLS",
    "BY_REASON",
    "LAYERS",
    "POOLS",
    "Case",
    "Operands",
    "Verification",
    "allowed_error",
    "channels_last",
    "check_adaptive_pool2d",
    "check_bias_gradient",
    "check_conv2d",
    "check_conversions",
    "check_epilogue",
    "check_gradient",
    "check_operator",
    "check_optimisers",
    "check_pool2d",
    "conv2d_dgrad_loops",
    "conv2d_fprop_loops",
    "conv2d_wgrad_loops",
    "directional_derivative",
    "error_bound",
    "error_factor",
    "every_pass",
    "exact_operands",
    "float_operands",
    "half_dtypes",
    "is_exact",
    "laid_out",
    "layers",
    "magnitudes",
    "operators",
    "oracle",
    "pools",
    "problems",
    "random_pools",
    "run",
    "scattered",
    "terms",
    "verify_conv2d",
]
