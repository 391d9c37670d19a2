"""What a recorded step needs of the host between its replays: numbers that change, and places in the random stream.

A step that `pycnn.cuda.capture` runs or records has a `Replay`.  Whatever reads a changing number from device memory
(an optimiser its learning rate, dropout its place in the stream) says here how that memory is brought up to date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

__all__ = ["CaptureError", "Replay", "active"]

Array = Any


class CaptureError(RuntimeError):
    """A step that cannot be recorded as it is; the message says what stands in the way."""


class Stream(Protocol):
    """A position in a random stream: `pycnn.random.Generator`."""

    def get_state(self) -> tuple[int, int]:
        """(seed, offset)."""

    def set_state(self, state: tuple[int, int]) -> None:
        """Go there."""

    def reserve(self, words: int) -> tuple[int, int]:
        """Take the next words."""


@dataclass
class _Place:
    """Where the device stands in one stream.

    Attributes:
        counter: the device's offset, in one int64 that stands for 64 unsigned bits.
        holds: what the host knows `counter` to be.
        start: (seed, offset) at which the step began.
        used: counters that the step takes.
    """

    counter: Array
    holds: int
    start: tuple[int, int]
    used: int = 0


@dataclass
class Replay:
    """What one recorded step asks of the host.

    Attributes:
        host: the backend functions of the device, `pycnn.backends.cuda.Host`.
    """

    host: Any
    _refreshers: dict[int, Callable[[], None]] = field(default_factory=dict)
    _places: dict[int, tuple[Stream, _Place]] = field(default_factory=dict)

    def refresh(self, owner: Any, function: Callable[[], None]) -> None:
        """Call `function` before each replay; once for each owner."""
        self._refreshers[id(owner)] = function

    def reserve(self, stream: Stream, words: int) -> tuple[int, int, Array]:
        """Take the next words of `stream`: its seed, the offset beyond the device's counter, and that counter."""
        seed, offset = stream.reserve(words)
        known = self._places.get(id(stream))
        if known is None:
            place = _Place(self.host.device.alloc((1,), np.int64), offset, (seed, offset))
            self._set(place.counter, offset)
            self._places[id(stream)] = stream, place
        else:
            place = known[1]
        relative = offset - place.start[1]
        place.used = stream.get_state()[1] - place.start[1]
        return seed, relative, place.counter

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a step that runs, or is written down, with its host code; `before` is called first."""
        for stream, place in self._places.values():
            place.start, place.used = stream.get_state(), 0
        token = _active.set(self)
        try:
            yield
            for _, place in self._places.values():
                if place.used:
                    self.host.advance(place.counter, place.used)
                    place.holds += place.used
        finally:
            _active.reset(token)

    def recorded(self) -> None:
        """The step was written down, not run: the host goes back to where it stood in each stream."""
        for stream, place in self._places.values():
            stream.set_state(place.start)  # `before` finds the counter behind it, and writes it

    def before(self) -> None:
        """Bring the device's memory up to date."""
        for function in self._refreshers.values():
            function()
        for stream, place in self._places.values():
            offset = stream.get_state()[1]
            if place.holds != offset:
                self._set(place.counter, offset)
                place.holds = offset

    def after(self) -> None:
        """The record ran: the host's streams go as far as the device's."""
        for stream, place in self._places.values():
            seed, offset = stream.get_state()
            stream.set_state((seed, offset + place.used))
            place.holds += place.used

    def _set(self, counter: Array, offset: int) -> None:
        self.host.device.fill(counter, offset if offset < 2**63 else offset - 2**64)

    @property
    def stale(self) -> bool:
        """Whether a seed that is part of the record is not the stream's any more."""
        return any(stream.get_state()[0] != place.start[0] for stream, place in self._places.values() if place.used)


_active: ContextVar[Replay | None] = ContextVar("pycnn_replay", default=None)


def active() -> Replay | None:
    """The replay whose step is being run or recorded, if any."""
    return _active.get()
