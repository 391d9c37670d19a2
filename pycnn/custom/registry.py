"""The convolution kernels that were registered: by `register_conv2d`, or by a package that declares an entry point."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pycnn.algorithms import FAMILIES
from pycnn.shape import PASSES, Conv2dShape

__all__ = [
    "BACKENDS",
    "GROUP",
    "DevicePass",
    "Kernel",
    "find",
    "is_built_in",
    "names",
    "register_conv2d",
    "result_shape",
    "stands_for",
    "unregister_conv2d",
]

GROUP = "pycnn.conv2d"
"""The entry points that are looked at: the name is the algorithm's, the value a module that registers it."""

BACKENDS = ("reference", "cpu", "cuda", "sim")
_ON_DEVICES = ("cuda", "sim")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FIRST_WORDS = frozenset(("auto", *FAMILIES))
_CONTESTANTS = frozenset(("native", "numpy"))  # of the benchmark

Array = Any  # numpy.ndarray or cupy.ndarray
Refuses = Callable[[str, Conv2dShape, str], str | None]


class DevicePass(ABC):
    """A pass that starts kernels on a device of the CUDA host code, be it a GPU or the simulator."""

    @abstractmethod
    def refuses(self, dtype: str) -> str | None:
        """Why it does not take arrays of this dtype, or None."""

    @abstractmethod
    def run(self, host: Any, operator: str, left: Array, right: Array, shape: Conv2dShape) -> Array:
        """The result, on the device of `host` as its dense operands are."""


Pass = Callable[[Array, Array, Conv2dShape], Array] | DevicePass


@dataclass(frozen=True)
class Kernel:
    """A registered kernel; see `register_conv2d`."""

    name: str
    passes: Mapping[str, Pass]
    backends: tuple[str, ...]
    bound: str
    condition: Refuses | None

    def refuses(self, operator: str, shape: Conv2dShape, dtype: str, backend: str) -> str | None:
        """Why it cannot run a problem on a backend, or None where it can."""
        if operator not in self.passes:
            return f"it was registered for {', '.join(self.passes)} only; algo may be a dict with a name for each pass"
        if backend not in self.backends:
            return f"it was registered for the backends {', '.join(self.backends)}, and this call goes to {backend}"
        run = self.passes[operator]
        if isinstance(run, DevicePass) and (reason := run.refuses(dtype)) is not None:
            return reason
        reason = None if self.condition is None else self.condition(operator, shape, dtype)
        if reason is not None and not isinstance(reason, str):
            raise TypeError(
                f"`refuses` of the registered kernel {self.name} must give a sentence or None, got {reason!r}"
            )
        return reason


_kernels: dict[str, Kernel] = {}


def register_conv2d(
    name: str,
    fprop: Pass | None = None,
    dgrad: Pass | None = None,
    wgrad: Pass | None = None,
    *,
    refuses: Refuses | None = None,
    backends: Iterable[str] | None = None,
    bound: str = "direct",
) -> None:
    """Give a convolution kernel of your own a name that `algo=` takes.

        y  = fprop(x, w, shape)       x: (N, C, H, W)    w: (K, C // groups, R, S)    y: (N, K, P, Q)
        dx = dgrad(dy, w, shape)      like x
        dw = wgrad(dy, x, shape)      like w

    Each pass is any callable that takes two C-contiguous arrays, of NumPy on the CPU and of CuPy on a GPU, and the
    problem as a `pycnn.shape.Conv2dShape`; it writes to neither and returns a new C-contiguous array of the same kind
    and dtype.  Or it is a `pycnn.CudaKernel`: CUDA C++ text.  pycnn checks arguments and result, adds bias and
    epilogue, and keeps empty batches away.  ``algo="auto"`` never takes a registered kernel.

    A package registers its kernels for whoever installs it by an entry point, whose name is the algorithm's and whose
    value is the module that calls this function; it is imported when somebody first asks for that name:

        [project.entry-points."pycnn.conv2d"]
        mine = "my_package.my_kernel"

    Args:
        name: letters, digits and underscores; its first word is none of auto, direct, im2col and winograd.
        fprop, dgrad, wgrad: the passes, at least one.  A call for another raises.
        refuses: of the operator's name, the shape and the dtype's name, such as "float32": a sentence that says why the
            kernel cannot run that problem, or None where it can.
        backends: of "reference", "cpu", "cuda" and "sim" (the simulator), those where it runs; by default "cuda" and
            "sim" if a pass is a `CudaKernel`, else "cpu".
        bound: the algorithm of pycnn's whose error bound it is held to when it is verified: "direct", which is exact on
            integers, for any sum of products; "winograd_f4x4_3x3" or its like for what transforms.

    Raises:
        TypeError: a pass or condition that is not callable.
        ValueError: a name that is malformed, pycnn's own or taken; no pass; an unknown backend or bound, or a
            `CudaKernel` on a backend that is no device.

    >>> import numpy as np, pycnn
    >>> def fprop(x, w, shape):  # 1x1 filters: a matrix product
    ...     y = w.reshape(shape.K, shape.C) @ x.reshape(shape.N, shape.C, -1)
    ...     return y.reshape(shape.y_shape)
    >>> def refuses(operator, shape, dtype):
    ...     plain = (shape.R, shape.S, shape.groups) == (1, 1, 1) and shape.y_shape[2:] == shape.x_shape[2:]
    ...     return None if plain else "it takes 1x1 filters without stride, padding and groups"
    >>> pycnn.register_conv2d("matmul", fprop, refuses=refuses)
    >>> x, w = np.ones((1, 3, 2, 2), np.float32), np.ones((1, 3, 1, 1), np.float32)
    >>> pycnn.conv2d(x, w, algo="matmul")[0, 0]
    array([[3., 3.],
           [3., 3.]], dtype=float32)
    >>> pycnn.conv2d(x, w, stride=2, algo="matmul")
    Traceback (most recent call last):
    ValueError: algo='matmul' cannot run fprop of n1c3h2w2_k1r1s1_st2pd0dl1g1 (it takes 1x1 filters without stride,
    padding and groups)
    >>> pycnn.unregister_conv2d("matmul")
    """
    _check_name(name)
    passes = {operator: run for operator, run in zip(PASSES, (fprop, dgrad, wgrad), strict=True) if run is not None}
    if not passes:
        raise ValueError(f"the kernel {name} needs at least one of fprop, dgrad, wgrad")
    for what, function in {**passes, "refuses": refuses}.items():
        if not (callable(function) or isinstance(function, DevicePass) or (what == "refuses" and function is None)):
            raise TypeError(f"{what} of the kernel {name} must be callable, got {function!r:.60}")
    on_device = [operator for operator, run in passes.items() if isinstance(run, DevicePass)]
    places = (_ON_DEVICES if on_device else ("cpu",)) if backends is None else _listed(backends)
    for place in places:
        if place not in BACKENDS:
            raise ValueError(f"backends must be among {', '.join(BACKENDS)}, got {place!r}")
        if on_device and place not in _ON_DEVICES:
            raise ValueError(f"{on_device[0]} of the kernel {name} is a CudaKernel, which does not run on {place}")
    if not is_built_in(bound) or bound == "auto":
        raise ValueError(f"bound must be the name of an algorithm of pycnn's, got {bound!r}")
    _kernels[name] = Kernel(name, MappingProxyType(passes), places, bound, refuses)


def unregister_conv2d(name: str) -> None:
    """Forget a kernel that `register_conv2d` was given.  Raises ValueError if there is none of that name."""
    if _kernels.pop(name, None) is None:
        raise ValueError(f"no kernel is registered as {name!r}; there are {', '.join(_kernels) or 'none'}")


def names() -> list[str]:
    """The kernels registered so far, in that order."""
    return list(_kernels)


def find(name: str) -> Kernel | None:
    """The kernel of that name, from the installed packages if need be; None for pycnn's own names and unknown ones.

    Raises ValueError for an entry point of that name whose module registers another, and whatever that module raises.
    """
    if name in _kernels or is_built_in(name):
        return _kernels.get(name)
    from importlib import metadata  # takes longer than most of pycnn

    for point in metadata.entry_points(group=GROUP, name=name):
        point.load()
        if name not in _kernels:
            raise ValueError(f"the entry point {name} of {GROUP} names {point.value}, which registers no such kernel")
    return _kernels.get(name)


def is_built_in(algo: str) -> bool:
    """Whether `algo` is a name of pycnn's own, or would be: such a name begins with "auto" or with a family's."""
    return algo in _FIRST_WORDS or algo.partition("_")[0] in _FIRST_WORDS


def result_shape(operator: str, shape: Conv2dShape) -> tuple[int, int, int, int]:
    """The shape of what a pass returns."""
    return {"fprop": shape.y_shape, "dgrad": shape.x_shape, "wgrad": shape.w_shape}[operator]


def stands_for(algo: str) -> str:
    """The algorithm whose error bound `algo` is held to: itself, but for a registered kernel."""
    return _kernels[algo].bound if algo in _kernels else algo


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a kernel's name must be letters, digits and underscores, a letter first, got {name!r}")
    if is_built_in(name) or name in _CONTESTANTS:
        word = name if name in _CONTESTANTS else name.partition("_")[0]
        raise ValueError(f"a kernel cannot be named {name!r}: names that begin with {word} are pycnn's own")
    if name in _kernels:
        raise ValueError(f"a kernel is registered as {name!r} already; pycnn.unregister_conv2d({name!r}) forgets it")


def _listed(backends: Iterable[str]) -> tuple[str, ...]:
    found = (backends,) if isinstance(backends, str) else tuple(backends)
    if not found:
        raise ValueError(f"backends must name at least one of {', '.join(BACKENDS)}")
    return found
