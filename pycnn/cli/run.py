"""``pycnn run``: an ONNX file on a photograph, or on arrays."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_parser", "run"]

_SIDE = 224  # of the image where neither the file nor --size says


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="run an ONNX file",
        description="Run an ONNX file on photographs or arrays, and print the likeliest classes, or what the outputs "
        "look like. A photograph is made as large as the file says and normalised; an array is taken as it is.",
        epilog="example: pycnn run model.onnx --input photo.jpg",
    )
    parser.add_argument("model", type=Path, metavar="FILE.onnx", help="the model")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="an image, .npy or .npz (its arrays by name); repeat for models with several inputs",
    )
    parser.add_argument("--size", metavar="HxW", help=f"of the image, where the file leaves it open (default: {_SIDE})")
    parser.add_argument(
        "--fit",
        choices=("crop", "stretch"),
        default="crop",
        help="cut the middle out after scaling the shorter side to 256/224 of the size, as torchvision does, or scale "
        "the whole image (default: %(default)s)",
    )
    parser.add_argument(
        "--normalize",
        choices=("imagenet", "unit", "symmetric", "none"),
        default="imagenet",
        help="to ImageNet's mean and deviation, to [0, 1], to [-1, 1], or leave 0 to 255 (default: %(default)s)",
    )
    parser.add_argument("--bgr", action="store_true", help="channels in the order blue, green, red")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:1 (default: %(default)s)")
    parser.add_argument(
        "--accuracy", choices=("strict", "fast"), default="strict", help="what convolutions may trade for speed"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="class names, one a line (default: ImageNet's)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes to print (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.npz", help="write the outputs there, by name")


def run(args: argparse.Namespace) -> None:
    """Read, run, print; write if asked."""
    import time

    import numpy as np

    from pycnn._files import replacing
    from pycnn.onnx.backend import PycnnRep, device_of_name
    from pycnn.onnx.graph import load
    from pycnn.shape import whole

    top = whole("--top", args.top, 1)
    graph = load(args.model)
    prepared = PycnnRep(graph, device_of_name(args.device), args.accuracy)
    inputs = _inputs(args, graph.required)
    start = time.perf_counter()
    outputs = prepared.run(inputs)
    seconds = time.perf_counter() - start
    print(f"{args.model}: {len(graph.nodes)} nodes, {seconds * 1e3:.1f} ms, the first time")
    named = {info.name: value for info, value in zip(graph.outputs, outputs, strict=True)}
    for name, value in named.items():
        _print(name, value, args.labels, top)
    if args.out is not None:
        arrays = {name: value for name, value in named.items() if not isinstance(value, list)}
        with replacing(args.out) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
        print(f"{args.out}: {', '.join(arrays)}")


def _inputs(args: argparse.Namespace, wanted: Any) -> dict[str, Any]:
    """The arrays by the names of the model's inputs.  Raises ValueError where they are too many or too few."""
    known = {info.name: info for info in wanted}
    given: dict[str, Any] = {}
    for text in args.input:
        name, equals, file = text.partition("=")
        if not equals or name not in known:
            name, file = next((one for one in known if one not in given), ""), text
        if file.endswith(".npz"):
            given.update(_stored(file))
            continue
        if not name:
            raise ValueError(f"--input {text}: the model takes {len(known)} inputs ({', '.join(known)})")
        given[name] = _stored(file) if file.endswith(".npy") else _image(file, known[name], args)
    for name, info in known.items():
        if name not in given:
            shape = "x".join(str(size or "?") for size in info.shape or ())
            raise ValueError(f"--input for {name} is missing: {info.dtype} {shape}")
    return given


def _stored(file: str) -> Any:
    """The array of a .npy file, or those of a .npz by name.  Raises ValueError for a damaged one, OSError for none."""
    import tokenize
    import zipfile
    import zlib

    import numpy as np

    from pycnn._files import size_of

    size_of(file)
    damage = (
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        MemoryError,
        tokenize.TokenError,
    )
    try:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray) == file.endswith(".npz"):
            raise ValueError("its name says otherwise")
        return found if isinstance(found, np.ndarray) else dict(found)
    except damage as error:
        raise ValueError(f"--input {file}: no sound array of NumPy ({error})") from None


def _image(path: str, info: Any, args: argparse.Namespace) -> Any:
    """An image file as an input takes it: (1, C, H, W), or (1, H, W, C) if that is what its shape says."""
    import numpy as np

    shape = info.shape if info.shape is not None else (None,) * 4
    if len(shape) != 4:
        raise ValueError(f"--input {path}: the input {info.name} has {len(shape)} dimensions, which is no image")
    last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    channels, *sides = (shape[3], *shape[1:3]) if last else shape[1:]
    if channels not in (1, 3) and isinstance(channels, int):
        raise ValueError(f"--input {path}: the input {info.name} has {channels} channels, which is no image")
    size = _size(sides, args.size)
    pixels = _pixels(path, size, args.fit)
    if channels == 1:
        pixels = pixels @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow has it
        pixels = pixels[..., None]
    elif args.bgr:
        pixels = pixels[..., ::-1]
    image = _normalised(pixels, args.normalize, args.bgr)[None]
    image = image if last else image.transpose(0, 3, 1, 2)
    dtype = np.dtype(np.float32) if info.dtype is None else info.dtype
    if dtype.kind in "iu":  # a model that normalises for itself
        image = np.rint(pixels)[None] if last else np.rint(pixels)[None].transpose(0, 3, 1, 2)
    return np.ascontiguousarray(image.astype(dtype))


def _size(sides: Any, text: str | None) -> tuple[int, int]:
    """Height and width: the model's where it has them, else ``--size``, else the default."""
    chosen = (_SIDE, _SIDE)
    if text is not None:
        try:
            height, width = (int(part) for part in text.split("x"))
        except ValueError:
            raise ValueError(f"--size must be HxW, such as 224x224, got {text!r}") from None
        chosen = height, width
        if min(chosen) < 1:
            raise ValueError(f"--size must be at least 1x1, got {text!r}")
    sizes = [side if isinstance(side, int) else wanted for side, wanted in zip(sides, chosen, strict=True)]
    return sizes[0], sizes[1]


def _pixels(path: str, size: tuple[int, int], fit: str) -> Any:
    """The image as float32 (H, W, 3), 0 to 255."""
    import numpy as np

    from pycnn.data.folder import read_image
    from pycnn.data.imagenet import read_photograph
    from pycnn.data.transforms import CenterCrop, Resize

    nothing = np.empty((1, 0), np.uint32)
    if fit == "crop" and size[0] == size[1]:
        image = read_photograph(path, size[0])[None]
    else:
        image = read_image(path)[None]
        if fit == "crop":
            least = max(size[0] / image.shape[2], size[1] / image.shape[3]) * 256 / 224
            image = Resize([max(round(side * least), 1) for side in image.shape[2:]])(image, nothing)
            image = CenterCrop(size)(image, nothing)
        else:
            image = Resize(size)(image, nothing)
    return image[0].transpose(1, 2, 0).astype(np.float32)


def _normalised(pixels: Any, how: str, bgr: bool) -> Any:
    import numpy as np

    from pycnn.data.imagenet import MEAN, STD

    if how == "none":
        return pixels
    if how == "symmetric":
        return pixels / np.float32(127.5) - np.float32(1)
    pixels = pixels / np.float32(255)
    if how == "unit":
        return pixels
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    if bgr:
        mean, std = mean[::-1], std[::-1]
    if pixels.shape[-1] == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    return (pixels - mean) / std


def _print(name: str, value: Any, labels: Path | None, top: int) -> None:
    """The likeliest classes of one row of scores; else the shape, and least, mean and largest."""
    import numpy as np

    if isinstance(value, list):
        print(f"{name}: a sequence of {len(value)}")
        return
    print(f"{name}: {value.dtype} {'x'.join(map(str, value.shape)) or 'scalar'}")
    if value.ndim >= 2 and value.dtype.kind == "f" and value.shape[1] == value.size > 1:
        _print_classes(value.reshape(-1).astype(np.float64), labels, top)
    elif value.size and value.dtype.kind in "fiu":
        wide = value.astype(np.float64)
        print(f"  least {wide.min():.6g}, mean {wide.mean():.6g}, largest {wide.max():.6g}")


def _print_classes(scores: Any, labels: Path | None, top: int) -> None:
    import numpy as np

    from pycnn.data.imagenet import class_names

    if scores.min() < 0 or abs(scores.sum() - 1) > 1e-3:  # not probabilities yet
        scores = np.exp(scores - scores.max())
        scores = scores / scores.sum()
    names = class_names(labels) if labels is not None or len(scores) == 1000 else ()
    for index in np.argsort(-scores, kind="stable")[:top].tolist():
        name = names[index] if index < len(names) else f"class {index}"
        print(f"  {100 * scores[index]:5.1f} %  {name} ({index})")
