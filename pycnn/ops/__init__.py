"""Raw operators on arrays: every argument is validated here, then one backend function runs.  No autograd."""

from pycnn.ops.conv import conv2d_dgrad, conv2d_fprop, conv2d_wgrad

__all__ = ["conv2d_dgrad", "conv2d_fprop", "conv2d_wgrad"]
