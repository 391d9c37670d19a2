"""The arena: nothing that lives at the same time shares memory, and little is wasted."""

from __future__ import annotations

import numpy as np
import pytest

from pycnn.compiler.arena import ALIGNMENT, Need, assign


def rounded(floats: int) -> int:
    return -(-floats // ALIGNMENT) * ALIGNMENT


def check(needs: list[Need]) -> tuple[list[int], int]:
    offsets, total = assign(needs)
    assert all(offset % ALIGNMENT == 0 and offset >= 0 for offset in offsets)
    for i, (a, at) in enumerate(zip(needs, offsets, strict=True)):
        assert at + a.floats <= total
        for b, place in zip(needs[:i], offsets[:i], strict=True):
            together = a.first <= b.last and b.first <= a.last
            apart = at + rounded(a.floats) <= place or place + rounded(b.floats) <= at
            assert apart or not together, f"{a} at {at} and {b} at {place}"
    steps = range(max((need.last for need in needs), default=-1) + 1)
    alive = [sum(rounded(need.floats) for need in needs if need.first <= step <= need.last) for step in steps]
    assert total >= max(alive, default=0)
    return offsets, total


@pytest.mark.parametrize("seed", range(50))
def test_what_lives_together_lies_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    needs = []
    for _ in range(rng.integers(1, 40)):
        first = int(rng.integers(0, 30))
        needs.append(Need(int(rng.integers(0, 5000)), first, first + int(rng.integers(0, 6))))
    check(needs)


def test_a_chain_takes_two_and_a_stack_one_on_the_other() -> None:
    _, total = check([Need(1000, i, i + 1) for i in range(10)])
    assert total == 2 * rounded(1000)
    _, total = check([Need(64, i, i) for i in range(10)])
    assert total == 64
    _, total = check([Need(64, 0, 9) for _ in range(10)])
    assert total == 640
    assert check([]) == ([], 0)


def test_a_gap_is_filled_where_it_is_large_enough() -> None:
    offsets, total = check([Need(320, 0, 9), Need(160, 0, 3), Need(160, 4, 9), Need(64, 4, 9), Need(96, 0, 3)])
    assert total == 320 + 160 + 96
    assert offsets[2] == offsets[1]
