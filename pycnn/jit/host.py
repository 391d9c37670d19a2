"""Kernel sources to a shared library of this machine, with g++: the simulator's half of the JIT.  For tests."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache as remember
from pathlib import Path

from pycnn.jit import cache
from pycnn.jit.errors import CompileError, MissingToolError
from pycnn.jit.sources import Instance, Sources, installed, repository

OPTIONS = (
    "-std=c++20",
    "-O2",
    "-march=native",
    "-ffp-contract=off",  # a kernel says fmaf where it means it
    "-fPIC",
    "-fvisibility=hidden",  # two libraries hold the same names; each must use its own
    "-fno-gnu-unique",
    "-U_FORTIFY_SOURCE",  # glibc's checked longjmp refuses to leave a signal handler for another stack
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
)
_RUNTIME = ("engine.cpp", "fiber.cpp")


def build(instance: Instance, sources: Sources | None = None, options: tuple[str, ...] = ()) -> Path:
    """The shared library that runs `instance` under the simulator: from the cache, or compiled and kept there.

    Args:
        instance: the kernel and its constants.
        sources: the folder of kernels.
        options: more for g++, such as "-DPYCNN_SIM_UCONTEXT".

    Raises:
        CompileError: g++ refuses the source; the message carries its log.
        MissingToolError: there is no g++, or the simulator's sources are not here (they are not in the wheel).
    """
    sources = sources or installed()
    simulator = _simulator()
    texts = {file.name: file.read_text() for file in sorted(simulator.iterdir())}
    unit = f'#include "{instance.source}"\n#include "entry.h"\nPYCNN_SIM_KERNEL({instance.expression})\n'
    options = (*OPTIONS, *options)
    what: dict[str, str | Mapping[str, str]]
    what = {"simulator": texts, "options": "\n".join(options), "compiler": _version(), "machine": _machine()}
    key = cache.key(unit=unit, files=sources.closure(instance.source), **what)
    path = cache.path(key, ".so")
    if path.is_file():
        return path
    runtime = []
    for file in _RUNTIME:
        object_key = cache.key(file=file, **what)
        ready = cache.path(object_key, ".o")
        if not ready.is_file():
            ready = _publish(object_key, ".o", f"{file} of the simulator", [*options, "-c", str(simulator / file)])
        runtime.append(str(ready))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "unit.cpp"
        source.write_text(unit)
        includes = [f"-I{simulator}", f"-I{sources.folder}", "-include", "cuda.h"]
        if instance.source in sources.texts:
            (Path(folder) / instance.source).write_text(sources.texts[instance.source])
            includes.append("-w")  # what a stranger's code is warned of does not keep it from running
        command = [*options, *includes, "-shared", str(source), *runtime]
        return _publish(key, ".so", f"{instance} (simulator)", command)


def _publish(key: str, suffix: str, what: str, arguments: list[str]) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / f"result{suffix}"
        command = [_compiler(), *arguments, "-o", str(result)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileError(what, done.stderr)
        return cache.publish(key, suffix, result.read_bytes())


def _simulator() -> Path:
    folder = repository() / "csrc" / "sim"
    if not folder.is_dir():
        raise MissingToolError(f"the simulator's sources are not in {folder}: it works in a checkout of pycnn only")
    return folder


def _compiler() -> str:
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if not compiler:
        raise MissingToolError("the simulator is compiled with g++, which is not here; on Debian: apt install g++")
    return compiler


@remember
def _version() -> str:
    return subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=True).stdout


@remember
def _machine() -> str:
    """What -march=native depends on: the processor's own list of instruction sets."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {features}"
