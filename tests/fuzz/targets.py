"""What is fuzzed: readers of files from elsewhere.  A new reader is one more entry of `TARGETS`."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        read: reads the file at a path.
        refuses: the exceptions that it may raise, by name: of its own, or Python's.
        seeds: sound files to start from.
        suffix: of the file's name.
        modules: where coverage is looked at.
        seconds: of processor time that an input of some kilobytes may take.
    """

    read: Callable[[Path], object]
    refuses: tuple[str, ...]
    seeds: Callable[[], list[bytes]]
    suffix: str
    modules: tuple[str, ...]
    seconds: float = 5.0


def _read_idx(path: Path) -> object:
    from pycnn.data import read_idx

    return read_idx(path)


def _idx_seeds() -> list[bytes]:
    array = np.arange(24)
    plain = [
        bytes([0, 0, code, 3]) + struct.pack(">3I", 2, 3, 4) + array.astype(dtype).tobytes()
        for code, dtype in ((0x08, ">u1"), (0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8"))
    ]
    zeros = bytes([0, 0, 8, 1]) + struct.pack(">I", 3_000_000) + bytes(3_000_000)
    return [*plain, *(gzip.compress(one) for one in plain[::5]), gzip.compress(zeros)]


def _read_image(path: Path) -> object:
    from pycnn.data.folder import read_image

    return read_image(path), read_image(path, 16)


def _read_folder(path: Path) -> object:
    """The file among sound ones, in a tree of one folder a class."""
    from PIL import Image

    from pycnn.data.folder import read_folder

    tree = path.parent / "tree"
    for name in ("sound", "odd"):
        (tree / name).mkdir(parents=True, exist_ok=True)
        for i in range(5):
            if not (one := tree / name / f"{i}.png").exists():
                Image.new("RGB", (4, 4), "red").save(one)
    (tree / "odd" / f"input{path.suffix}").write_bytes(path.read_bytes())
    split = read_folder(tree, 8)
    return [part.images(np.arange(len(part))) for part in (split.train, split.test)]


def _image_seeds() -> list[bytes]:
    from PIL import Image

    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (13, 17, 3), np.uint8))
    alpha = Image.fromarray(rng.integers(0, 256, (13, 17, 4), np.uint8))
    deep = Image.fromarray(rng.integers(0, 2**16, (13, 17), np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    seeds = []

    def add(image: Image.Image, kind: str, **options: object) -> None:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        seeds.append(buffer.getvalue())

    add(colour, "JPEG", exif=turned)
    add(colour, "JPEG", progressive=True)
    add(alpha, "PNG")
    add(deep, "PNG")
    add(colour.quantize(16), "PNG", transparency=3)
    add(colour.convert("1"), "PNG")
    add(colour, "BMP")
    add(alpha, "WEBP", lossless=True)
    add(colour, "WEBP")
    add(colour, "WEBP", save_all=True, append_images=[alpha.convert("RGB")])
    add(colour, "TIFF", compression="tiff_lzw")
    add(colour, "TIFF", compression="jpeg")
    add(colour, "PPM")
    add(Image.new("RGB", (2500, 2000)), "PNG")  # large and nearly empty
    return seeds


def _read_weights(path: Path) -> object:
    """HDF5, whose first bytes a guided fuzzer finds, is a target of its own: each input takes a process."""
    return None if path.read_bytes()[:4] == b"\x89HDF" else _read_hdf5(path)


def _read_hdf5(path: Path) -> object:
    from pycnn import weights

    return {name: array.sum() for name, array in weights.load(path).items()}  # mapped files are read when looked at


def _weights_seeds() -> list[bytes]:
    """Checkpoints of PyTorch, and safetensors."""
    import importlib.util
    import tempfile

    from pycnn import weights

    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.safetensors")
        weights.save(path, _ARRAYS)
        seeds.append(path.read_bytes())
    if importlib.util.find_spec("torch") is not None:
        import torch

        state = {"state_dict": {name: torch.as_tensor(array) for name, array in _ARRAYS.items()}, "epoch": 3}
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
            seeds.append(buffer.getvalue())
    return seeds


_ARRAYS = {
    **{"a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "a.bias": np.zeros(0), "b": np.array(7)},
}


def _hdf5_seeds() -> list[bytes]:
    """Arrays alone, plain and compressed, in the oldest and the newest form; and Keras', with its lists."""
    import h5py

    seeds = []
    for packed in (None, "gzip"):
        for form in ("earliest", "latest"):
            buffer = io.BytesIO()
            with h5py.File(buffer, "w", libver=form) as file:
                file.create_dataset("layer/kernel", data=_ARRAYS["a.weight"], compression=packed)
                file.attrs["note"] = "a text of no fixed length"
            seeds.append(buffer.getvalue())
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = [b"layer", b"none"]
        file["layer/layer/kernel:0"] = _ARRAYS["a.weight"]
        file["layer"].attrs["weight_names"] = ["layer/kernel:0"]
        file.create_group("none").attrs["weight_names"] = np.zeros(0, "S1")
    return [*seeds, buffer.getvalue()]


def _read_tfjs(path: Path) -> object:
    """The manifest, two shards beside it."""
    for shard, size in (("a.bin", 30), ("b.bin", 12)):
        if not (path.parent / shard).exists():
            (path.parent / shard).write_bytes(bytes([1]) * size)
    return _read_weights(path)


def _tfjs_seeds() -> list[bytes]:
    quantised = {"dtype": "uint8", "scale": 0.5, "min": -1}
    weights = [
        {"name": "net/conv/kernel", "shape": [1, 2, 2, 2], "dtype": "float32"},
        {"name": "net/conv/bias", "shape": [2], "dtype": "float32", "quantization": quantised},
        {"name": "net/step", "shape": [], "dtype": "int32"},
        {"name": "net/on", "shape": [4], "dtype": "bool"},
    ]
    manifest = [{"paths": ["a.bin", "b.bin"], "weights": weights}]
    return [json.dumps(one).encode() for one in (manifest, {"modelTopology": {}, "weightsManifest": manifest})]


def _read_onnx(path: Path) -> object:
    import pycnn.onnx

    return pycnn.onnx.load(path)


def _onnx_seeds() -> list[bytes]:
    from onnx import TensorProto, helper, numpy_helper

    def model(nodes: list[object], shape: tuple[object, ...], constants: dict[str, np.ndarray]) -> bytes:
        graph = helper.make_graph(
            nodes,
            "seed",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        opset = helper.make_opsetid("", 17)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()

    branch = [
        helper.make_graph(
            [helper.make_node(operator, ["x"], ["z"])],
            operator,
            [],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        )
        for operator in ("Relu", "Neg")
    ]
    weights = np.arange(36, dtype=np.float32).reshape(2, 2, 3, 3)
    return [
        model(
            [
                helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2], name="first"),
                helper.make_node("Flatten", ["c"], ["y"], axis=1),
            ],
            ("N", 2, 8, 8),
            {"w": weights, "b": weights[0, 0, 0, :2]},
        ),
        model(
            [
                helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float16([2, 3]), "c")),
                helper.make_node("If", ["flag"], ["y"], then_branch=branch[0], else_branch=branch[1]),
            ],
            (2, 3),
            {"flag": np.array(True)},
        ),
        model([helper.make_node("Add", ["x", "w"], ["y"])], (1,), {"w": np.zeros(300_000, np.int8)}),
    ]


TARGETS = {
    "idx": Target(_read_idx, ("CorruptFile",), _idx_seeds, "", ("pycnn.data",)),
    "image": Target(_read_image, ("CorruptFile",), _image_seeds, "", ("pycnn.data", "PIL")),
    "folder": Target(_read_folder, ("CorruptFile",), _image_seeds, ".jpg", ("pycnn.data", "PIL")),
    "weights": Target(_read_weights, ("WeightsError",), _weights_seeds, "", ("pycnn.weights",)),
    "tfjs": Target(_read_tfjs, ("WeightsError", "OSError"), _tfjs_seeds, "", ("pycnn.weights",)),
    "hdf5": Target(_read_hdf5, ("WeightsError",), _hdf5_seeds, "", ("pycnn.weights",)),
    "onnx": Target(_read_onnx, ("ModelError", "UnsupportedModelError", "OSError"), _onnx_seeds, "", ("pycnn.onnx",)),
}
