"""Branches, loops and sequences, as far as the shapes of a network need them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.onnx.execute import Body
from pycnn.onnx.graph import ValueInfo, dtype_of
from pycnn.onnx.operators._common import Value, axis_of, host
from pycnn.onnx.operators.shape import concat
from pycnn.onnx.registry import operator


@operator("If", host=(0,))
def branch(condition: np.ndarray, *, then_branch: Body, else_branch: Body) -> tuple[Any, ...]:
    return (then_branch if condition.item() else else_branch)()


@operator("Loop", host=(0, 1))
def loop(
    most: np.ndarray | None, condition: np.ndarray | None, *carried: Any, body: Body, outputs: int
) -> tuple[Any, ...]:
    """The values that each round hands to the next, and, stacked, what each round made besides."""
    count = None if most is None else int(most.item())
    going = condition is None or bool(condition.item())
    scans: list[list[Any]] = [[] for _ in range(outputs - len(carried))]
    step = 0
    while going and (count is None or step < count):
        again, *rest = body(np.array(step, np.int64), np.array(going), *carried)
        carried, made = tuple(rest[: len(carried)]), rest[len(carried) :]
        for scan, one in zip(scans, made, strict=True):
            scan.append(one)
        going, step = bool(host(again).item()), step + 1
    made_as = body.outputs[1 + len(carried) :]
    return (*carried, *map(_stacked, scans, made_as))


def _stacked(values: list[Any], one: ValueInfo) -> Value:
    """What the rounds made, one upon the other; of no rounds, nothing of the dtype and the shape that the body says."""
    if not values:
        sizes = (size if isinstance(size, int) else 0 for size in one.shape or ())
        return np.zeros((0, *sizes), one.dtype or np.float32)
    return concat(*[value.reshape((1, *value.shape)) for value in values], axis=0)


@operator("SequenceEmpty")
def sequence_empty(*, dtype: int = 1) -> list[Any]:
    dtype_of(dtype)
    return []


@operator("SequenceConstruct")
def sequence_construct(*values: Any) -> list[Any]:
    return list(values)


@operator("SequenceInsert", host=(2,))
def sequence_insert(sequence: list[Any], value: Any, position: np.ndarray | None = None) -> list[Any]:
    place = len(sequence) if position is None else int(position.item())
    if not -len(sequence) <= place <= len(sequence):
        raise IndexError(f"position {place} of a sequence of {len(sequence)}")
    place += len(sequence) if place < 0 else 0
    return [*sequence[:place], value, *sequence[place:]]


@operator("SequenceErase", host=(1,))
def sequence_erase(sequence: list[Any], position: np.ndarray | None = None) -> list[Any]:
    place = _place(sequence, position)
    return [*sequence[:place], *sequence[place + 1 :]]


@operator("SequenceAt", host=(1,))
def sequence_at(sequence: list[Any], position: np.ndarray) -> Any:
    return sequence[_place(sequence, position)]


def _place(sequence: list[Any], position: np.ndarray | None) -> int:
    place = -1 if position is None else int(position.item())
    if not -len(sequence) <= place < len(sequence):
        raise IndexError(f"position {place} of a sequence of {len(sequence)}")
    return place % len(sequence)


@operator("SequenceLength")
def sequence_length(sequence: list[Any]) -> np.ndarray:
    return np.array(len(sequence), np.int64)


@operator("SplitToSequence", host=(1,))
def split_to_sequence(x: Value, sizes: np.ndarray | None = None, *, axis: int = 0, keepdims: int = 1) -> list[Any]:
    axis = axis_of(axis, x.ndim)
    whole = x.shape[axis]
    if sizes is None:
        each = [1] * whole
    elif sizes.ndim == 0:
        step = int(sizes)
        each = [min(step, whole - i) for i in range(0, whole, step)]
    else:
        each = [int(size) for size in sizes]
    if sum(each) != whole:
        raise ValueError(f"dimension {axis} has size {whole}, which does not split into {each}")
    lead, parts, start = (slice(None),) * axis, [], 0
    for size in each:
        part = x[(*lead, slice(start, start + size))]
        if sizes is None and not keepdims:
            part = part.reshape((*part.shape[:axis], *part.shape[axis + 1 :]))
        parts.append(part)
        start += size
    return parts


@operator("ConcatFromSequence")
def concat_from_sequence(sequence: list[Any], *, axis: int, new_axis: int = 0) -> Value:
    if not sequence:
        raise ValueError("an empty sequence has nothing to join")
    if new_axis:
        place = axis_of(axis, sequence[0].ndim + 1)
        sequence = [one.reshape((*one.shape[:place], 1, *one.shape[place:])) for one in sequence]
        axis = place
    return concat(*sequence, axis=axis)


@operator("SequenceMap")
def sequence_map(sequence: list[Any], *more: Any, body: Body) -> tuple[list[Any], ...]:
    rows = [
        body(one, *(each[i] if isinstance(each, list) else each for each in more)) for i, one in enumerate(sequence)
    ]
    return tuple(map(list, zip(*rows, strict=True)))


@operator("Optional")
def optional(value: Any = None) -> Any:
    return value


@operator("OptionalHasElement")
def optional_has_element(value: Any = None) -> np.ndarray:
    return np.array(value is not None)


@operator("OptionalGetElement")
def optional_get_element(value: Any) -> Any:
    if value is None:
        raise ValueError("it holds no element")
    return value
