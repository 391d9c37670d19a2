"""CUDA C++ to cubin or PTX with NVRTC, through CuPy's binding.  Needs no GPU, no driver and no toolkit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache as remember
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pycnn.jit import bundle, cache, cubin
from pycnn.jit.errors import CompileError, MissingToolError
from pycnn.jit.sources import Instance, Sources, installed

OPTIONS = ("--std=c++20", "--device-as-default-execution-space", "--ptxas-options=-v")

_INSTALL = "install the CUDA parts with: pip install 'pycnn[cuda13]'"


def compile_cubin(instance: Instance, arch: str, sources: Sources | None = None) -> Path:
    """The cubin of `instance` for `arch` (such as "sm_90a"): from a bundle or the cache, or compiled and kept there.

    ptxas's report of registers and spills lies beside it with the suffix .log.

    Raises:
        ValueError: the instance is not made for this arch, or this NVRTC does not know the arch.
        CompileError: NVRTC refuses the source; the message carries its log.
        MissingToolError: NVRTC is not installed.
        BundleError: $PYCNN_BUNDLE names a file that is no whole bundle.
    """
    sources = sources or installed()
    key = bundle_key(instance, arch, sources)
    path = cache.path(key, ".cubin")
    if path.is_file():
        return path
    found = bundle.find(key)
    return cache.publish(key, ".cubin", found) if found is not None else _compile(instance, arch, sources, "cubin")


def bundle_key(instance: Instance, arch: str, sources: Sources | None = None) -> str:
    """A kernel's name in a bundle: the hash of all that it depends on but NVRTC's version."""
    return cache.key(kind="bundle", **_parts(instance, arch, sources or installed(), "cubin"))


def compile_all(
    instances: Sequence[Instance],
    arch: str,
    sources: Sources | None = None,
    *,
    jobs: int | None = None,
    progress: Callable[[int, int, Instance], None] | None = None,
) -> dict[Instance, Path]:
    """The cubins of many instances, compiled by several threads at once: NVRTC runs outside of Python's lock.

    Args:
        instances, arch, sources: as in `compile_cubin`.
        jobs: how many at once; as many as there are cores if not said.
        progress: told how many of how many are done, and which one was the last.

    Raises:
        as `compile_cubin`, for the first that fails; those that have not begun are left out.
    """
    wanted = list(dict.fromkeys(instances))
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        waiting = {pool.submit(compile_cubin, instance, arch, sources): instance for instance in wanted}
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                future.result()
                if progress is not None:
                    progress(done, len(wanted), waiting[future])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {instance: future.result() for future, instance in waiting.items()}


def compile_ptx(instance: Instance, arch: str, sources: Sources | None = None) -> str:
    """The PTX of `instance` for the virtual architecture of `arch`.  Raises as `compile_cubin`."""
    return _compile(instance, arch, sources or installed(), "ptx").read_text()


def version() -> tuple[int, int]:
    """NVRTC's version.  Raises MissingToolError if it is not installed."""
    major, minor = _load().getVersion()
    return major, minor


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
    options = _options(arch, kind)
    files = sources.closure(instance.source)
    key = cache.key(kind=kind, nvrtc=str(version()), **_parts(instance, arch, sources, kind))
    path = cache.path(key, f".{kind}")
    if path.is_file():
        return path
    code, log = _run(instance, files, options, kind)
    cache.publish(key, ".log", log.encode())
    return cache.publish(key, f".{kind}", code)


def _options(arch: str, kind: str) -> tuple[str, ...]:
    target = arch if kind == "cubin" else arch.replace("sm_", "compute_")
    return (f"--gpu-architecture={target}", *OPTIONS)


def _parts(instance: Instance, arch: str, sources: Sources, kind: str) -> dict[str, Any]:
    """What a result depends on, the compiler apart."""
    return {
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
