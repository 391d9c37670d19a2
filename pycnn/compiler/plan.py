"""What a lowered network consists of: rooms of memory, the parts of them that steps read and write, and the steps.

Packed activations have `lanes` channels side by side: element (c, h, w) of an image lies at
``offset + (c // lanes)*block + h*row + w*lanes + c % lanes``.  Everything here is independent of the native module: a
`Plan` is turned into its calls by `Plan.program`.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pycnn.compiler.arena import Need, assign
from pycnn.compiler.weights import Weight

__all__ = ["Flat", "Images", "Packed", "Part", "Plan", "Room", "Step"]

Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class Room:
    """Memory of the arena: `batch` images of (channels, height, width), packed or dense.

    Attributes:
        lanes: floats in a vector, or 1 where the images are dense.
        offset: floats from the beginning of the arena, once it is known.
    """

    batch: int
    channels: int
    height: int
    width: int
    lanes: int
    offset: int = 0

    @property
    def row(self) -> int:
        """Floats from a row to the next."""
        return self.width * self.lanes

    @property
    def block(self) -> int:
        """Floats from a vector of channels to the next."""
        return self.height * self.row

    @property
    def image(self) -> int:
        """Floats from an image to the next."""
        return -(-self.channels // self.lanes) * self.block

    @property
    def floats(self) -> int:
        """All of it."""
        return self.batch * self.image

    @property
    def is_dense(self) -> bool:
        """Whether its elements lie in C order without gaps."""
        return self.lanes == 1 or (self.height == self.width == 1 and self.channels % self.lanes == 0)


@dataclass(frozen=True)
class Part:
    """A box of a packed room, as a step sees it."""

    room: Room
    channel: int
    y: int
    x: int
    channels: int
    height: int
    width: int

    @staticmethod
    def all_of(room: Room) -> Part:
        """The whole room."""
        return Part(room, 0, 0, 0, room.channels, room.height, room.width)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its room."""
        return self == Part.all_of(self.room)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    def inside(self, channel: int, y: int, x: int, channels: int, height: int, width: int) -> Part:
        """A box of this box."""
        return Part(self.room, self.channel + channel, self.y + y, self.x + x, channels, height, width)

    def native(self, engine: Any) -> Any:
        """As the native module takes it."""
        room = self.room
        offset = room.offset + self.channel // room.lanes * room.block + self.y * room.row + self.x * room.lanes
        return engine.View(offset, *self.sizes, room.image, room.block, room.row)


@dataclass(frozen=True)
class Flat:
    """A dense array: a room of the arena from its float `at` on, or the input or output of number `at`."""

    room: Room | None = None
    space: str = "arena"
    at: int = 0

    def native(self, engine: Any) -> Any:
        """As the native module takes it."""
        return engine.Plain(self.space, self.at if self.room is None else self.room.offset + self.at)


@dataclass(frozen=True)
class Images:
    """A dense array as images, in NCHW or channels-last, which convolutions read and write as they lie."""

    flat: Flat
    channels: int
    height: int
    width: int
    channels_last: bool = False

    @property
    def room(self) -> Room | None:
        """The memory of the arena that it lies in, if it does."""
        return self.flat.room

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    def native(self, engine: Any) -> Any:
        """As the native module takes it."""
        return engine.Images(self.flat.native(engine), *self.sizes, self.channels_last)


@dataclass(frozen=True)
class Packed:
    """Weights in the layout of a kernel, made when they are first needed and shared by all programs.

    Attributes:
        key: what tells them apart from all others of a network.
        kind: of kernel.
        weight: the layer's.
        first, last: the rows of it that this kernel uses.
        image: sizes of the packed image whose elements the columns of a matrix stand for, or None for dense columns.
    """

    key: tuple[Any, ...]
    kind: str
    weight: Weight
    first: int
    last: int
    image: tuple[int, int, int] | None = None

    def pack(self, engine: Any) -> Any:
        """The native module's filters.  If these are all of the weight, it is read from them from now on."""
        lanes, weight = engine.lanes(), self.weight
        shape = (self.last - self.first, *weight.shape[1:])
        if self.image is not None:
            shape = shape[0], packed_columns(self.image, lanes)
        filters = engine.Filters(self.kind, shape)
        step = max(1, _CHUNK // (4 * lanes * math.prod(shape[1:]))) * lanes
        for first in range(0, shape[0], step):
            rows = weight.rows(self.first + first, min(self.first + first + step, self.last))
            if self.image is not None:
                rows = as_packed(rows, self.image, lanes)
            filters.fill(first, np.ascontiguousarray(rows))
        if shape[0] == weight.shape[0]:
            weight.become(lambda first, last: self._plain(filters, lanes)[first:last])
        return filters

    def _plain(self, filters: Any, lanes: int) -> Array:
        rows = filters.plain()
        return rows if self.image is None else as_dense(rows, self.image, lanes)


_CHUNK = 2**22  # bytes of weights that are packed at a time, so that a large matrix is not in memory twice


def packed_columns(sizes: tuple[int, int, int], lanes: int) -> int:
    """Floats of a packed image."""
    c, h, w = sizes
    return -(-c // lanes) * lanes * h * w


def as_packed(rows: Array, sizes: tuple[int, int, int], lanes: int) -> Array:
    """Rows of a matrix with their columns in the order of a packed image."""
    c, h, w = sizes
    blocks = -(-c // lanes)
    wide = np.zeros((rows.shape[0], blocks * lanes, h, w), rows.dtype)
    wide[:, :c] = rows.reshape(-1, c, h, w)
    return wide.reshape(-1, blocks, lanes, h, w).transpose(0, 1, 3, 4, 2).reshape(rows.shape[0], -1)


def as_dense(rows: Array, sizes: tuple[int, int, int], lanes: int) -> Array:
    """`as_packed` undone."""
    c, h, w = sizes
    blocks = -(-c // lanes)
    wide = rows.reshape(-1, blocks, h, w, lanes).transpose(0, 1, 4, 2, 3).reshape(-1, blocks * lanes, h, w)
    return np.ascontiguousarray(wide[:, :c]).reshape(rows.shape[0], -1)


@dataclass(frozen=True)
class Step:
    """One call of the native program.

    Attributes:
        method: its name.
        args, options: what it is given; `Part`, `Flat`, `Images` and `Packed` stand for the native ones.
        name: of the module of the network.
        flops: floating-point operations, of convolutions and full layers only.
    """

    method: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    name: str = ""
    flops: int = 0

    @property
    def rooms(self) -> list[Room]:
        """The memory it touches."""
        given = [*self.args, *self.options.values()]
        return [one.room for one in given if isinstance(one, (Part, Flat, Images)) and one.room is not None]


@dataclass
class Plan:
    """The steps for one batch size and instruction set.

    Attributes:
        batch: images.
        steps: in order.
        naive: floats that the values of the network would take if each had memory of its own.
        floats: of the arena.
    """

    batch: int
    steps: list[Step]
    naive: int
    floats: int = field(init=False)

    def __post_init__(self) -> None:
        lives: dict[Room, tuple[int, int]] = {}
        for i, step in enumerate(self.steps):
            for room in step.rooms:
                lives[room] = (lives[room][0] if room in lives else i, i)
        offsets, self.floats = assign([Need(room.floats, *life) for room, life in lives.items()])
        for room, offset in zip(lives, offsets, strict=True):
            room.offset = offset

    def program(self, engine: Any, filters: MutableMapping[tuple[Any, ...], Any]) -> Any:
        """The native program that does the steps.

        Args:
            engine: `pycnn._cpu`, or something with its `Program`, `View`, `Plain` and `Filters`.
            filters: packed weights by key; those that are missing are packed and put there.
        """

        def native(value: Any) -> Any:
            if isinstance(value, (Part, Flat, Images)):
                return value.native(engine)
            if isinstance(value, Packed):
                if value.key not in filters:
                    filters[value.key] = value.pack(engine)
                return filters[value.key]
            return np.asarray(value) if isinstance(value, Weight) else value

        program = engine.Program(self.batch, self.floats)
        for step in self.steps:
            options = {name: native(value) for name, value in step.options.items()}
            getattr(program, step.method)(*map(native, step.args), **options)
        return program
