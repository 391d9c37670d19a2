"""Published networks as the package onnx ships them: the structure as it comes, and numbers with weights of a seed."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import light  # noqa: E402

import pycnn.onnx  # noqa: E402

# The others take their time: VGG and its like have 60 to 140 million weights.
QUICK = ("densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet")
NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in light.NAMES]


def test_all_models_are_here() -> None:
    import os

    found = {name.removeprefix("light_").removesuffix(".onnx") for name in os.listdir(light.FOLDER) if "onnx" in name}
    assert found == set(light.NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_output_as_shipped(name: str) -> None:
    model = light.named(name)
    _, shape = light.image(model)
    (y,) = pycnn.onnx.prepare(model).run([np.ones(shape, np.float32)])
    # The bounds of onnx's own runner for these models.
    np.testing.assert_allclose(y, light.shipped(name), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_seeded_weights_give_what_onnxruntime_gives(name: str, seed: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    plain = light.named(name)
    model = light.seeded(plain, seed)
    for node in model.graph.node:
        if node.op_type == "Softmax":  # with some seeds it makes a one and zeros; what it reads says more
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.input[0]))
    place, shape = light.image(plain)
    x = np.random.default_rng(seed).standard_normal(shape, np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it would list each size that is not read any more
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    right, *scores = session.run(None, {place: x})
    assert right.std() > 1e-6, "a comparison of one number"
    y, *ours = pycnn.onnx.prepare(model).run([x])
    # Sums of thousands of products through up to 120 layers, in another order and by Winograd's tiles: the softmax at
    # the end turns differences of its input into ratios.
    np.testing.assert_allclose(y, right, rtol=2e-3, atol=1e-4 * float(right.max()))
    for one, wanted in zip(ours, scores, strict=True):
        assert wanted.std() > 0.1 * np.abs(wanted).max()
        assert np.abs(one - wanted).max() <= 1e-5 * np.abs(wanted).max()
