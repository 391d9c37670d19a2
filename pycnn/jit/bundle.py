"""Bundles: one file of compiled kernels, made where there is no GPU, used where there need be no compiler.

A bundle is a zip file:

    manifest.json      format, pycnn's version, NVRTC's, and for each kernel its instance, arch, key, size and SHA-256
    cubin/<key>.cubin  the machine code
    log/<key>.log      what ptxas said of it

A kernel is found by the hash of its sources, instance, options, arch and pycnn's version.  NVRTC's version is not part
of that key, so a bundle serves a machine with another NVRTC, or with none.  A kernel whose sources have changed since
is not found, and is compiled as if there were no bundle.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache as remember
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pycnn
from pycnn._files import replacing, size_of
from pycnn.jit import cache
from pycnn.jit.sources import Instance

__all__ = ["VARIABLE", "Bundle", "BundleError", "Kernel", "in_use", "use_bundle", "write"]

VARIABLE = "PYCNN_KERNELS"

_FORMAT = 1
_MANIFEST = "manifest.json"
_MOST_MANIFEST = 2**26  # bytes; a million kernels would not need as many
_DATE = (1980, 1, 1, 0, 0, 0)  # of every member, so that the same kernels give the same file


class BundleError(ValueError):
    """A file that cannot be used as a bundle of kernels; the message says what is wrong with it."""


@dataclass(frozen=True)
class Kernel:
    """One kernel of a bundle.

    Attributes:
        instance: kernel and tile, as ``str(Instance)`` has them.
        arch: what it is compiled for.
        key: hash of all that it was made from, NVRTC's version excepted.
        sha256: of the cubin.
        size: of the cubin in bytes.
        log_sha256: of what ptxas said.
    """

    instance: str
    arch: str
    key: str
    sha256: str
    size: int
    log_sha256: str


_FIELDS = {"instance": str, "arch": str, "key": str, "sha256": str, "size": int, "log_sha256": str}


class Bundle:
    """A bundle, read and checked from end to end.

    Args:
        path: the file.

    Raises:
        BundleError: no such file, one that cannot be read, no bundle, one of another format or of another pycnn, or a
            damaged one.

    Attributes:
        path: the file.
        nvrtc: the version of NVRTC that it was built with.
        kernels: what it holds, by key.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            size_of(self.path)
            with zipfile.ZipFile(self.path) as file:
                manifest = self._manifest(file)
                self.nvrtc = str(manifest["nvrtc"])
                self.kernels = {kernel.key: kernel for kernel in self._kernels(manifest)}
                for kernel in self.kernels.values():
                    self._read(file, kernel)
        except FileNotFoundError:
            raise BundleError(f"there is no bundle of kernels {self.path}") from None
        except OSError as error:
            raise BundleError(f"the bundle of kernels {self.path} cannot be read: {error.strerror}") from None
        except BundleError:
            raise
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:  # the latter are of zipfile, too
            raise BundleError(f"{self.path} is no bundle of kernels, or a damaged one: {error}") from None

    @property
    def archs(self) -> list[str]:
        """What its kernels are compiled for."""
        return sorted({kernel.arch for kernel in self.kernels.values()})

    def read(self, key: str) -> tuple[bytes, str]:
        """The cubin with this key, and its log.  Raises KeyError, or BundleError if the file has changed."""
        try:
            with zipfile.ZipFile(self.path) as file:
                return self._read(file, self.kernels[key])
        except (FileNotFoundError, zipfile.BadZipFile) as error:
            raise BundleError(f"{self.path} has changed since it was opened: {error}") from None

    def _manifest(self, file: zipfile.ZipFile) -> dict[str, Any]:
        if _MANIFEST not in file.namelist():
            raise BundleError(f"{self.path} is no bundle of kernels: it has no {_MANIFEST}")
        try:
            manifest = json.loads(self._member(file, _MANIFEST, _MOST_MANIFEST))
        except (ValueError, RecursionError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(f"{self.path} is damaged: its {_MANIFEST} is not JSON ({error})") from None
        if not isinstance(manifest, dict) or "format" not in manifest:
            raise BundleError(f"{self.path} is no bundle of kernels: its {_MANIFEST} names no format")
        if manifest["format"] != _FORMAT:
            raise BundleError(f"{self.path} has format {manifest['format']!r}; this pycnn reads format {_FORMAT}")
        missing = [name for name in ("pycnn", "nvrtc", "kernels") if name not in manifest]
        if missing or not isinstance(manifest["kernels"], list):
            raise BundleError(
                f"{self.path} is damaged: its {_MANIFEST} has no {', '.join(missing) or 'list of kernels'}"
            )
        if manifest["pycnn"] != pycnn.__version__:
            raise BundleError(
                f"{self.path} was made by pycnn {manifest['pycnn']}, and this is pycnn {pycnn.__version__}; "
                "make it again with: pycnn warmup"
            )
        return manifest

    def _kernels(self, manifest: Mapping[str, Any]) -> list[Kernel]:
        kernels = []
        for entry in manifest["kernels"]:
            if not isinstance(entry, dict) or {name: type(value) for name, value in entry.items()} != _FIELDS:
                raise BundleError(f"{self.path} is damaged: its {_MANIFEST} describes a kernel as {entry!r:.80}")
            kernels.append(Kernel(**entry))
        return kernels

    def _read(self, file: zipfile.ZipFile, kernel: Kernel) -> tuple[bytes, str]:
        what = f"{kernel.instance} for {kernel.arch}"
        try:
            code = self._member(file, f"cubin/{kernel.key}.cubin", kernel.size)
            log = self._member(file, f"log/{kernel.key}.log", _MOST_MANIFEST)
        except KeyError as error:
            raise BundleError(f"{self.path} is damaged: {what} is missing ({error.args[0]})") from None
        if len(code) != kernel.size or hashlib.sha256(code).hexdigest() != kernel.sha256:
            raise BundleError(f"{self.path} is damaged: the machine code of {what} is not what its {_MANIFEST} says")
        if hashlib.sha256(log).hexdigest() != kernel.log_sha256:
            raise BundleError(f"{self.path} is damaged: the log of {what} is not what its {_MANIFEST} says")
        return code, log.decode(errors="replace")

    def _member(self, file: zipfile.ZipFile, name: str, most: int) -> bytes:
        """A member of at most so many bytes."""
        if file.getinfo(name).file_size > most:
            raise BundleError(f"{self.path} is damaged: {name} is larger than its {most} bytes")
        try:
            return file.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise BundleError(f"{self.path} is damaged: {name} cannot be read ({error})") from None


def write(path: Path, kernels: Iterable[tuple[Instance, str, str, bytes, str]], nvrtc: str) -> Bundle:
    """Write a bundle, whole or not at all, and read it back.

    Args:
        path: the file; its folder must exist.
        kernels: instance, arch, key, cubin and log of each.
        nvrtc: the version of NVRTC that compiled them.

    Raises:
        OSError: the file cannot be written.
    """
    entries = []
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for instance, arch, key, code, log in kernels:
            text = log.encode()
            digests = hashlib.sha256(code).hexdigest(), hashlib.sha256(text).hexdigest()
            entries.append(Kernel(str(instance), arch, key, digests[0], len(code), digests[1]))
            file.writestr(_info(f"cubin/{key}.cubin"), code)
            file.writestr(_info(f"log/{key}.log"), text)
        manifest = {"format": _FORMAT, "pycnn": pycnn.__version__, "nvrtc": nvrtc}
        manifest["kernels"] = [asdict(entry) for entry in entries]
        file.writestr(_info(_MANIFEST), json.dumps(manifest, indent=1))
    return Bundle(path)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


_used: list[Bundle] = []


class use_bundle:
    """Take kernels from a bundle, in the whole process: until the end of the ``with`` block, or for good without one.

    The bundles named by the environment variable PYCNN_KERNELS (several with ":" between) are looked into after those.

    Args:
        path: a file that `pycnn warmup` made.

    Raises:
        BundleError: no such file, no bundle, one of another format or of another pycnn, or a damaged one.

    >>> use_bundle("no-such-file")
    Traceback (most recent call last):
    pycnn.jit.bundle.BundleError: there is no bundle of kernels no-such-file
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.bundle = Bundle(path)
        _used.insert(0, self.bundle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _used.remove(self.bundle)


def in_use() -> Iterator[Bundle]:
    """The bundles that kernels are taken from, in order.  Raises BundleError for one of PYCNN_KERNELS that is wrong."""
    yield from _used
    for name in os.environ.get(VARIABLE, "").split(os.pathsep):
        if name:
            try:
                yield _opened(name)
            except BundleError as error:
                raise BundleError(f"{VARIABLE}: {error}") from None


@remember
def _opened(name: str) -> Bundle:
    return Bundle(name)


def find(bundles: Iterable[Bundle], key: str) -> Path | None:
    """The cubin with this key, from the first bundle that has it, as a file with its log beside; or None."""
    for bundle in bundles:
        if key in bundle.kernels:
            code, log = bundle.read(key)
            return _unpacked(bundle.kernels[key].sha256, code, log)
    return None


def _unpacked(sha256: str, code: bytes, log: str) -> Path:
    """In the cache under the hash of its content; where nothing can be written there, in a folder of this process."""
    name = cache.key(unpacked=sha256, log=log)
    path = cache.path(name, ".cubin")
    if path.is_file() and path.read_bytes() == code:
        return path
    try:
        cache.publish(name, ".log", log.encode())
        return cache.publish(name, ".cubin", code)
    except OSError:
        path = Path(_folder().name) / f"{name}.cubin"
        path.with_suffix(".log").write_text(log)
        path.write_bytes(code)
        return path


@remember
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pycnn-kernels-")
