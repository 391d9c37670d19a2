"""The kernel sources: where they are, what they include, and what instances of them exist."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_120")

_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Instance:
    """One kernel at one choice of tile constants: an entry of kernels/instances.toml.

    Attributes:
        kernel: name of the ``__global__`` function in namespace pycnn.
        name: name of the choice, unique within the kernel.
        source: file that holds the kernel.
        tile_type: the struct of constants; "" for a kernel given as text, whose name says it all.
        tile: its members and their values.
        archs: what it may be compiled for.
        spills: bytes of registers that it is known to spill.
    """

    kernel: str
    name: str
    source: str
    tile_type: str
    tile: Mapping[str, int] = field(hash=False)
    archs: tuple[str, ...]
    spills: int = 0

    @property
    def expression(self) -> str:
        """The instance in C++, such as ``pycnn::kernel<pycnn::Tile{.R = 3}>``."""
        if not self.tile_type:
            return self.kernel
        members = ", ".join(f".{member} = {value}" for member, value in self.tile.items())
        return f"pycnn::{self.kernel}<pycnn::{self.tile_type}{{{members}}}>"

    def __str__(self) -> str:
        return f"{self.kernel}[{self.name}]" if self.tile_type else self.kernel


class Sources:
    """A folder of kernels.

    Args:
        folder: the folder; by default the one installed with the package or, run in place, the repository's.

    Attributes:
        texts: files that are in no folder, by name; see `given`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or _installed()
        self.texts: dict[str, str] = {}
        self._closures: dict[str, dict[str, str]] = {}
        self._kernels = _instances(self.folder / "instances.toml")

    @property
    def instances(self) -> list[Instance]:
        """Every instance there is, in the order of instances.toml."""
        return [instance for kernel in self._kernels.values() for instance in kernel.values()]

    @cached_property
    def digest(self) -> str:
        """The hash of all kernels: what was timed with others does not hold."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in (".cu", ".cuh", ".toml"):
                digest.update(str(path.relative_to(self.folder)).encode() + b"\n" + path.read_bytes())
        return digest.hexdigest()[:16]

    def of(self, kernel: str) -> Mapping[str, Instance]:
        """The instances of one kernel, by name.  Raises KeyError if there is no such kernel."""
        return self._kernels[kernel]

    def given(self, kernel: str, text: str) -> Instance:
        """A kernel that somebody wrote elsewhere: CUDA C++ that may include the files of this folder.

        Args:
            kernel: its function, as C++ has the name: ``mine``, ``of::mine<3>``.
            text: a source with that one kernel.
        """
        name = f"given-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.texts[f"{name}.cu"] = text
        return Instance(kernel, name, f"{name}.cu", "", MappingProxyType({}), ARCHS)

    def closure(self, file: str) -> dict[str, str]:
        """The text of `file` and of everything it includes from this folder, by name."""
        if file not in self._closures:
            texts: dict[str, str] = {}
            waiting = [file]
            while waiting:
                name = waiting.pop()
                if name not in texts:
                    texts[name] = self.texts.get(name) or (self.folder / name).read_text(encoding="utf-8")
                    waiting.extend(_INCLUDE.findall(texts[name]))
            self._closures[file] = dict(sorted(texts.items()))
        return self._closures[file]


@cache
def installed() -> Sources:
    """The kernels that came with this package."""
    return Sources()


def _installed() -> Path:
    packaged = Path(str(importlib.resources.files("pycnn"))) / "kernels"
    for folder in (packaged, repository() / "kernels"):
        if (folder / "instances.toml").is_file():
            return folder
    raise FileNotFoundError(f"the CUDA kernels are neither in {packaged} nor in a checkout; reinstall pycnn")


def repository() -> Path:
    """The checkout: $PYCNN_REPOSITORY, else the folder above the package, which it is where pycnn is run in place."""
    return Path(os.environ.get("PYCNN_REPOSITORY") or Path(__file__).resolve().parents[2])


def _instances(path: Path) -> dict[str, Mapping[str, Instance]]:
    kernels: dict[str, Mapping[str, Instance]] = {}
    for kernel, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
        instances = {}
        for name, values in entry["instances"].items():
            tile = dict(values)
            spills = tile.pop("spills", 0)
            archs = _archs(tile.pop("archs", entry["archs"]))
            unknown = set(archs) - set(ARCHS)
            if unknown:
                raise ValueError(f"{path}: {kernel} names archs that nobody knows: {', '.join(sorted(unknown))}")
            instances[name] = Instance(
                kernel, name, entry["source"], entry["tile"], MappingProxyType(tile), archs, spills
            )
        kernels[kernel] = MappingProxyType(instances)
    return kernels


def _archs(named: str | Sequence[str]) -> tuple[str, ...]:
    """Those of "all", "sm_80+" (and later), or a list."""
    if named == "all":
        return ARCHS
    if isinstance(named, str) and named.endswith("+") and named[:-1] in ARCHS:
        return ARCHS[ARCHS.index(named[:-1]) :]
    return (named,) if isinstance(named, str) else tuple(named)
