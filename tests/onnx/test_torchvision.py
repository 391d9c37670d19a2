"""torchvision's networks with random weights, exported by PyTorch, give what PyTorch computes."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import packages
import pytest

pytest.importorskip("onnx")

import onnx

import pycnn.onnx

QUICK = ("squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5")
OTHERS = (
    *("alexnet", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3", "mnasnet0_5"),
    *("mobilenet_v2", "regnet_y_400mf", "resnet18", "resnext50_32x4d", "vgg11_bn", "convnext_tiny", "swin_t"),
    *(
        "segmentation.deeplabv3_mobilenet_v3_large",
        "segmentation.fcn_resnet50",
        "segmentation.lraspp_mobilenet_v3_large",
    ),
)


@pytest.mark.parametrize(
    ("name", "opset"),
    [
        *((name, 17) for name in QUICK),
        (QUICK[0], 11),
        *(pytest.param(name, 17, marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_exported(name: str, opset: int) -> None:
    torch = pytest.importorskip("torch")
    models = packages.torchvision_models()
    where, _, short = name.rpartition(".")
    options: dict[str, Any] = {"init_weights": False} if short in ("googlenet", "inception_v3") else {}
    if where:
        options["weights_backbone"] = None
    torch.manual_seed(0)
    network = getattr(models.segmentation if where else models, short)(weights=None, **options).eval()
    x = torch.randn(1, 3, 224, 224) if not where else torch.randn(1, 3, 96, 96)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, x, buffer, dynamo=False, opset_version=opset)
    (y, *_) = pycnn.onnx.prepare(onnx.load_from_string(buffer.getvalue())).run([x.numpy()])
    with torch.no_grad():
        result = network(x)
    expected = (result["out"] if where else result).numpy()
    # The exporter folds batch norm into filters; some dozens of layers then round differently.
    assert np.abs(y - expected).max() <= 2e-5 * np.abs(expected).max()
