"""CUDA C++ to cubin or PTX with NVRTC, through CuPy's binding.  Needs no GPU, no driver and no toolkit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache as remember
from pathlib import Path
from types import ModuleType
from typing import Literal

from pycnn.jit import bundle, cache, cubin
from pycnn.jit.errors import CompileError, MissingToolError
from pycnn.jit.sources import Instance, Sources, installed

OPTIONS = ("--std=c++20", "--device-as-default-execution-space", "--ptxas-options=-v")

_INSTALL = (
    "install the CUDA parts with: pip install 'pycnn[cuda13]', or name a bundle of compiled kernels in "
    f"{bundle.VARIABLE} (pycnn warmup makes one)"
)


def compile_cubin(instance: Instance, arch: str, sources: Sources | None = None, *, bundles: bool = True) -> Path:
    """The cubin of `instance` for `arch` (such as "sm_90a"): from a bundle or the cache, or compiled and kept there.

    ptxas's report of registers and spills lies beside it with the suffix .log.  What a bundle has (see
    `pycnn.jit.use_bundle`) needs no NVRTC.

    Args:
        instance: the kernel and its constants.
        arch: what for.
        sources: the kernels; the installed ones by default.
        bundles: look into bundles.

    Raises:
        ValueError: the instance is not made for this arch, or this NVRTC does not know the arch; BundleError, which is
            one too, for a bundle that cannot be used.
        CompileError: NVRTC refuses the source; the message carries its log.
        MissingToolError: NVRTC is not installed.
    """
    sources = sources or installed()
    opened = list(bundle.in_use()) if bundles and arch in instance.archs else []
    if opened:
        found = bundle.find(opened, portable_key(instance, arch, sources))
        if found is not None:
            return found
    return _compile(instance, arch, sources, "cubin")


def portable_key(instance: Instance, arch: str, sources: Sources | None = None) -> str:
    """The hash of all that the cubin is made from but NVRTC's version: what a bundle has it under.

    >>> small = installed().of("sum_slices")["w8"]
    >>> portable_key(small, "sm_90a") == portable_key(small, "sm_80")
    False
    """
    return cache.key(**_parts(instance, arch, sources or installed(), "cubin"))


def compile_ptx(instance: Instance, arch: str, sources: Sources | None = None) -> str:
    """The PTX of `instance` for the virtual architecture of `arch`.  Raises as `compile_cubin`."""
    return _compile(instance, arch, sources or installed(), "ptx").read_text()


def version() -> tuple[int, int]:
    """NVRTC's version.  Raises MissingToolError if it is not installed."""
    major, minor = _load().getVersion()
    return major, minor


@remember
def build() -> str:
    """NVRTC's version to the last figure, such as "13.5.37": what it writes into its PTX.

    Raises MissingToolError if it is not installed.
    """
    nvrtc = _load()
    program = nvrtc.createProgram("", "empty.cu", (), ())
    try:
        nvrtc.compileProgram(program, ("--gpu-architecture=compute_90",))
        text = nvrtc.getPTX(program)
    finally:
        nvrtc.destroyProgram(program)
    found = re.search(rb"tools, release [\d.]+, V([\d.]+)", text)
    return found[1].decode() if found else ".".join(map(str, version()))


def supports(arch: str) -> bool:
    """Whether this NVRTC compiles for `arch`.  Raises MissingToolError if it is not installed."""
    number = int(arch.removeprefix("sm_").rstrip("af"))
    return number in _load().getSupportedArchs()


@remember
def _load() -> ModuleType:
    try:
        from cupy.cuda import nvrtc
    except ImportError as error:
        raise MissingToolError(
            f"CuPy, which compiles the CUDA kernels, is not installed ({error}); {_INSTALL}"
        ) from None
    try:
        nvrtc.getVersion()
    except (OSError, RuntimeError) as error:
        raise MissingToolError(f"NVRTC, CUDA's run-time compiler, cannot be loaded ({error}); {_INSTALL}") from None
    return nvrtc


def _compile(instance: Instance, arch: str, sources: Sources, kind: Literal["cubin", "ptx"]) -> Path:
    if arch not in instance.archs:
        raise ValueError(f"{instance} is for {', '.join(instance.archs)}, not {arch}")
    if not supports(arch):
        raise ValueError(f"NVRTC {'.'.join(map(str, version()))} does not compile for {arch}")
    key = cache.key(nvrtc=build(), **_parts(instance, arch, sources, kind))
    path = cache.path(key, f".{kind}")
    if path.is_file():
        return path
    code, log = _run(instance, sources.closure(instance.source), _options(arch, kind), kind)
    cache.publish(key, ".log", log.encode())
    return cache.publish(key, f".{kind}", code)


def _options(arch: str, kind: str) -> tuple[str, ...]:
    target = arch if kind == "cubin" else arch.replace("sm_", "compute_")
    return (f"--gpu-architecture={target}", *OPTIONS)


def _parts(instance: Instance, arch: str, sources: Sources, kind: str) -> dict[str, str | Mapping[str, str]]:
    """What the code is made from."""
    return {
        "kind": kind,
        "files": sources.closure(instance.source),
        "source": instance.source,
        "expression": instance.expression,
        "options": "\n".join(_options(arch, kind)),
    }


def _run(instance: Instance, files: dict[str, str], options: tuple[str, ...], kind: str) -> tuple[bytes, str]:
    nvrtc = _load()
    headers = {name: text.encode() for name, text in files.items() if name != instance.source}
    program = nvrtc.createProgram(
        files[instance.source],
        instance.source,
        tuple(headers.values()),
        tuple(name.encode() for name in headers),
    )
    try:
        nvrtc.addNameExpression(program, instance.expression)
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError:
            raise CompileError(f"{instance} ({options[0]})", nvrtc.getProgramLog(program)) from None
        log = nvrtc.getProgramLog(program)
        if kind == "ptx":
            return nvrtc.getPTX(program).rstrip(b"\0"), log
        return cubin.whole(nvrtc.getCUBIN(program)), log
    finally:
        nvrtc.destroyProgram(program)
