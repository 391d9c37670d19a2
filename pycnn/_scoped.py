"""A setting of the whole process, with other values for the length of ``with`` blocks."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar, Token
from typing import Any, ClassVar, Self

__all__ = ["Scoped"]


class Scoped:
    """Base of `use_backend` and its like: a value until the end of a ``with`` block, or for good without one.

    A block's value holds for its own thread (or task); one set for good holds for all.  Which of the two it is becomes
    known only at ``with``, so an instance counts as set for good until then.

    Args:
        value: the subclass has checked it.

    >>> class use_colour(Scoped):
    ...     first, inside, lasting = "red", ContextVar("colour", default=None), []
    >>> with use_colour("blue"):
    ...     use_colour.value()
    'blue'
    >>> use_colour.value()
    'red'
    """

    # Of each subclass:
    first: ClassVar[Any]  # the value before anything is set
    inside: ClassVar[ContextVar[Scoped | None]]  # the innermost block
    # Those set for good, the last one holds.  A list, and no `before` to put back: blocks entered by several threads at
    # once would put back each other's.
    lasting: ClassVar[list[Scoped]]

    def __init__(self, value: Any) -> None:
        self._value = value
        self.lasting.append(self)

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):
            self.lasting.remove(self)
        self._token: Token[Scoped | None] = self.inside.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self.inside.reset(self._token)

    @classmethod
    def value(cls) -> Any:
        """The value in force."""
        chosen = cls.inside.get()
        if chosen is None:
            if not cls.lasting:
                return cls.first
            try:
                chosen = cls.lasting[-1]
            except IndexError:  # another thread has just taken the last one
                return cls.first
        return chosen._value
