"""What the cuts of the CPU engine's kernels depend on: vectors, register tiles, threads and caches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pycnn.shape import Conv2dShape

__all__ = ["NEAR", "SHARED", "TASKS", "Engine", "Work", "engine_of", "packed_filters", "pointwise", "up"]

Work = dict[str, float]

_SHORTEST = 8  # vector multiply-adds a step of a tile takes at least: two a cycle, and four cycles until a sum is there
TASKS = 16  # into how many a loop is cut at least, where it can be
NEAR = 1 << 20  # bytes of a core's own cache
SHARED = 16 << 20  # bytes of the cache that the cores share


def up(whole: int, part: int) -> int:
    """How many parts cover the whole."""
    return -(-whole // part)


@dataclass(frozen=True, slots=True)
class Engine:
    """What the cuts depend on besides the problem.

    Attributes:
        lanes: values of a vector.
        rows, vectors: of a register tile; `point_rows`: of the one that multiplies Winograd points, two vectors wide;
            `packed_rows`: of the one of the packed layout, two vectors wide.
        depth: steps of a packed panel.
        size: bytes of a value.
        threads: how many work.
    """

    lanes: int
    rows: int
    vectors: int
    point_rows: int
    depth: int
    size: int
    threads: int
    packed_rows: int

    @property
    def panel(self) -> int:
        """Values across a register tile."""
        return self.vectors * self.lanes

    def uneven(self, tasks: int) -> float:
        """How much longer so many equal tasks take than if they could be divided."""
        return up(tasks, self.threads) * self.threads / tasks

    def steps(self, rows: int, width: int) -> int:
        """Multiply-adds of a step of all the tiles that cover `rows` x `width` vectors."""
        strips = up(width, self.vectors)
        narrow, wider = divmod(width, strips)
        whole, rest = divmod(rows, self.rows)
        total = 0
        for height, count in ((self.rows, whole), (rest, 1)):
            if height and count:
                total += count * wider * max(height * (narrow + 1), _SHORTEST)
                total += count * (strips - wider) * max(height * narrow, _SHORTEST)
        return total * self.lanes

    def point_steps(self, rows: int) -> int:
        """The same for the tiles of the Winograd points, two vectors wide and of nearly equal height."""
        return self.lanes * _even(rows, self.point_rows, 2)

    def packed_steps(self, rows: int, width: int) -> int:
        """The same for tiles of the packed layout that cover `rows` x `width` vectors."""
        pairs, odd = divmod(width, 2)
        return self.lanes * sum(
            count * _even(rows, self.packed_rows, vectors) for count, vectors in ((pairs, 2), (odd, 1)) if count
        )


def _even(rows: int, most: int, vectors: int) -> int:
    """Vector multiply-adds of a step of tiles `vectors` wide, of nearly equal height and at most `most` rows."""
    blocks = up(rows, most)
    low, higher = divmod(rows, blocks)
    return higher * max(vectors * (low + 1), _SHORTEST) + (blocks - higher) * max(vectors * low, _SHORTEST)


# By instruction set: bytes of a vector, `Engine.rows`, `vectors`, `point_rows`, `depth`, `packed_rows`.
_TILES = {"avx512": (64, 8, 3, 12, 192, 14), "avx2": (32, 6, 2, 6, 256, 6), "baseline": (16, 4, 2, 4, 256, 5)}


@lru_cache(maxsize=64)
def engine_of(isa: str, size: int, threads: int) -> Engine:
    vector, rows, vectors, point_rows, depth, packed_rows = _TILES[isa]
    return Engine(vector // size, rows, vectors, point_rows, depth, size, threads, packed_rows)


def pointwise(s: Conv2dShape) -> bool:
    """Whether a pass is a matrix product on the images as they lie."""
    return (
        s.R * s.S == 1
        and s.padding[0] == s.padding[2] == 0
        and (s.P, s.Q) == (s.H, s.W)
        and (s.stride[0] == 1 or s.P == 1)
        and (s.stride[1] == 1 or s.Q == 1)
    )


def packed_filters(e: Engine, s: Conv2dShape, count: int) -> int:
    """`count` values for each filter and channel, in whole vectors."""
    return count * up(s.C, e.lanes) * up(s.K, e.lanes) * e.lanes**2
