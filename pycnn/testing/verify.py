"""`verify_conv2d`: a kernel that was registered, on every problem of the lists, the smallest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pycnn import backends, cuda
from pycnn.arrays import parse_device, place, to_host
from pycnn.custom import registry
from pycnn.custom.dispatch import answering
from pycnn.jit.errors import MissingToolError
from pycnn.shape import Problem
from pycnn.testing.check import check_conv2d
from pycnn.testing.problems import layers, problems

__all__ = ["Verification", "home_of", "verify_conv2d"]

# The lecture's layers are many times larger than the problems of the lists; these few multiply-adds take in LeNet-5 and
# the small ones of the residual networks.
_MOST_MACS_OF_LAYERS = 3_000_000


@dataclass(frozen=True)
class Verification:
    """What `verify_conv2d` looked at.

    Attributes:
        name: the kernel.
        backend: where it ran.
        right: the problems on which it is right, the smallest first.
        refused: the problems that it refused, and why.
    """

    name: str
    backend: str
    right: tuple[Problem, ...]
    refused: dict[Problem, str]

    def __str__(self) -> str:
        passes = ", ".join(dict.fromkeys(problem.operator for problem in self.right))
        refused = f", {len(self.refused)} refused" if self.refused else ""
        return f"{self.name} is right on {len(self.right)} problems on {self.backend} ({passes}){refused}"


def verify_conv2d(
    name: str,
    backend: str | None = None,
    given: Iterable[Problem | str] | None = None,
    *,
    dtype: str = "float32",
    most_macs: int | None = None,
    progress: Callable[[int, int, Problem], object] | None = None,
) -> Verification:
    """Prove a registered kernel in each of its passes by `check_conv2d`: exact on integers, within its bound elsewhere.

    Args:
        name: the kernel's.
        backend: where; by default the first of the kernel's backends that this machine has.
        given: problems, of which the pass and dtype do not matter; by default all of `pycnn.testing.BY_REASON` and the
            small layers of the lecture's networks.
        dtype: of the arrays; 16 bits on "cuda" and "sim" alone, the others widen them for the kernel.
        most_macs: leave out problems of more multiply-adds, for a kernel that runs in a simulator.
        progress: called before each problem with how many are done, how many there are, and it.

    Raises:
        AssertionError: the kernel is wrong, or raised an exception; the message has the problem's string, which is that
            of the smallest problem among those given on which it is so.
        ValueError: no such kernel, or one that refuses every problem.
        MissingToolError: a compiler, a driver or the simulator is not there.

    >>> import pycnn
    >>> pycnn.register_conv2d("forgetful", lambda x, w, shape: np.zeros(shape.y_shape, x.dtype))
    >>> verify_conv2d("forgetful")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: forgetful is wrong on n2c3h1w1_k4r1s1_st1pd0dl1g1 (cpu): integers: at (...) got ..., expected ...
    >>> pycnn.unregister_conv2d("forgetful")
    """
    kernel = registry.find(name)
    if kernel is None:
        raise ValueError(f"no kernel is registered as {name!r}; there are {', '.join(registry.names()) or 'none'}")
    where = backend or home_of(kernel)
    if given is None:
        given = [*problems(), *layers(most_macs=_MOST_MACS_OF_LAYERS)]
    parsed = [Problem.parse(one) if isinstance(one, str) else one for one in given]
    typed = [replace(one, operator=operator, dtype=dtype) for one in parsed for operator in kernel.passes]
    ordered = sorted(
        (one for one in dict.fromkeys(typed) if most_macs is None or one.shape.macs <= most_macs),
        key=lambda one: one.shape.macs,
    )
    module = answering(backends.get(where), name)
    checked: Any = _FromNumPy(module) if where == "cuda" else module
    right, refused = [], {}
    for done, problem in enumerate(ordered):
        if progress is not None:
            progress(done, len(ordered), problem)
        reason = kernel.refuses(problem.operator, problem.shape, dtype, where)
        if reason is not None:
            refused[problem] = reason
            continue
        try:
            check_conv2d(checked, problem, name)
        except MissingToolError:  # nothing is known of the kernel
            raise
        except AssertionError as error:
            text = str(error)
            details = text.partition(", ")[2] if text.startswith(module.__name__) else text  # not the problem twice
            raise AssertionError(f"{name} is wrong on {problem} ({where}): {details}") from None
        except Exception as error:  # the kernel is somebody's own code, and may raise anything
            raise AssertionError(f"{name} fails on {problem} ({where}): {type(error).__name__}: {error}") from error
        right.append(problem)
    if not right:
        reason = next(iter(refused.values()), "there are none")
        raise ValueError(f"{name} runs on none of the {len(ordered)} problems on {where}: {reason}")
    return Verification(name, where, tuple(right), refused)


def home_of(kernel: registry.Kernel) -> str:
    """The first of a kernel's backends that this machine has: a GPU's only where there is one."""
    able = [name for name in kernel.backends if name != "cuda" or cuda.is_available()]
    if not able:
        raise ValueError(f"the kernel {kernel.name} was registered for CUDA GPUs only, and none is here")
    return able[0]


class _FromNumPy:
    """A backend of the current GPU with NumPy arrays in and out; what it does to an operand is done to NumPy's too."""

    def __init__(self, module: Any) -> None:
        self.__name__ = module.__name__
        self._module = module
        self._device = parse_device("cuda")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            there = [place(one, self._device) if isinstance(one, np.ndarray) else one for one in arguments]
            result = function(*there, **options)
            for one, copy in zip(arguments, there, strict=True):
                if isinstance(one, np.ndarray) and not np.array_equal(found := to_host(copy), one):
                    one[...] = found
            return to_host(result)

        return call
