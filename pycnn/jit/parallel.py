"""Many kernels at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from pycnn.jit import nvrtc
from pycnn.jit.sources import Instance, Sources

__all__ = ["compile_all"]


def compile_all(
    instances: Iterable[Instance],
    arch: str,
    sources: Sources | None = None,
    workers: int | None = None,
    on_done: Callable[[Instance, Path], None] | None = None,
    *,
    bundles: bool = True,
) -> dict[Instance, Path]:
    """The cubins of `instances`, several compiled at a time, each as by `pycnn.jit.nvrtc.compile_cubin`.

    Threads do it: NVRTC runs without Python's lock, and two compilations in one process do not wait for each other.

    Args:
        instances: which; the same one again costs nothing.
        arch: what for, such as "sm_90a".
        sources: the kernels; the installed ones by default.
        workers: threads; by default one for each CPU that this process may run on.
        on_done: called, in the caller's thread, as each is ready.
        bundles: look into bundles.

    Returns:
        The file of each instance, in the order given.

    Raises:
        ValueError: an instance is not made for this arch, NVRTC does not know it, or fewer workers than one.
        CompileError: NVRTC refuses a source; the message carries its log.
        MissingToolError: something must be compiled and NVRTC is not installed.

    After an error or Ctrl-C nothing new is begun; what is being compiled is waited for, a second at most, and kept.

    >>> compile_all([], "sm_90a")
    {}
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    wanted = list(dict.fromkeys(instances))
    found: dict[Instance, Path] = {}
    pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)), "pycnn-compile")
    try:
        compile_one = partial(nvrtc.compile_cubin, arch=arch, sources=sources, bundles=bundles)
        waiting = {pool.submit(compile_one, instance): instance for instance in wanted}
        for done in as_completed(waiting):
            instance = waiting[done]
            found[instance] = done.result()
            if on_done is not None:
                on_done(instance, found[instance])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return {instance: found[instance] for instance in wanted}
