"""Raw operators on regions and boxes: validate, call the backend.  No autograd here."""

from __future__ import annotations

from pycnn.arrays import module_of
from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import expect_image, expect_rank, expect_shape, real


def roi_max(x: Array, image: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    """The largest value of each window of each region of an image, and where it is.

    Args:
        x: (N, C, H, W).  NaN is larger than everything, the last NaN of a window wins.
        image: (R,) integers, the image that a region lies in.
        rows: (R, P, 2) integers, where the rows of window p begin and end (exclusive), within the image.
        columns: (R, Q, 2), alike.

    Returns:
        y, (R, C, P, Q); and indices, int64 of the same shape: h*W + w of the first maximum; 0 and -1 where a window is
        empty.

    Raises:
        TypeError: not arrays, an unsupported dtype, or indices that are no integers.
        ValueError: shapes that do not fit, or a window outside the image (on the CPU; a GPU passes over it).
        IndexError: a number of no image (on the CPU; on a GPU its windows are empty).

    >>> import numpy as np
    >>> y, at = roi_max(np.arange(9.0).reshape(1, 1, 3, 3), np.array([0]), np.array([[[0, 2]]]), np.array([[[1, 2]]]))
    >>> y.item(), at.item()
    (4.0, 4)
    """
    call = Call(x=x)
    call.widen()
    (x,) = call.arrays
    expect_image("x", x.shape)
    image, rows, columns = call.index("image", image), call.index("rows", rows), call.index("columns", columns)
    expect_rank("image", image.shape, 1, "(R,)")
    for name, windows in (("rows", rows), ("columns", columns)):
        expect_rank(name, windows.shape, 3, "(R, windows, 2)")
        expect_shape(name, windows.shape, (len(image), windows.shape[1], 2), "the shape (R, windows, 2) =")
    y, indices = call.backend.roi_max(x, image, rows, columns)
    return call.back(y), call.back(indices)


def nms(boxes: Array, scores: Array, iou_threshold: float, groups: Array | None = None) -> Array:
    """Non-maximum suppression: the boxes that no better one overlaps too much.

    Boxes are taken by falling score, equal scores in the order given.  A box goes if one before it that stays, of the
    same group, overlaps it by more than `iou_threshold`: the area of their intersection over that of their union.

    Args:
        boxes: (K, 4) as (x1, y1, x2, y2).
        scores: (K,).  A NaN comes last.
        iou_threshold: between 0 and 1 to be of use.
        groups: (K,) integers: only boxes of one group suppress each other; None for a single group.

    Returns:
        The indices of those that stay, by falling score, int64.

    Raises:
        TypeError: not arrays, dtypes that differ or are unsupported, groups that are no integers.
        ValueError: shapes that do not fit.

    >>> import numpy as np
    >>> boxes = np.array([[0.0, 0, 2, 2], [0, 0, 2, 3], [5, 5, 6, 6]])
    >>> nms(boxes, np.array([0.5, 0.9, 0.1]), 0.5)
    array([1, 2])
    """
    call = Call(boxes=boxes, scores=scores)
    call.widen()
    boxes, scores = call.arrays
    expect_rank("boxes", boxes.shape, 2, "(K, 4)")
    expect_shape("boxes", boxes.shape, (boxes.shape[0], 4), "the shape (K, 4) =")
    expect_shape("scores", scores.shape, boxes.shape[:1], "a score for each box,")
    threshold = real("iou_threshold", iou_threshold)
    order = module_of(scores).argsort(-scores, kind="stable")
    if groups is not None:
        groups = call.index("groups", groups)
        expect_shape("groups", groups.shape, scores.shape, "a number for each box,")
        groups = groups[order]
    keep = call.backend.nms(boxes[order], groups, threshold)
    return call.back(order[keep != 0])
