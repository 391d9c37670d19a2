"""What is benchmarked: the distinct convolution and pooling layers of a network, with the inputs they really see.

The network runs once on a photograph and each layer's input is kept, so that the layers are timed on what reaches them
(rectified, sparse, correlated), not on noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pycnn import Tensor, models, nn, no_grad
from pycnn._extras import extra
from pycnn.backends import use_backend
from pycnn.shape import Conv2dShape, Pool2dShape, Problem, normalize_padding, pair
from pycnn.testing import channels_last, float_operands

__all__ = ["Workload", "conv_shapes", "from_problem", "of_network", "photograph"]


@dataclass(frozen=True)
class Workload:
    """One distinct layer of a network.

    Attributes:
        network: the network's name, or "" for a problem given by hand.
        name: where it stands first in the network.
        count: how many layers of the network have this very shape.
        op: "conv2d", "max_pool2d" or "avg_pool2d".
        shape: the problem in plain integers.
        x: its input; a convolution's may be float16, bfloat16 or float32, and lie channels-last.
        w: a convolution's filters, likewise.
        count_pad: whether an average counts the padding.
    """

    network: str
    name: str
    count: int
    op: str
    shape: Conv2dShape | Pool2dShape
    x: np.ndarray
    w: np.ndarray | None = None
    count_pad: bool = True

    @property
    def problem(self) -> Problem:
        """A convolution's, as fprop."""
        assert isinstance(self.shape, Conv2dShape), "a convolution's workload has a convolution's shape"
        layout = "nchw" if self.x.flags.c_contiguous else "nhwc"
        return Problem(self.shape, dtype=self.x.dtype.name, layout=layout)


def photograph(path: str | None = None) -> np.ndarray:
    """A photograph as (height, width, 3) uint8: the file at `path`, or scikit-learn's picture of the Summer Palace.

    Raises OSError for a file that is missing or is no image, ModuleNotFoundError without Pillow or scikit-learn.
    """
    if path is None:
        with extra("train", "scikit-learn"):
            from sklearn.datasets import load_sample_image

        return load_sample_image("china.jpg")
    with extra("train", "Pillow"):
        from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _as_input(photo: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`photo` cut to a square, scaled to (H, W) and standardised, the same image N times: (N, C, H, W), C of 1 or 3."""
    with extra("train", "Pillow"):
        from PIL import Image

    n, c, h, w = shape
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    image = Image.fromarray(photo[top : top + side, left : left + side])
    image = image.convert("L" if c == 1 else "RGB").resize((w, h), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float32).reshape(h, w, c).transpose(2, 0, 1)
    pixels = (pixels - pixels.mean()) / (pixels.std() or 1.0)  # a picture of one colour has no spread
    return np.repeat(pixels[None], n, axis=0)


def of_network(name: str, batch: int, photo: np.ndarray) -> tuple[Callable[[], Any], list[Workload]]:
    """A network on a photograph: its forward pass, and its distinct layers in the order in which they first run.

    Args:
        name: one of `pycnn.models.list_models`.
        batch: images at once.
        photo: (height, width, 3) uint8.

    Raises:
        ValueError: an unknown name.
    """
    model = models.create(name)
    model.eval()
    x = _as_input(photo, (batch, *models.info(name).input_shape))
    names = {id(module): path for path, module in model.named_modules()}
    found: dict[Any, Workload] = {}
    counts: Counter[Any] = Counter()

    def see(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        workload = _workload(name, names[id(module)], module, np.asarray(inputs[0].data))
        if workload is None:
            return
        key = (workload.op, workload.shape, workload.count_pad)
        found.setdefault(key, workload)
        counts[key] += 1

    handles = [m.register_forward_hook(see) for m in model.modules() if isinstance(m, _LAYERS)]

    def forward() -> Any:
        with no_grad():
            return model(Tensor(x))

    forward()
    for handle in handles:
        handle.remove()
    return forward, [replace(workload, count=counts[key]) for key, workload in found.items()]


_LAYERS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def _workload(network: str, name: str, module: Any, x: np.ndarray) -> Workload | None:
    """The layer as a workload; None for an adaptive pooling that averages single pixels or uneven windows."""
    if isinstance(module, nn.Conv2d):
        return Workload(network, name, 1, "conv2d", _conv_shape(module, x.shape), x, np.asarray(module.weight.data))
    n, c, h, width = x.shape
    if isinstance(module, nn.AdaptiveAvgPool2d):
        size: Any = module.output_size
        rows, columns = pair("output_size", size, 1)
        kernel = h // rows, width // columns
        if h % rows or width % columns or kernel == (1, 1):
            return None
        return Workload(network, name, 1, "avg_pool2d", Pool2dShape(n, c, h, width, kernel, kernel), x)
    kernel = pair("kernel_size", module.kernel_size, 1)
    stride = kernel if module.stride is None else pair("stride", module.stride, 1)
    maximum = isinstance(module, nn.MaxPool2d)
    dilation = pair("dilation", module.dilation, 1) if maximum else (1, 1)
    padding = normalize_padding(module.padding, kernel)
    pool = Pool2dShape(n, c, h, width, kernel, stride, padding, dilation, module.ceil_mode)
    count_pad = maximum or module.count_include_pad
    return Workload(network, name, 1, "max_pool2d" if maximum else "avg_pool2d", pool, x, count_pad=count_pad)


def _conv_shape(module: nn.Conv2d, x_shape: tuple[int, ...]) -> Conv2dShape:
    w_shape = tuple(module.weight.shape)
    stride, dilation = pair("stride", module.stride, 1), pair("dilation", module.dilation, 1)
    padding = normalize_padding(module.padding, (w_shape[2], w_shape[3]), stride, dilation)
    return Conv2dShape.of(tuple(x_shape), w_shape, stride, padding, dilation, module.groups)


def conv_shapes(name: str, batch: int) -> list[Conv2dShape]:
    """The distinct convolutions of a network, in the order in which they first run; nothing is computed.

    Args:
        name: one of `pycnn.models.list_models`.
        batch: images at once.

    Raises:
        ValueError: an unknown name.

    >>> [str(shape) for shape in conv_shapes("lenet5", 8)]
    ['n8c1h32w32_k6r5s5_st1pd0dl1g1', 'n8c6h14w14_k16r5s5_st1pd0dl1g1']
    """
    entry = models.info(name)
    with nn.init.skip():
        model = models.create(name)
    model.eval()
    found: dict[Conv2dShape, None] = {}

    def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Conv2d):
            found[_conv_shape(module, inputs[0].shape)] = None

    for module in model.modules():
        module.register_forward_pre_hook(see)
    with no_grad(), use_backend("shapes"):
        model(Tensor(np.zeros((batch, *entry.input_shape), np.float32)))
    return list(found)


def from_problem(problem: Problem) -> Workload:
    """A workload of seeded normal data for a problem given by hand, in its dtype and layout.

    Raises ValueError for float64.
    """
    if problem.dtype == "float64":
        raise ValueError(f"{problem}: the benchmark runs float32, float16 and bfloat16, got float64")
    operands = float_operands(replace(problem, operator="fprop"), bias=False)
    x, w = (channels_last(each) if problem.layout == "nhwc" else each for each in (operands.left, operands.right))
    return Workload("", problem.name or "problem", 1, "conv2d", problem.shape, x, w)
