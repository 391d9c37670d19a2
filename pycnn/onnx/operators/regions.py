"""Images looked at in other places than their pixels: grids, regions, moved taps; and boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.onnx.operators._common import host, ints, tensor_of
from pycnn.onnx.operators.shape import padded
from pycnn.onnx.operators.windows import windows
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor

Ints = tuple[int, ...] | None

_MODES = {"linear": "bilinear", "cubic": "bicubic"}  # opset 16 had PyTorch's names


@operator("GridSample")
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    return F.grid_sample(x, grid.to(x.dtype), _MODES.get(mode, mode), padding_mode, bool(align_corners))


@operator("AffineGrid", host=(1,))
def affine_grid(theta: Tensor, size: np.ndarray, *, align_corners: int = 0) -> Tensor:
    return F.affine_grid(theta, ints(size), bool(align_corners))


@operator("RoiAlign")
def roi_align_from_corners(
    x: Tensor,
    rois: Tensor,
    images: np.ndarray,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Before opset 16 the corner of the first pixel was the origin."""
    boxes = _of_images(rois, images)
    return F.roi_align(x, boxes, (output_height, output_width), spatial_scale, sampling_ratio, False, mode)


@operator("RoiAlign", since=16)
def roi_align(
    x: Tensor,
    rois: Tensor,
    images: np.ndarray,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    aligned = coordinate_transformation_mode == "half_pixel"
    boxes = _of_images(rois, images)
    return F.roi_align(x, boxes, (output_height, output_width), spatial_scale, sampling_ratio, aligned, mode)


def _of_images(rois: Tensor, images: np.ndarray) -> Tensor:
    """(R, 5): the image and the corners."""
    return tensor_of(np.concatenate([images[:, None].astype(rois.dtype), host(rois)], 1), rois)


@operator("MaxRoiPool")
def max_roi_pool(x: Tensor, rois: Tensor, *, pooled_shape: tuple[int, ...], spatial_scale: float = 1.0) -> Tensor:
    return F.roi_pool(x, rois, pooled_shape, spatial_scale)


@operator("DeformConv")
def deform_conv(
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    """How many groups there are, of channels and of offsets, is in the shapes."""
    view = windows(x.shape[2:], w.shape[2:], strides, pads, dilations)
    padding = view.before
    if view.before != view.after:
        x, padding = padded(x, (0, 0, *view.before, 0, 0, *view.after)), (0, 0)
    return F.deform_conv2d(x, offset, w, b, view.stride, padding, view.dilation, mask)


@operator("NonMaxSuppression", host=(0, 1, 2, 3, 4))
def non_max_suppression(
    boxes: np.ndarray,
    scores: np.ndarray,
    most: np.ndarray | None = None,
    iou_threshold: np.ndarray | None = None,
    score_threshold: np.ndarray | None = None,
    *,
    center_point_box: int = 0,
) -> np.ndarray:
    """(image, class, box) of those that stay, of each class of each image by falling score."""
    count = 0 if most is None else int(most.item())
    overlap = 0.0 if iou_threshold is None else float(iou_threshold.item())
    corners = _corners(boxes, bool(center_point_box))
    found: list[Any] = []
    for image, classes in enumerate(scores):
        for number, row in enumerate(classes):
            there = np.arange(len(row)) if score_threshold is None else np.flatnonzero(row > score_threshold.item())
            kept = F.nms(corners[image][there], row[there], overlap)[:count] if len(there) and count else there[:0]
            found += [(image, number, box) for box in there[kept]]
    return np.array(found, np.int64).reshape(-1, 3)


def _corners(boxes: np.ndarray, center_point_box: bool) -> np.ndarray:
    """(x1, y1, x2, y2) of boxes given by centre and size, or by any two opposite corners (y, x)."""
    if center_point_box:
        center, half = boxes[..., :2], boxes[..., 2:] / 2
        return np.concatenate([center - half, center + half], -1)
    first, second = boxes[..., 1::-1], boxes[..., :1:-1]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], -1)
