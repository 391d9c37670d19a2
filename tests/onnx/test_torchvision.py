"""torchvision's networks with random weights, exported by PyTorch, give what PyTorch and onnxruntime compute."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import packages
import pytest

pytest.importorskip("onnx")

import onnx

import pycnn
import pycnn.onnx

QUICK = ("squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5")
OTHERS = (
    *("alexnet", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3", "mnasnet0_5"),
    *("mobilenet_v2", "regnet_y_400mf", "resnet18", "resnext50_32x4d", "vgg11_bn", "convnext_tiny", "swin_t"),
    *("swin_v2_t", "vit_b_16", "maxvit_t", "optical_flow.raft_small", "video.r3d_18", "video.mc3_18"),
    *("video.r2plus1d_18", "video.mvit_v1_b", "video.s3d"),
    *(
        "segmentation.deeplabv3_mobilenet_v3_large",
        "segmentation.fcn_resnet50",
        "segmentation.lraspp_mobilenet_v3_large",
    ),
)
DETECTORS = ("fasterrcnn_mobilenet_v3_large_320_fpn", "fcos_resnet50_fpn")

# The smallest input that each family takes, or one on which it is quick.
SIZES = {"optical_flow": (3, 128, 128), "segmentation": (3, 96, 96), "video": (3, 8, 32, 32)}
OF_224 = {"video.mvit_v1_b": (3, 16, 224, 224), "video.s3d": (3, 16, 224, 224)}


def _network(name: str) -> tuple[Any, list[Any]]:
    """A network whose statistics and weights of 0 are drawn too, and its inputs."""
    torch = pytest.importorskip("torch")
    models = packages.torchvision_models()
    where, _, short = name.rpartition(".")
    options: dict[str, Any] = {"init_weights": False} if short in ("googlenet", "inception_v3") else {}
    if where == "segmentation":
        options["weights_backbone"] = None
    torch.manual_seed(0)
    network = getattr(getattr(models, where) if where else models, short)(weights=None, **options).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, torch.nn.Linear) and not module.weight.any():  # the head of a vision transformer
            torch.nn.init.normal_(module.weight, std=0.05)
    shape = OF_224.get(name, SIZES.get(where, (3, 224, 224)))
    return network, [torch.randn(1, *shape) for _ in range(2 if where == "optical_flow" else 1)]


def _exported(network: Any, inputs: Any, **options: Any) -> Any:
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, tuple(inputs), buffer, dynamo=False, **options)
    return onnx.load_from_string(buffer.getvalue())


def _expected(network: Any, inputs: Any) -> list[np.ndarray]:
    import torch

    with torch.no_grad():
        result = network(*inputs)
    several = result.values() if isinstance(result, dict) else result if isinstance(result, list) else [result]
    return [one.numpy() for one in several]


def _close(got: Any, expected: Any) -> None:
    """Exporters fold batch norm into filters; some dozens of layers then round differently."""
    assert len(got) == len(expected)
    for y, wanted in zip(got, expected, strict=True):
        assert y.shape == wanted.shape
        assert np.abs(y - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("name", "opset"),
    [
        *((name, 17) for name in QUICK),
        (QUICK[0], 11),
        (QUICK[1], 20),
        *(pytest.param(name, 17, marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_exported(name: str, opset: int) -> None:
    network, inputs = _network(name)
    model = _exported(network, inputs, opset_version=opset)
    _close(pycnn.onnx.prepare(model).run([x.numpy() for x in inputs]), _expected(network, inputs))


@pytest.mark.parametrize("name", [QUICK[2], *(pytest.param(one, marks=pytest.mark.slow) for one in ("vit_b_16",))])
def test_batches_of_any_size(name: str) -> None:
    """An exporter that is told so writes the size of a batch as what the shapes of its nodes compute."""
    torch = pytest.importorskip("torch")
    network, inputs = _network(name)
    model = _exported(network, inputs, opset_version=17, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    x = torch.cat([inputs[0], inputs[0].flip(-1), -inputs[0]])
    _close(pycnn.onnx.prepare(model).run([x.numpy()]), _expected(network, [x]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "shufflenet_v2_x0_5", "swin_v2_t"])
def test_exported_by_dynamo(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PyTorch's newer exporter, for batches of any size, its weights in a file beside the model's."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    network, (x,) = _network(name)
    x = torch.cat([x, x.flip(-1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (x,), dynamo=True, dynamic_shapes=[{0: torch.export.Dim("batch", min=1, max=64)}]
        )
    program.save(tmp_path / "model.onnx", external_data=True)
    x = torch.cat([x, -x[:1]])
    with pycnn.no_grad(), pycnn.use_accuracy("strict"):
        y = pycnn.onnx.load(tmp_path / "model.onnx")(x.numpy())
    _close([y.data], _expected(network, [x]))


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_detectors(name: str) -> None:
    """Onnxruntime is the judge: what the exporter writes is not quite what PyTorch computes of regions."""
    torch = pytest.importorskip("torch")
    onnxruntime = pytest.importorskip("onnxruntime")
    import detectors

    few: dict[str, Any] = {"score_thresh": 0.0, "detections_per_img": 15}
    if "rcnn" in name:
        few = {f"box_{key}": value for key, value in few.items()}
        few |= {"rpn_pre_nms_top_n_test": 40, "rpn_post_nms_top_n_test": 20}
    torch.manual_seed(0)
    network = getattr(detectors.models(), name)(weights=None, weights_backbone=None, min_size=64, max_size=64, **few)
    network.eval()
    # Weights with which scores differ by more than their rounding, and boxes do not multiply it.
    for module in [network.roi_heads.box_predictor.cls_score] if "rcnn" in name else network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight)
    x = torch.rand(3, 64, 64)
    model = _exported(network, ([x],), opset_version=17)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    expected = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert len(expected[0]) == 15
    _close(pycnn.onnx.prepare(model).run([x.numpy()]), expected)
