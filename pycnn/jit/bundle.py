"""Bundles: compiled kernels in one file, for machines with another NVRTC or with none.

A bundle is a zip file of cubins and a manifest in JSON.  A kernel's name in it is the hash of its sources, options,
architecture and of pycnn's version; which NVRTC compiled it does not matter, as it does in the cache: a driver that
takes the one takes the other.  Nothing in it is run before its hash is the one in the manifest.

`use` (or $PYCNN_BUNDLE) puts one before the compiler: a kernel that it holds is taken from it into the cache.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycnn
from pycnn._files import replacing

__all__ = ["Bundle", "BundleError", "find", "use", "write"]

FORMAT = "pycnn-bundle-1"
VARIABLE = "PYCNN_BUNDLE"
_MANIFEST = "manifest.json"
_DATE = (1980, 1, 1, 0, 0, 0)  # the same bytes for the same kernels
_MOST = 2**28  # bytes of a kernel or of the manifest: above it, the file is not what it says


class BundleError(ValueError):
    """A file that is no whole bundle, or not one for this pycnn; the message names the file and the reason."""


@dataclass(frozen=True)
class Bundle:
    """A bundle, all of it read and verified.

    Attributes:
        path: its file.
        entries: by key, what the manifest says: kernel, arch, sha256, size.
        cubins: by key.
    """

    path: Path
    entries: Mapping[str, Mapping[str, Any]]
    cubins: Mapping[str, bytes]

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Bundle:
        """Read and verify a bundle.  Raises BundleError."""
        file = Path(path)
        try:
            with zipfile.ZipFile(file) as archive:
                manifest = json.loads(_member(archive, _MANIFEST))
                if manifest["format"] != FORMAT:
                    raise BundleError(f"{file} has the format {manifest['format']!r}, this pycnn reads {FORMAT!r}")
                if manifest["pycnn"] != pycnn.__version__:
                    raise BundleError(
                        f"{file} was made by pycnn {manifest['pycnn']}, this is {pycnn.__version__}; make it anew with "
                        "`pycnn warmup`"
                    )
                cubins = {}
                for key, entry in manifest["kernels"].items():
                    data = _member(archive, f"{key}.cubin")
                    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                        raise BundleError(
                            f"{file} is damaged: {entry['kernel']} does not have the hash in its manifest"
                        )
                    cubins[key] = data
                return Bundle(file, manifest["kernels"], cubins)
        except BundleError:
            raise
        except FileNotFoundError:
            raise BundleError(f"there is no bundle {file}") from None
        except OSError as error:
            raise BundleError(f"cannot read the bundle {file}: {error}") from None
        except (
            *(zipfile.BadZipFile, zlib.error, KeyError, TypeError, AttributeError, ValueError),
            *(EOFError, NotImplementedError, RuntimeError),
        ) as error:
            raise BundleError(f"{file} is no whole bundle of compiled kernels: {error}") from None


def write(path: str | os.PathLike[str], kernels: Mapping[str, tuple[str, str, bytes]]) -> None:
    """Write a bundle, whole or not at all.

    Args:
        path: the file; its folder must exist.
        kernels: by key: the kernel's name, its architecture, the cubin.

    Raises:
        OSError: it cannot be written.
    """
    entries = {
        key: {"kernel": name, "arch": arch, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for key, (name, arch, data) in sorted(kernels.items())
    }
    manifest = {"format": FORMAT, "pycnn": pycnn.__version__, "kernels": entries}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(_MANIFEST, _DATE), json.dumps(manifest, indent=1) + "\n")
        for key in entries:
            member = zipfile.ZipInfo(f"{key}.cubin", _DATE)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, kernels[key][2])
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())


_used: list[Bundle] = []
_from_environment: dict[str, Bundle] = {}


def use(path: str | os.PathLike[str]) -> Bundle:
    """Take kernels from this bundle from now on, before any is compiled.

    Raises:
        BundleError: no such file, not a bundle, a damaged one, or one of another version of pycnn.
    """
    bundle = Bundle.read(path)
    _used.append(bundle)
    return bundle


def find(key: str) -> bytes | None:
    """The cubin with this key in a bundle in use, or None.  Raises BundleError for one in $PYCNN_BUNDLE."""
    for bundle in (*reversed(_used), *_named()):
        if key in bundle.cubins:
            return bundle.cubins[key]
    return None


def _named() -> list[Bundle]:
    """The bundles of $PYCNN_BUNDLE: files, separated as in $PATH; each is read once."""
    found = []
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        if path not in _from_environment:
            _from_environment[path] = Bundle.read(path)
        found.append(_from_environment[path])
    return found


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MOST:
        raise BundleError(f"{archive.filename} is no whole bundle of compiled kernels: {name} is too large")
    return archive.read(name)
