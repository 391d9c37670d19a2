"""Interpolation: against PyTorch on random configurations, ONNX's Resize against its own reference, the tables."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import functional as F
from pycnn import nn
from pycnn.resampling import Taps, interpolation_taps, output_positions, resize_taps
from pycnn.testing.gradcheck import gradcheck, gradgradcheck

MODES = {
    1: ("nearest", "nearest-exact", "area", "linear"),
    2: ("nearest", "nearest-exact", "area", "bilinear", "bicubic"),
    3: ("nearest", "nearest-exact", "area", "trilinear"),
}


def settings(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    """An image and how to resize it."""
    dimensions = int(rng.integers(1, 4))
    sizes = tuple(int(v) for v in rng.integers(1, (40, 14, 7)[dimensions - 1], dimensions))
    x = rng.standard_normal((*rng.integers(1, 4, 2), *sizes))
    mode = str(rng.choice(MODES[dimensions]))
    how: dict[str, Any] = {"mode": mode}
    if mode in ("linear", "bilinear", "bicubic", "trilinear"):
        how["align_corners"] = bool(rng.random() < 0.4)
    if mode in ("bilinear", "bicubic"):
        # PyTorch's antialiasing of an image of one column repeats its first row.
        how["antialias"] = min(sizes) > 1 and bool(rng.random() < 0.4)
    if rng.random() < 0.5:
        how["size"] = tuple(int(v) for v in rng.integers(1, 30 // dimensions, dimensions))
    else:
        factors = rng.choice([0.3, 0.5, 0.77, 1.0, 1.1, 1.5, 2.0, 2.4, 3.0], dimensions)
        how["scale_factor"] = tuple(max(float(f), 1.001 / size) for f, size in zip(factors, sizes, strict=True))
        # PyTorch's own gradient of "nearest" looks elsewhere than its forward pass does where 1.1 changes no size.
        how["recompute_scale_factor"] = mode.startswith("nearest") or bool(rng.random() < 0.5)
    return x, how


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.usefixtures("one_torch_thread")
def test_agrees_with_torch(dtype: type, backend: str) -> None:
    torch = pytest.importorskip("torch")
    for seed in range(300):
        rng = np.random.default_rng(seed)
        x, how = settings(rng)
        x = x.astype(dtype)
        image = torch.from_numpy(x.copy()).requires_grad_()
        expected = torch.nn.functional.interpolate(image, **how)
        dy = rng.standard_normal(expected.shape).astype(dtype)
        expected.backward(torch.from_numpy(dy))
        given = pycnn.Tensor(x, requires_grad=True)
        y = F.interpolate(given, **how)
        y.backward(pycnn.Tensor(dy))
        # float64: rounded some ten times.  float32: PyTorch computes positions up to 40 in it, to 40 * 2^-24 of one,
        # and up to 30 of those weights meet in a gradient.
        tolerance = 1e-12 if dtype is np.float64 else 1e-4
        for found, right in ((y, expected), (given.grad, image.grad)):
            assert found.shape == tuple(right.shape), (seed, x.shape, how)
            np.testing.assert_allclose(
                found.detach().numpy(),
                right.detach().numpy(),
                rtol=0,
                atol=tolerance,
                err_msg=str((seed, x.shape, how)),
            )


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.usefixtures("one_torch_thread")
def test_the_nearest_pixel_is_torchs_for_every_size(dtype: type, mode: str) -> None:
    """Positions that are whole but for their rounding depend on the precision they are computed in."""
    torch = pytest.importorskip("torch")
    for size in (*range(1, 41), 97, 1000):
        x = np.arange(size).reshape(1, 1, size).astype(dtype)
        for out in (*range(1, 61), 223, 1023):
            expected = torch.nn.functional.interpolate(torch.from_numpy(x), size=out, mode=mode)
            assert np.array_equal(F.interpolate(x, out, mode=mode), expected.numpy()), (size, out)
        for factor in (0.37, 1.1, 2.0, 2.7, 3.3):
            if int(size * factor):
                expected = torch.nn.functional.interpolate(torch.from_numpy(x), scale_factor=factor, mode=mode)
                assert np.array_equal(F.interpolate(x, scale_factor=factor, mode=mode), expected.numpy()), (
                    size,
                    factor,
                )


def resizings(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for mode in ("nearest", "linear", "cubic"):
        for coordinates in (
            *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"),
            "tf_crop_and_resize",
        ):
            for _ in range(12):
                how = {"mode": mode, "coordinate_transformation_mode": coordinates}
                if mode == "nearest":
                    how["nearest_mode"] = str(rng.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
                else:
                    how["antialias"] = bool(rng.random() < 0.4)
                    how["exclude_outside"] = bool(rng.random() < 0.4) and coordinates != "tf_crop_and_resize"
                if mode == "cubic":
                    how["cubic_coeff_a"] = float(rng.choice([-0.75, -0.5]))
                yield how


def test_onnx_resize_agrees_with_its_reference() -> None:
    reference = pytest.importorskip("onnx.reference.ops.op_resize")
    rng = np.random.default_rng(0)
    for how in resizings(rng):
        size, scale = int(rng.integers(1, 12)), float(rng.choice([0.3, 0.5, 0.6, 0.8, 1.0, 1.3, 2.0, 2.6, 3.0]))
        if how["mode"] == "nearest":  # how 3 / 0.6 is rounded says which pixel is: tests/onnx has onnxruntime's word
            scale = round(4 * scale) / 4
        out = int(size * scale)
        if not out:
            continue
        x = rng.standard_normal((2, size))
        roi = (0.2, 1.3) if how["coordinate_transformation_mode"] == "tf_crop_and_resize" else None
        taps, outside = resize_taps(size=size, out=out, scale=scale, roi=roi, **how)
        y = np.where(outside, 7.0, F.resample(x, {1: taps}))
        settings = {
            "antialias": False,
            "exclude_outside": False,
            "cubic_coeff_a": -0.75,
            "nearest_mode": "round_prefer_floor",
        }
        expected = reference.Resize(_node(), {"opsets": {"": 19}, "new_ops": None, "log": None})._run(
            x,
            None if roi is None else np.array([0.0, roi[0], 1.0, roi[1]]),
            np.array([1.0, scale]),
            keep_aspect_ratio_policy="stretch",
            extrapolation_value=7.0,
            **{**settings, **how},
        )[0]
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12, err_msg=str((size, scale, how)))


def _node() -> Any:
    helper = pytest.importorskip("onnx.helper")
    return helper.make_node("Resize", ["x", "", "s"], ["y"])


def test_tables() -> None:
    taps = Taps.of([[2, 2, 3], [0, 1, 2], [1, 0, 0]], [[1.0, 2.0, 4.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], 4)
    assert taps.start.tolist() == [2, 1, 0]
    assert taps.count.tolist() == [2, 1, 0]
    assert taps.weight.T.tolist() == [[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]
    assert (taps.size, taps.out, taps.most) == (4, 3, 2)
    assert not taps.is_identity
    assert interpolation_taps("linear", 5, 5).is_identity
    assert interpolation_taps("linear", 5, 4) is interpolation_taps("linear", 5, 4)  # made once


@pytest.mark.parametrize("kind", ["nearest", "nearest-exact", "linear", "cubic", "area"])
def test_a_table_transposed_is_its_matrix_transposed(kind: str) -> None:
    def matrix(taps: Taps) -> np.ndarray:
        dense = np.zeros((taps.out, taps.size))
        for i, (start, count) in enumerate(zip(taps.start, taps.count, strict=True)):
            dense[i, start : start + count] = taps.weight[:count, i]
        return dense

    for size, out in ((1, 6), (7, 3), (5, 23), (9, 9)):
        taps = interpolation_taps(kind, size, out)
        np.testing.assert_array_equal(matrix(taps.transposed), matrix(taps).T)
        np.testing.assert_allclose(matrix(taps).sum(1), 1, atol=1e-14)


def test_what_takes_no_part_does_no_harm() -> None:
    """A weight of 0 reads nothing: infinity stays where it is."""
    x = np.array([[[1.0, np.inf, 3.0, 4.0]]])
    y = F.interpolate(x, 4, mode="linear", align_corners=True)
    np.testing.assert_array_equal(y, x)
    assert np.isfinite(F.interpolate(x, 2, mode="nearest")[0, 0]).all()


def test_channels_last_and_views_agree_with_dense_arrays(backend: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 9, 7))
    expected = F.interpolate(x, scale_factor=2, mode="bilinear")
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    gaps = np.repeat(x, 2, axis=3)[..., ::2]
    for other in (last, gaps):
        np.testing.assert_allclose(F.interpolate(other, scale_factor=2, mode="bilinear"), expected, rtol=1e-15)


def test_the_number_of_threads_changes_no_bit(engine_as_found: None) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 190, 210)).astype(np.float32)
    found = []
    for threads in (1, 2, 3):
        pycnn.set_num_threads(threads)
        found.append([F.interpolate(x, (401, 97), mode=mode).tobytes() for mode in ("bilinear", "bicubic", "area")])
    assert found[0] == found[1] == found[2]


def test_gradients_of_gradients() -> None:
    x = pycnn.Tensor(np.random.default_rng(0).standard_normal((1, 2, 4, 3)), requires_grad=True)
    function = lambda x: F.interpolate(x, (5, 2), mode="bicubic") ** 2  # noqa: E731
    gradcheck(function, x)
    gradgradcheck(function, x)


def test_16_bits_are_rounded_once() -> None:
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 4, 5)).astype(np.float16)
    y = F.interpolate(x, scale_factor=1.7, mode="trilinear")
    wide = F.interpolate(x.astype(np.float32), scale_factor=1.7, mode="trilinear")
    np.testing.assert_array_equal(y, wide.astype(np.float16))


def test_layers() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 5)).astype(np.float32)
    layers = {
        nn.Upsample(size=(3, 9)): F.interpolate(x, (3, 9)),
        nn.Upsample(scale_factor=1.5, mode="bicubic", align_corners=True): F.interpolate(
            x, scale_factor=1.5, mode="bicubic", align_corners=True
        ),
        nn.UpsamplingNearest2d(scale_factor=2): F.interpolate(x, scale_factor=2),
        nn.UpsamplingBilinear2d((8, 8)): F.interpolate(x, (8, 8), mode="bilinear", align_corners=True),
    }
    for layer, expected in layers.items():
        np.testing.assert_array_equal(layer(pycnn.Tensor(x)).numpy(), expected)
    assert repr(nn.Upsample(scale_factor=2)) == "Upsample(scale_factor=2, mode='nearest')"
    np.testing.assert_array_equal(F.upsample(x, (3, 9)), F.interpolate(x, (3, 9)))


X = np.zeros((1, 2, 4, 5))


@pytest.mark.parametrize(
    ("x", "how", "error", "words"),
    [
        ([1.0], {"size": 3}, TypeError, "x must be a Tensor or an array, got list"),
        (np.zeros((3, 4)), {"size": 3}, ValueError, r"x must have 3 to 5 dimensions .* got shape \(3, 4\)"),
        (X, {}, ValueError, "one of size and scale_factor must be given, got None and None"),
        (X, {"size": 3, "scale_factor": 2}, ValueError, "one of size and scale_factor"),
        (X, {"size": 3, "mode": "linear"}, ValueError, "mode 'linear' is for 3 dimensions, got x with 4"),
        (X, {"size": 3, "mode": "lanczos"}, ValueError, "mode must be one of nearest, .* got 'lanczos'"),
        (X, {"size": 3, "align_corners": True}, ValueError, "align_corners must be None for mode 'nearest'"),
        (
            X,
            {"size": 3, "mode": "bilinear", "align_corners": 1},
            TypeError,
            "align_corners must be True or False, got 1",
        ),
        (X, {"size": 3, "antialias": True}, ValueError, "antialias must be False for mode 'nearest'"),
        (
            X,
            {"size": 3, "recompute_scale_factor": True},
            ValueError,
            "recompute_scale_factor must not be True where size",
        ),
        (X, {"size": (3, 4, 5)}, ValueError, r"size must have 2 entries, one a dimension, got \(3, 4, 5\)"),
        (X, {"size": (3, 0)}, ValueError, r"size\[1\] must be .* got 0"),
        (X, {"size": 2.5}, TypeError, r"size\[0\] must be an int, got 2.5"),
        (X, {"scale_factor": 0.2}, ValueError, r"scale_factor must leave at least one element .* got 0.2 of \(4, 5\)"),
        (X, {"scale_factor": -1.0}, ValueError, r"scale_factor\[0\] must be a finite number"),
        (X, {"scale_factor": "2"}, TypeError, r"scale_factor\[0\] must be a number"),
        (np.zeros((1, 2, 0, 5)), {"size": 3}, ValueError, "x must have at least one channel and one element"),
    ],
)
def test_refusals(x: Any, how: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        F.interpolate(x, **how)


def test_refusals_of_tables() -> None:
    taps = interpolation_taps("linear", 4, 8)
    with pytest.raises(ValueError, match=r"taps of axis 1 are for a size of 4, and x has shape \(2, 5\)"):
        F.resample(np.zeros((2, 5)), {1: taps})
    with pytest.raises(ValueError, match="an axis of taps must be between -1 and 0 for 1 dimensions, got 1"):
        F.resample(np.zeros(4), {1: taps})
    with pytest.raises(TypeError, match="taps must be a dict of one or more"):
        F.resample(np.zeros(4), {})
    with pytest.raises(ValueError, match="coordinate_transformation_mode must be one"):
        output_positions("corners", 4, 8, 2.0)
    with pytest.raises(ValueError, match="roi must be given"):
        output_positions("tf_crop_and_resize", 4, 8, 2.0)
    with pytest.raises(ValueError, match="nearest_mode must be one of"):
        resize_taps("nearest", 4, 8, 2.0, nearest_mode="up")
    with pytest.raises(ValueError, match="mode must be nearest, linear or cubic, got 'area'"):
        resize_taps("area", 4, 8, 2.0)


@pytest.mark.parametrize(("size", "kept"), [(64, 6), (1 << 14, 4), (1 << 19, 0)])
def test_few_tables_of_long_axes_are_kept(size: int, kept: int) -> None:
    """One of 16,384 elements takes hundreds of KiB and a hundred times as long as its use: the last four are kept."""
    x = np.zeros((1, 1, size), np.float32)
    before = tables(size)
    for _ in range(2):
        for out in range(2, 8):
            F.interpolate(x, size=out, mode="linear")
    gc.collect()
    assert len(tables(size)) - len(before) == kept


def tables(size: int) -> list[Taps]:
    return [one for one in gc.get_objects() if type(one) is Taps and one.size == size]
