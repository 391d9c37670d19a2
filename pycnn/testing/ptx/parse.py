"""PTX text to a list of instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

Selector = np.ndarray | slice  # which threads: their indices, or slice(None) for all of them

# What the last word of an instruction means in NumPy.
TYPES: dict[str, np.dtype] = {
    **{f"b{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    "f32": np.dtype("f4"),
    "f64": np.dtype("f8"),
    "pred": np.dtype("?"),
}
_BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}

_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)(.*?)\n\{(.*)\n\}", re.DOTALL)
_PARAM = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.[a-z](\d+)\s+(?:\.ptr[^,\n]*?\s)?([\w$]+)(?:\[(\d+)\])?")
_SHARED = re.compile(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]")
_INSTRUCTION = re.compile(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.]*)\s*(.*)", re.DOTALL)
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+")
_LABEL = re.compile(r"([$\w]+):\s*")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        guard: the predicate register it depends on, or "".
        negated: whether it runs where the predicate is false.
        name: its first word, such as "fma".
        modifiers: the words after it, such as ("rn", "f32").
        operands: as written: registers, constants, ``[address+offset]`` or ``{a, b}``.
        text: the line, for messages.
    """

    guard: str
    negated: bool
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]
    text: str

    @property
    def type(self) -> str:
        """The last word, which says what the operands are."""
        return self.modifiers[-1]


@dataclass(frozen=True)
class Code:
    """One kernel.

    Attributes:
        name: its (mangled) name.
        parameters: name, offset and size in bytes of each parameter.
        shared: offset of each shared symbol.
        shared_bytes: all static shared memory.
        max_threads: what ``.maxntid`` allows a block, or 0 if it says nothing.
        instructions: the body.
        labels: where each label points in it.
    """

    name: str
    parameters: tuple[tuple[str, int, int], ...]
    shared: dict[str, int]
    shared_bytes: int
    max_threads: int
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]


def parse(text: str) -> Code:
    """The one kernel of a PTX module.  Raises ValueError if there is none."""
    text = re.sub(r"//[^\n]*", "", text)
    match = _ENTRY.search(text)
    if match is None:
        raise ValueError("no .entry in this PTX")
    name, parameters, directives, body = match.groups()
    shared, shared_bytes = _shared(text)
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for statement in re.split(r"[;\n](?![^{]*\})", body):
        statement = statement.strip()
        while label := _LABEL.match(statement):
            labels[label[1]] = len(instructions)
            statement = statement[label.end() :]
        if not statement or statement.startswith((".", "{", "}")):
            continue
        instructions.append(_instruction(statement))
    limit = re.search(r"\.maxntid\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?", directives)
    threads = 1
    for size in limit.groups() if limit else ("0",):
        threads *= int(size or 1)
    return Code(name, _parameters(parameters), shared, shared_bytes, threads, tuple(instructions), labels)


def vector(operand: str) -> list[str]:
    """The registers that an operand names, of which ``{a, b}`` has several."""
    return [part.strip() for part in operand.strip("{}").split(",")]


def _instruction(statement: str) -> Instruction:
    match = _INSTRUCTION.fullmatch(statement)
    if match is None:
        raise ValueError(f"not a PTX instruction: {statement!r}")
    negated, guard, words, operands = match.groups()
    name, *modifiers = words.split(".")
    return Instruction(
        guard or "",
        bool(negated),
        name,
        tuple(modifiers),
        tuple(_OPERAND.findall(operands)),
        " ".join(statement.split()),
    )


def _parameters(text: str) -> tuple[tuple[str, int, int], ...]:
    """Each parameter at the next multiple of its alignment: PTX's own rule."""
    found = []
    end = 0
    for align, bits, name, count in _PARAM.findall(text):
        size = _BYTES[bits] * int(count or 1)
        alignment = int(align or _BYTES[bits])
        begin = -(-end // alignment) * alignment
        found.append((name, begin, size))
        end = begin + size
    return tuple(found)


def _shared(text: str) -> tuple[dict[str, int], int]:
    places = {}
    end = 0
    # A dynamic array, [] in PTX, begins where the static ones end.
    for align, name, size in sorted(_SHARED.findall(text), key=lambda found: found[2] == ""):
        begin = -(-end // int(align)) * int(align)
        places[name] = begin
        end = begin + int(size or 0)
    return places, end
