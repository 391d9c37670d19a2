"""MTCNN: faces and their landmarks by a cascade of three small networks.

P-Net looks at every 12x12 window of a pyramid of scaled images, R-Net at what it found in 24x24 pixels, O-Net at what
remains in 48x48; each says whether there is a face, and how to move the box.  Layers and keys are those of the
facenet-pytorch package, whose weights come from the authors' own.

Paper: Zhang, Zhang, Li & Qiao, "Joint face detection and alignment using multitask cascaded convolutional networks",
IEEE Signal Processing Letters, 2016, figure 2 and section II.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn import nn
from pycnn.autograd import no_grad
from pycnn.tensor import Tensor

__all__ = ["MTCNN", "ONet", "PNet", "RNet"]

Array = np.ndarray[Any, Any]

_THRESHOLDS = 0.6, 0.7, 0.7  # of the three networks' probabilities
_FACTOR = 0.709  # from one scale of the pyramid to the next: half the area
_CELL, _STEP = 12, 2  # pixels that P-Net looks at, and from one such window to the next
_BATCH = 256


class PNet(nn.Module):
    """The proposal network: maps of the probability of a face and of the box's corrections, for images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Any) -> tuple[Tensor, Tensor]:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return F.softmax(self.conv4_1(x), 1), self.conv4_2(x)


class RNet(nn.Module):
    """The refinement network: probability and corrections for images (N, 3, 24, 24)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Any) -> tuple[Tensor, Tensor]:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.pool2(self.prelu2(self.conv2(x)))))
        x = self.prelu4(self.dense4(_columns_first(x)))
        return F.softmax(self.dense5_1(x), 1), self.dense5_2(x)


class ONet(nn.Module):
    """The output network: probability, corrections and five landmarks for images (N, 3, 48, 48)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, x: Any) -> tuple[Tensor, Tensor, Tensor]:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu4(self.conv4(self.pool3(self.prelu3(self.conv3(x)))))
        x = self.prelu5(self.dense5(_columns_first(x)))
        return F.softmax(self.dense6_1(x), 1), self.dense6_2(x), self.dense6_3(x)


def _columns_first(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, W * H * C), the order in which the authors' program flattened its maps."""
    return F.flatten(x.permute(0, 3, 2, 1), 1)


class MTCNN:
    """The cascade.

    Args:
        pnet, rnet, onet: the weights of each network by key, such as `pycnn.weights.load` gives.
        min_size: of a face, in pixels, at least 12.

    Raises:
        ValueError: a smaller `min_size`.
        RuntimeError: weights of other networks.
    """

    def __init__(
        self, pnet: Mapping[str, Any], rnet: Mapping[str, Any], onet: Mapping[str, Any], *, min_size: float = 20
    ) -> None:
        if not min_size >= _CELL:
            raise ValueError(f"min_size must be at least {_CELL}, got {min_size}")
        with nn.init.skip():
            self.pnet, self.rnet, self.onet = PNet(), RNet(), ONet()
        for net, weights in ((self.pnet, pnet), (self.rnet, rnet), (self.onet, onet)):
            net.load_state_dict(weights)
        self.min_size = min_size

    def detect(self, image: Array) -> tuple[Array, Array, Array]:
        """The faces of one photograph, the surest first.

        Args:
            image: uint8, (3, H, W), RGB.

        Returns:
            boxes (N, 4) as x1, y1, x2, y2; probabilities (N,); landmarks (N, 5, 2), x and y of the eyes (first the one
            on the left of the picture), the nose and the corners of the mouth.  In pixels; boxes may reach over the
            edge.

        Raises:
            ValueError: an image of another shape.
        """
        if image.ndim != 3 or len(image) != 3:
            raise ValueError(f"image must be (3, H, W), got shape {image.shape}")
        pixels = (image[None].astype(np.float32) - 127.5) / 128
        with no_grad():
            boxes = self._propose(pixels)
            boxes = self._refine(pixels, boxes)
            return self._finish(pixels, boxes)

    def _propose(self, pixels: Array) -> Array:
        """Squares from all scales of the pyramid."""
        height, width = pixels.shape[2:]
        scale = _CELL / self.min_size
        found = [np.empty((0, 9))]
        while min(height, width) * scale >= _CELL:
            scaled = F.adaptive_avg_pool2d(pixels, (int(height * scale + 1), int(width * scale + 1)))
            face, moves = (result.numpy()[0] for result in self.pnet(scaled))
            rows, columns = np.nonzero(face[1] >= _THRESHOLDS[0])
            corner = _STEP * np.stack([columns, rows], 1)
            ends = [np.floor((corner + 1) / scale), np.floor((corner + _CELL) / scale)]
            score, move = face[1][rows, columns, None], moves[:, rows, columns].T
            here = np.concatenate([*ends, score, move], 1)
            found.append(here[_suppress(here[:, :4], here[:, 4], 0.5)])
            scale *= _FACTOR
        boxes = np.concatenate(found)
        boxes = boxes[_suppress(boxes[:, :4], boxes[:, 4], 0.7)]
        return _square(_moved(boxes[:, :4], boxes[:, 5:], 0))

    def _refine(self, pixels: Array, boxes: Array) -> Array:
        """Those that R-Net takes for faces, moved."""
        boxes, crops = _crops(pixels, boxes, 24)
        face, moves = _batched(self.rnet, crops, 2)
        sure = face[:, 1] > _THRESHOLDS[1]
        boxes, score, moves = boxes[sure], face[sure, 1], moves[sure]
        kept = _suppress(boxes, score, 0.7)
        return _square(_moved(boxes[kept], moves[kept], 1))

    def _finish(self, pixels: Array, boxes: Array) -> tuple[Array, Array, Array]:
        """Those that O-Net takes for faces, moved, with their landmarks."""
        boxes, crops = _crops(pixels, boxes, 48)
        face, moves, points = _batched(self.onet, crops, 3)
        sure = face[:, 1] > _THRESHOLDS[2]
        boxes, score, moves, points = boxes[sure], face[sure, 1], moves[sure], points[sure]
        size = boxes[:, 2:] - boxes[:, :2] + 1
        landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * size[:, None] + boxes[:, None, :2] - 1
        boxes = _moved(boxes, moves, 1)
        kept = _suppress(boxes, score, 0.7, smaller=True)
        return boxes[kept], score[kept], landmarks[kept]


def _batched(net: nn.Module, crops: Array, count: int) -> list[Array]:
    """The `count` results of a network for any number of images."""
    results = [[part.numpy() for part in net(crops[i : i + _BATCH])] for i in range(0, max(len(crops), 1), _BATCH)]
    return [np.concatenate([result[i] for result in results]) for i in range(count)]


def _crops(pixels: Array, boxes: Array, size: int) -> tuple[Array, Array]:
    """The boxes that have anything of the image in them, and what it is, averaged down (or repeated) to `size`."""
    height, width = pixels.shape[2:]
    left, top, right, bottom = boxes.astype(np.int64).T
    left, top = np.maximum(left, 1) - 1, np.maximum(top, 1) - 1  # the authors counted pixels from one
    right, bottom = np.minimum(right, width), np.minimum(bottom, height)
    some = (right > left) & (bottom > top)
    crops = np.empty((int(some.sum()), 3, size, size), np.float32)
    for crop, x1, y1, x2, y2 in zip(crops, left[some], top[some], right[some], bottom[some], strict=True):
        crop[...] = F.adaptive_avg_pool2d(pixels[:, :, y1:y2, x1:x2], (size, size))[0]
    return boxes[some], crops


def _moved(boxes: Array, moves: Array, extra: int) -> Array:
    """Each edge moved by a share of the box's width or height, which the later networks count with `extra` pixel."""
    size = boxes[:, 2:] - boxes[:, :2] + extra
    return boxes + moves * np.concatenate([size, size], 1)


def _square(boxes: Array) -> Array:
    """Squares about the same middles, as wide as the longer side."""
    size = boxes[:, 2:] - boxes[:, :2]
    longer = size.max(1, keepdims=True, initial=0)
    corner = boxes[:, :2] + (size - longer) / 2
    return np.concatenate([corner, corner + longer], 1)


def _suppress(boxes: Array, score: Array, most: float, smaller: bool = False) -> Array:
    """Non-maximum suppression: indices of the boxes that overlap no surer one by more than `most`, the surest first.

    The overlap is the intersection over the union, or over the `smaller` of the two, which also takes away a box inside
    another.
    """
    size = boxes[:, 2:] - boxes[:, :2] + smaller
    area = size[:, 0] * size[:, 1]
    left = np.argsort(-score, kind="stable")
    kept = []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        low, high = np.maximum(boxes[first, :2], boxes[left, :2]), np.minimum(boxes[first, 2:], boxes[left, 2:])
        sides = np.maximum(high - low + smaller, 0)
        shared = sides[:, 0] * sides[:, 1]
        whole = np.minimum(area[first], area[left]) if smaller else area[first] + area[left] - shared
        left = left[shared <= most * whole]
    return np.array(kept, np.int64)
