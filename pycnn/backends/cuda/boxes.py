"""Regions and boxes on the CUDA backend: kernels/boxes.cu."""

from __future__ import annotations

import numpy as np

from pycnn.backends.cuda.device import Argument, Array, Reads, Writes
from pycnn.backends.cuda.host import HostBase
from pycnn.backends.cuda.layout import pack_float32, pack_int64

KERNELS = ("roi_max", "nms_overlaps", "nms_keep")


class BoxesHost(HostBase):
    """The functions of `pycnn.backends.reference.boxes`, in float32; what lies outside of x is passed over."""

    def roi_max(self, x: Array, image: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
        """The largest value of each window of each region, and where it is; 0 and -1 of an empty window."""
        self._expect_float32("roi_max", x.dtype)
        shape = (image.shape[0], x.shape[1], rows.shape[1], columns.shape[1])
        y, indices = self.device.alloc(shape, x.dtype), self.device.alloc(shape, "int64")
        if y.size:
            instance = self._only("roi_max")
            sizes = pack_int64(shape[0], *shape[2:], *x.shape)
            places = [self._reads("image", image), self._reads("rows", rows), self._reads("columns", columns)]
            blocks = -(-y.size // (32 * instance.tile["warps"]))
            self._launch(
                instance, blocks, sizes, self._reads("x", x), *places, Writes("y", y), Writes("indices", indices)
            )
        return y, indices

    def nms(self, boxes: Array, groups: Array | None, threshold: float) -> Array:
        """1 for each box (best first) that stays, 0 for those that one before it of its group overlaps too much."""
        self._expect_float32("nms", boxes.dtype)
        count = boxes.shape[0]
        keep = self.device.alloc((count,), "int64")
        if count:
            words = -(-count // 64)
            overlaps, gone = self.device.alloc((count, words), "uint64"), self.device.alloc((words,), "uint64")
            instance = self._only("nms_overlaps")
            given: list[Argument] = [self._reads("boxes", boxes), self._reads("groups", groups)]
            blocks = -(-count * words // (32 * instance.tile["warps"]))
            numbers = (pack_int64(count), pack_float32(_float_below(threshold)))
            self._launch(instance, blocks, *numbers, *given, Writes("overlaps", overlaps))
            written: list[Argument] = [Writes("gone", gone), Writes("keep", keep)]
            self._launch(self._only("nms_keep"), 1, pack_int64(count), Reads("overlaps", overlaps), *written)
        return keep


def _float_below(threshold: float) -> float:
    """The largest float32 that is not above it: a float32 exceeds one if it exceeds the other."""
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))
