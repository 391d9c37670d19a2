"""cp.async: copies that land in shared memory when their thread waits for them, and not before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pycnn.testing.ptx.parse import Instruction, Selector

if TYPE_CHECKING:
    from pycnn.testing.ptx.machine import Machine


@dataclass(frozen=True, slots=True)
class _Copy:
    """One instruction's copies: for each lane its bytes, where they go, and the lane's group that they belong to."""

    lanes: np.ndarray
    offsets: np.ndarray
    values: np.ndarray
    groups: np.ndarray


class AsyncCopies:
    """What the lanes have started and not waited for.

    Args:
        lanes: how many there are.
    """

    def __init__(self, lanes: int) -> None:
        self._groups = np.zeros(lanes, np.int64)  # closed so far
        self._started: list[_Copy] = []

    def start(self, machine: Machine, lanes: np.ndarray, offsets: np.ndarray, values: np.ndarray) -> None:
        """Remember a copy of values[i] to shared memory at offsets[i]; until it lands there is NaN."""
        machine.shared[offsets[:, None] + np.arange(values.shape[1])] = 0xFF
        self._started.append(_Copy(lanes, offsets, values, self._groups[lanes]))

    def commit(self, lanes: np.ndarray) -> None:
        """Close a group."""
        self._groups[lanes] += 1

    def wait(self, machine: Machine, lanes: np.ndarray, pending: int) -> None:
        """Land every group of these lanes but the latest `pending`."""
        left = []
        waits = np.zeros(len(self._groups), bool)
        waits[lanes] = True
        for copy in self._started:
            lands = waits[copy.lanes] & (copy.groups + pending < self._groups[copy.lanes])
            places = copy.offsets[lands][:, None] + np.arange(copy.values.shape[1])
            machine.shared[places] = copy.values[lands]
            if not lands.all():
                stays = ~lands
                left.append(_Copy(copy.lanes[stays], copy.offsets[stays], copy.values[stays], copy.groups[stays]))
        self._started = left


def execute_copy(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """cp.async, cp.async.commit_group and cp.async.wait_group.  Raises NotImplementedError for other forms of cp."""
    match instruction.modifiers:
        case ("async", "commit_group"):
            machine.copies.commit(machine.active)
        case ("async", "wait_group"):
            machine.copies.wait(machine, machine.active, int(instruction.operands[0]))
        case ("async", "ca" | "cg", "shared", "global"):
            _start(machine, instruction, lanes)
        case _:
            raise NotImplementedError(f"the PTX interpreter does not know `{instruction.text}`")


def _start(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    active = machine.active
    size = int(instruction.operands[2])
    real = np.full(len(active), size)
    if len(instruction.operands) > 3:
        real[:] = machine.read(instruction.operands[3], "u32", lanes)
    sources = machine.address(instruction.operands[1], lanes)
    places = machine.address(instruction.operands[0], lanes)
    ((_, offsets, _),) = machine.memory(instruction, "shared", places, size, writing=True)
    if (real > size).any():
        raise machine.error(instruction, f"more than {size} real bytes", active[real > size])
    if (sources % size).any():
        raise machine.error(instruction, f"a copy of {size} bytes from an address that is no multiple of it")
    values = np.zeros((len(active), size), np.uint8)
    for word in range(0, size, 4):  # 4 bytes at a time, for a copy may stop in the middle
        chosen = real > word
        machine.active = active[chosen]
        for memory, starts, who in machine.memory(instruction, "global", sources[chosen] + word, 4, writing=False):
            rows = np.searchsorted(active, who)
            cells, cell = machine.cells(memory, starts, np.dtype(np.uint32))
            values[rows, word : word + 4] = cells[cell].view(np.uint8).reshape(-1, 4)
    machine.active = active
    machine.copies.start(machine, active, offsets, values)
