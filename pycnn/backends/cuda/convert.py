"""Arrays from one of float32, float16 and bfloat16 to another on the CUDA backend: kernels/convert.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.backends.cuda.device import Array, Reads, Writes
from pycnn.backends.cuda.host import HostBase, short_name
from pycnn.backends.cuda.layout import pack_int64
from pycnn.memory_format import wants_channels_last

KERNELS = ("convert",)


def convert(host: HostBase, array: Array, dtype: Any) -> Array:
    """`array` in another of float32, float16 and bfloat16, rounded to nearest even; itself if it is in that already.

    Args:
        host: whose device holds it.
        array: of any strides; the result is channels-last where it is, else in C order.
        dtype: the dtype wanted.

    Raises:
        UnavailableError: either dtype is another.
    """
    dtype = np.dtype(dtype)
    if array.dtype == dtype:
        return array
    given, wanted = short_name(array.dtype), short_name(dtype)
    if given is None or wanted is None:
        host._unavailable(f"conversion of {array.dtype} to {dtype}")
    last = wants_channels_last(array)
    y = host._new(array.shape, dtype, last)
    if array.size:
        instance = host.sources.of("convert")[f"{given}_{wanted}"]
        elements = 256 * instance.tile["warps"] * instance.tile["vectors"]
        arrays = (host._reads("x", array, last), Writes("y", y))
        host._launch(instance, -(-array.size // elements), pack_int64(array.size), *arrays)
    return y


class ConvertHost(HostBase):
    """Conversion as a function of the backend."""

    def convert(self, array: Array, dtype: Any) -> Array:
        """`array` in another of float32, float16 and bfloat16, rounded to nearest even."""
        return convert(self, array, dtype)

    def _coefficients(self, name: str, array: Array | None) -> Reads:
        """An operand with a value a channel or class, which kernels read in float32; None is a null pointer."""
        return self._reads(name, None if array is None else convert(self, array, "float32"))
