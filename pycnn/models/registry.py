"""The networks by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from pycnn.nn.module import Module

__all__ = ["ModelInfo", "create", "info", "list_models", "register"]

Builder = TypeVar("Builder", bound=Callable[..., Module])


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a network before it is built.

    Attributes:
        name: as `create` takes it.
        build: the function that makes it.
        input_shape: (C, H, W) of one image.
        paper: author and year.
    """

    name: str
    build: Callable[..., Module]
    input_shape: tuple[int, int, int]
    paper: str


_MODELS: dict[str, ModelInfo] = {}


def register(input_shape: tuple[int, int, int], paper: str) -> Callable[[Builder], Builder]:
    """A decorator that enters a building function into the registry under its own name."""

    def enter(build: Builder) -> Builder:
        name = build.__name__
        _MODELS[name] = ModelInfo(name, build, input_shape, paper)
        return build

    return enter


def info(name: str) -> ModelInfo:
    """The entry of network `name`.  Raises ValueError, with the nearest names, if there is none.

    >>> info("vgg16").input_shape
    (3, 224, 224)
    """
    if name not in _MODELS:
        near = get_close_matches(str(name), _MODELS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(_MODELS)}"
        raise ValueError(f"no network is named {name!r}; {hint}")
    return _MODELS[name]


def create(name: str, **settings: Any) -> Module:
    """Build network `name`.

    Args:
        name: one of `list_models`.
        **settings: what its building function takes, such as `num_classes`.

    Raises:
        ValueError: an unknown name.
        TypeError: a setting that this network does not have.

    >>> sum(p.data.size for p in create("lenet5").parameters())
    61706
    """
    return info(name).build(**settings)


def list_models() -> list[str]:
    """All names, sorted, numbers by their value.

    >>> list_models()[:2]
    ['alexnet', 'alexnet_one_tower']
    """
    return sorted(_MODELS, key=_natural)


def _natural(name: str) -> list[str]:
    return [part.zfill(6) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
