"""RoIAlign, RoIPool, non-maximum suppression: against torchvision's Python, ONNX's reference and plain loops."""

from __future__ import annotations

import importlib
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import functional as F
from pycnn.functional import boxes as subject
from pycnn.testing.gradcheck import gradcheck


def regions(rng: np.random.Generator, n: int, count: int, reach: float) -> np.ndarray:
    """Boxes within and beyond the image; some of no size, some inside out."""
    corners = rng.uniform(-0.3 * reach, reach, (count, 2))
    sides = rng.uniform(-0.1 * reach, 0.8 * reach, (count, 2))
    return np.concatenate([rng.integers(0, n, (count, 1)), corners, corners + sides], 1)


RNG = np.random.default_rng(1)

LIBRARIES: list[Any] = []  # what they define goes with them


@pytest.fixture(scope="module")
def roi_align_of_torchvision() -> Any:
    torch = pytest.importorskip("torch")
    try:
        module = pytest.importorskip("torchvision.ops.roi_align")
    except RuntimeError:  # the package without its compiled operators says more of some of them
        for name in ("nms", "qnms"):
            LIBRARIES.append(torch.library.Library("torchvision", "FRAGMENT"))
            LIBRARIES[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        module = importlib.import_module("torchvision.ops.roi_align")
    return module._roi_align.__wrapped__  # as it was before it was to be compiled


@pytest.mark.usefixtures("one_torch_thread")
def test_roi_align_agrees_with_torchvision(roi_align_of_torchvision: Any, backend: str) -> None:
    torch = pytest.importorskip("torch")
    for seed in range(25):
        rng = np.random.default_rng(seed)
        n, c, h, w = (int(v) for v in rng.integers([1, 1, 2, 2], [3, 4, 9, 9]))
        x, boxes = rng.standard_normal((n, c, h, w)), regions(rng, n, int(rng.integers(1, 5)), 16.0)
        out = tuple(int(v) for v in rng.integers(1, 5, 2))
        how = (float(rng.choice([0.5, 1.0, 0.3])), *out, int(rng.choice([-1, 1, 2, 3])), bool(rng.random() < 0.5))
        # Its Python takes samples beyond the image from the border; those of its kernels, as ours, are 0.
        boxes[:, 1:] = np.sort(np.clip(boxes[:, 1:], 0, (min(h, w) - 1) / how[0]).reshape(-1, 2, 2), 1).reshape(-1, 4)
        boxes[:, 3:] += 0.05  # and of boxes without a side it makes NaN
        image = torch.from_numpy(x.copy()).requires_grad_()
        expected = roi_align_of_torchvision(image, torch.from_numpy(boxes), *how)
        dy = rng.standard_normal(expected.shape)
        expected.backward(torch.from_numpy(dy))
        own = pycnn.Tensor(x, requires_grad=True)
        y = F.roi_align(own, boxes, out, how[0], how[3], how[4])
        y.backward(pycnn.Tensor(dy))
        # Means of some hundred products in float64.
        np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), atol=1e-12, err_msg=str((seed, how)))
        np.testing.assert_allclose(own.grad.numpy(), image.grad.numpy(), atol=1e-12, err_msg=str((seed, how)))


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_agrees_with_onnx(mode: str) -> None:
    reference = pytest.importorskip("onnx.reference.ops.op_roi_align")
    helper = pytest.importorskip("onnx.helper")
    run = reference.RoiAlign(
        helper.make_node("RoiAlign", ["x", "r", "b"], ["y"]), {"opsets": {"": 22}, "new_ops": None, "log": None}
    )._run
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, boxes = rng.standard_normal((2, 3, 7, 8)), regions(rng, 2, 3, 9.0)
        half_pixel, ratio = bool(seed % 2), int(rng.choice([0, 2, 3]))
        (expected,) = run(
            x,
            boxes[:, 1:],
            boxes[:, 0].astype(np.int64),
            coordinate_transformation_mode="half_pixel" if half_pixel else "output_half_pixel",
            mode=mode,
            output_height=3,
            output_width=2,
            sampling_ratio=ratio,
            spatial_scale=0.7,
        )
        y = F.roi_align(x, boxes, (3, 2), 0.7, ratio, half_pixel, mode)
        np.testing.assert_allclose(y, expected, atol=1e-12, err_msg=str((seed, ratio)))


def test_roi_align_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, boxes = rng.standard_normal((2, 3, 7, 8)), regions(rng, 2, 5, 9.0)
    expected = [F.roi_align(x, boxes, 2, mode=mode) for mode in ("avg", "max")]
    monkeypatch.setattr(subject, "_TAPS", 1)
    for mode, right in zip(("avg", "max"), expected, strict=True):
        np.testing.assert_array_equal(F.roi_align(x, boxes, 2, mode=mode), right)


def test_the_mean_of_a_huge_region_is_that_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 7, 8))
    boxes = np.concatenate([regions(rng, 2, 4, 9.0), [[1, -50, -3, 90, 70], [0, 2, 3, 2, 3], [0, 60, 70, 80, 90]]])
    for aligned, ratio in ((False, 0), (True, 0), (True, 3)):
        found = []
        for most in (subject._MEAN, 1):
            monkeypatch.setattr(subject, "_MEAN", most)
            tensor = pycnn.Tensor(x, requires_grad=True)
            y = F.roi_align(tensor, boxes, (3, 2), 0.7, ratio, aligned)
            (y * y).sum().backward()
            found.append((y.detach().data, tensor.grad.data))
        for mine, right in zip(*found, strict=True):
            np.testing.assert_allclose(mine, right, rtol=1e-12, atol=1e-13)  # float64: the same sums by axes
        monkeypatch.undo()


def test_a_huge_region_takes_little_memory() -> None:
    """Listed, its samples would take 10**13 bytes."""
    x = np.arange(12.0).reshape(1, 1, 3, 4)
    box = np.array([[0, -1e5, -1e5, 1e5, 1e5]])
    tracemalloc.start()
    y = F.roi_align(x, box, 1)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20
    # Samples at -1/2, 1/2 .. in the image: each lies between two pixels, the outermost two on one.
    mean = np.array([1.5, 1, 1.5]) @ x[0, 0] @ np.array([1.5, 1, 1, 1.5]) / 4e10
    assert y.item() == pytest.approx(mean, rel=1e-9)  # places beside 1e5 are rounded at 1e-11
    with pytest.raises(ValueError, match=r"40000000000 samples, which are too many for mode=\"max\""):
        F.roi_align(x, box, 1, mode="max")


def loops(x: np.ndarray, boxes: np.ndarray, out: tuple[int, int], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """RoIPool and which pixel each window took, as "Fast R-CNN" and torchvision have them, one at a time."""
    rounded = lambda v: int(math.copysign(math.floor(abs(v) + 0.5), v))  # noqa: E731
    y = np.zeros((len(boxes), x.shape[1], *out))
    taken = np.full(y.shape, -1)
    for r, (n, *corners) in enumerate(boxes):
        x1, y1, x2, y2 = (rounded(v * scale) for v in corners)
        for c in range(x.shape[1]):
            for p, q in np.ndindex(*out):
                spans = []
                for begin, end, bins, i, size in ((y1, y2, out[0], p, x.shape[2]), (x1, x2, out[1], q, x.shape[3])):
                    step = max(end - begin + 1, 1) / bins
                    low, high = begin + math.floor(i * step), begin + math.ceil((i + 1) * step)
                    spans.append(range(min(max(low, 0), size), min(max(high, 0), size)))
                pixels = [(x[int(n), c, h, w], -h, -w) for h in spans[0] for w in spans[1]]
                if pixels:
                    best = max(pixels)
                    y[r, c, p, q], taken[r, c, p, q] = best[0], -best[1] * x.shape[3] - best[2]
    return y, taken


def test_roi_pool_agrees_with_its_definition(backend: str) -> None:
    for seed in range(25):
        rng = np.random.default_rng(seed)
        x = rng.integers(-5, 6, (2, 3, 6, 8)).astype(np.float64)  # equal maxima: the first counts
        boxes, out = regions(rng, 2, 4, 12.0), tuple(int(v) for v in rng.integers(1, 5, 2))
        own = pycnn.Tensor(x, requires_grad=True)
        y = F.roi_pool(own, boxes, out, 0.6)
        expected, taken = loops(x, boxes, out, 0.6)
        np.testing.assert_array_equal(y.detach().numpy(), expected, err_msg=str(seed))
        dy = rng.integers(-9, 10, y.shape).astype(np.float64)
        y.backward(pycnn.Tensor(dy))
        dx = np.zeros_like(x)
        for r, c, p, q in np.argwhere(taken >= 0):
            dx[int(boxes[r, 0]), c].flat[taken[r, c, p, q]] += dy[r, c, p, q]
        np.testing.assert_array_equal(own.grad.numpy(), dx)


def test_lists_of_boxes_are_one_an_image() -> None:
    rng = np.random.default_rng(0)
    x, boxes = rng.standard_normal((3, 2, 6, 6)), regions(rng, 3, 6, 6.0)
    boxes = boxes[np.argsort(boxes[:, 0], kind="stable")]
    apart = [boxes[boxes[:, 0] == i, 1:] for i in range(3)]
    for function in (F.roi_align, F.roi_pool):
        np.testing.assert_array_equal(function(x, apart, 2), function(x, boxes, 2))
        assert function(x, [np.zeros((0, 4))] * 3, 2).shape == (0, 2, 2, 2)
        assert function(x, np.zeros((0, 5)), 2).shape == (0, 2, 2, 2)


def test_16_bits_are_computed_in_32() -> None:
    rng = np.random.default_rng(0)
    x, boxes = rng.standard_normal((1, 2, 6, 6)).astype(np.float16), regions(rng, 1, 3, 6.0)
    for function in (F.roi_align, F.roi_pool):
        wide = function(x.astype(np.float32), boxes.astype(np.float32), 2)
        found = function(pycnn.Tensor(x), boxes.astype(np.float32), 2)
        np.testing.assert_array_equal(found.numpy(), wide.astype(np.float16))


def test_gradients_of_regions() -> None:
    rng = np.random.default_rng(0)
    x = pycnn.Tensor(rng.standard_normal((1, 2, 5, 5)), requires_grad=True)
    boxes = np.array([[0, 0.3, 0.4, 4.2, 3.9], [0, -1.0, 2.0, 3.0, 9.0]])
    for function in (lambda x: F.roi_align(x, boxes, 2), lambda x: F.roi_pool(x, boxes, 2)):
        gradcheck(function, x)


def suppressed(boxes: np.ndarray, scores: np.ndarray, threshold: float, groups: np.ndarray | None) -> list[int]:
    """The definition, box by box."""
    stays: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all((groups is not None and groups[i] != groups[j]) or iou(boxes[i], boxes[j]) <= threshold for j in stays):
            stays.append(i)
    return stays


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = (max(min(a[2 + i], b[2 + i]) - max(a[i], b[i]), 0.0) for i in range(2))
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_nms_agrees_with_its_definition(backend: str) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(0, 60))
        corners = rng.integers(0, 20, (count, 2))
        boxes = np.concatenate([corners, corners + rng.integers(1, 12, (count, 2))], 1).astype(np.float64)
        scores = rng.integers(0, 20, count) / 4.0  # many equal ones, which keep their order
        groups = rng.integers(0, 3, count)
        threshold = float(rng.choice([0.0, 0.25, 0.5, 0.7]))
        found = F.nms(boxes, scores, threshold)
        assert found.dtype == np.int64
        assert found.tolist() == suppressed(boxes, scores, threshold, None), seed
        assert F.batched_nms(boxes, scores, groups, threshold).tolist() == suppressed(boxes, scores, threshold, groups)
        if count:
            expected = [[iou(a, b) for b in boxes[:7]] for a in boxes]
            np.testing.assert_allclose(F.box_iou(boxes, boxes[:7]), expected, rtol=1e-14)


@pytest.mark.filterwarnings("error")
def test_boxes_that_are_no_numbers_suppress_nothing() -> None:
    boxes = np.array([[0.0, 0, 2, 2]] * 4)
    boxes[1, 2] = np.nan
    for backend in ("reference", "cpu", "sim"):
        with pycnn.use_backend(backend):
            kept = F.nms(boxes.astype(np.float32), np.array([0.5, 0.9, np.nan, 0.7], np.float32), 0.5)
        assert kept.tolist() == [1, 3]  # 3 takes the others with it


def test_nms_of_tensors_is_a_tensor() -> None:
    boxes = pycnn.Tensor(np.array([[0.0, 0, 2, 2], [0, 0, 2, 2]]), requires_grad=True)
    kept = F.nms(boxes, pycnn.Tensor(np.array([0.1, 0.2])), 0.5)
    assert isinstance(kept, pycnn.Tensor)
    assert kept.tolist() == [1]
    torch = pytest.importorskip("torch")
    assert F.nms(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([1.0]), 0.5).tolist() == [0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_box_that_is_not_finite_gives_0(wrong: float, ratio: int) -> None:
    x, good = np.ones((1, 2, 4, 4)), [0.0, 0.0, 0.0, 4.0, 4.0]
    for column in range(1, 5):
        bad = list(good)
        bad[column] = wrong
        y = F.roi_align(x, np.array([good, bad]), 2, 1.0, ratio, True)
        assert (y[0] == 1.0).all()
        assert not y[1].any()


def test_layers_are_the_functions() -> None:
    x, boxes = RNG.standard_normal((2, 3, 7, 8)), regions(RNG, 2, 5, 9.0)
    given = (2, 3), 0.7, 2, True
    align, pool = pycnn.nn.RoIAlign(*given), pycnn.nn.RoIPool(2, 0.7)
    np.testing.assert_array_equal(align(x, boxes).data, F.roi_align(x, boxes, *given))
    np.testing.assert_array_equal(
        pool(x, [boxes[:2, 1:], boxes[2:, 1:]]).data, F.roi_pool(x, [boxes[:2, 1:], boxes[2:, 1:]], 2, 0.7)
    )
    assert repr(align) == "RoIAlign(output_size=(2, 3), spatial_scale=0.7, sampling_ratio=2, aligned=True)"
    assert repr(pool) == "RoIPool(output_size=(2, 2), spatial_scale=0.7)"


X, BOX = np.zeros((2, 3, 4, 5)), np.zeros((1, 5))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: F.roi_align(X[0], BOX, 2), ValueError, r"x must have 4 dimensions .* got shape \(3, 4, 5\)"),
        (lambda: F.roi_align(X, BOX[:, :4], 2), ValueError, r"boxes must have the shape \(R, 5\), got \(1, 4\)"),
        (lambda: F.roi_align(X, [BOX], 2), ValueError, "boxes must be a list with one array an image, 2, got 1"),
        (lambda: F.roi_align(X, [BOX, BOX], 2), ValueError, r"boxes\[0\] must have the shape \(R, 4\), got \(1, 5\)"),
        (lambda: F.roi_align(X, 3, 2), TypeError, "boxes must be a Tensor or an array, got int"),
        (lambda: F.roi_align(X, BOX, (2, 0)), ValueError, r"output_size\[1\] must be between 1"),
        (lambda: F.roi_align(X, BOX, 2, "1"), TypeError, "spatial_scale must be a number"),
        (lambda: F.roi_align(X, BOX, 2, 1.0, 1.5), TypeError, "sampling_ratio must be an int, got 1.5"),
        (lambda: F.roi_align(X, BOX, 2, aligned=1), TypeError, "aligned must be True or False, got 1"),
        (lambda: F.roi_align(X, BOX, 2, mode="sum"), ValueError, "mode must be avg or max, got 'sum'"),
        (lambda: F.roi_align(X, 1e18 * np.array([[0, 0, 0, 1, 1]]), 2), ValueError, "samples would have more than"),
        (lambda: F.roi_align(X, BOX + 2, 2), IndexError, "image must hold numbers of images"),
        (lambda: F.roi_pool(X, BOX + 2, 2), IndexError, "image must hold numbers of images"),
        (lambda: F.roi_pool(X[:, :, :0], BOX, 2), ValueError, "x must have at least one channel, row and column"),
        (
            lambda: F.nms(BOX, np.zeros(1), 0.5),
            ValueError,
            r"boxes must have the shape \(K, 4\) .* got \(1, 5\)",
        ),
        (
            lambda: F.nms(BOX[:, :4], np.zeros(2), 0.5),
            ValueError,
            r"scores must have a score for each box",
        ),
        (lambda: F.nms(BOX[:, :4], np.zeros(1), None), TypeError, "iou_threshold must be a number"),
        (
            lambda: F.batched_nms(BOX[:, :4], np.zeros(1), np.zeros(1), 0.5),
            TypeError,
            "groups must be an array of",
        ),
        (lambda: F.box_iou(BOX, BOX), ValueError, r"boxes1 must have the shape \(K, 4\), got \(1, 5\)"),
        (lambda: F.box_iou(BOX[:, :4], 3), TypeError, "boxes2 must be a Tensor or an array, got int"),
    ],
)
def test_refusals(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
