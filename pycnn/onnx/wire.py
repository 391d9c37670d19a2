"""What a model's bytes ask protobuf for, counted before it is asked: a message of no bytes takes hundreds in memory.

The count is of what the messages take and what is made of them, rounded up.  A file that needs more than three times
its own size and 48 MiB beside is refused, so with its bytes a reader stays below four times the file and 64 MiB.  Files
of weights that it names count as its own: the graph of a large network alone takes twenty times its bytes.

Reference: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pycnn.onnx.errors import ModelError

__all__ = ["expect_modest", "locations"]

_TIMES, _BESIDE = 3, 48 << 20
_FIELD, _TEXT, _MESSAGE = 32, 100, 160  # bytes for each, whatever it holds
_MESSAGES = {"NodeProto": 1500, "AttributeProto": 600, "TensorProto": 900}  # those of which Python objects are made
# For each number of a repeated field: in the message, and in an array or, by way of Python's numbers, in a tuple.
_NUMBERS = {"int32_data": 8, "float_data": 8, "int64_data": 16, "uint64_data": 16, "double_data": 16}
_NUMBER = 48

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # how a field is written
_LOCATION, _MOST_LOCATIONS = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])"), 1 << 14


class _Field(NamedTuple):
    """What is known of a field: the message that it holds, or the bytes that each of its numbers takes."""

    message: Any
    number: int
    width: int  # bytes of a packed number; 0 for one that ends with a byte below 128


def expect_modest(content: bytes, descriptor: Any, beside: Callable[[], int] = lambda: 0) -> None:
    """Raise ModelError for bytes that are no message, or that need far more memory than they are many.

    Args:
        content: the file.
        descriptor: of the message that it should be, as protobuf has it.
        beside: how many bytes the files that belong to it have; called at most once, if its own are too few.
    """
    size, asked = len(content), False
    left = _BESIDE + _TIMES * size - _MESSAGE
    waiting = [(0, size, descriptor)]
    while waiting:
        at, end, kind = waiting.pop()
        fields = _fields(kind)
        while at < end:
            tag, at = _varint(content, at)
            field, way, length = fields.get(tag >> 3), tag & 7, 0
            if way == _VARINT:
                _, at = _varint(content, at)
            elif way == _BYTES:
                length, at = _varint(content, at)
            elif way in (_EIGHT, _FOUR):
                length = 8 if way == _EIGHT else 4
            else:
                raise ModelError(f"not an ONNX model, or cut off: a field of unknown form {way}")
            if at + length > end:
                raise ModelError(f"not an ONNX model, or cut off: {at + length - end:,} bytes are missing")
            left -= _FIELD
            if field is not None and field.number:
                left -= field.number * (_count(content, at, length, field.width) if way == _BYTES else 1)
            elif field is not None and field.message is not None and way == _BYTES:
                left -= _MESSAGES.get(field.message.name, _MESSAGE)
                if length:
                    waiting.append((at, at + length, field.message))
            else:
                left -= 2 * length + _TEXT
            at += length
            if left < 0 and not asked:
                more, asked = beside(), True
                size, left = size + more, left + _TIMES * more
            if left < 0:
                raise ModelError(
                    f"contents that need far more memory than the file is long: more than {_TIMES} times its "
                    f"{size:,} bytes, the files with its weights among them, and {_BESIDE >> 20} MiB beside"
                )


def locations(content: bytes) -> set[str]:
    """The files with weights that a model names, as protobuf writes them: at most 16,384, of names below 128 bytes."""
    found: set[str] = set()
    for match in _LOCATION.finditer(content):
        if len(found) == _MOST_LOCATIONS:
            break
        found.add(os.fsdecode(content[match.end() : match.end() + match[1][0]]))
    return found


@functools.cache
def _fields(kind: Any) -> dict[int, _Field]:
    """The fields of a message by their numbers."""
    found = {}
    for field in kind.fields:
        width = {field.TYPE_FLOAT: 4, field.TYPE_DOUBLE: 8}.get(field.type, 0)
        numbers = field.message_type is None and field.type not in (field.TYPE_STRING, field.TYPE_BYTES)
        found[field.number] = _Field(field.message_type, _NUMBERS.get(field.name, _NUMBER) if numbers else 0, width)
    return found


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    value = 0
    for shift, byte in enumerate(content[at : at + 10]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, at + shift + 1
    raise ModelError("not an ONNX model, or cut off: a number without an end")


def _count(content: bytes, at: int, length: int, width: int) -> int:
    """How many numbers are packed in a stretch."""
    return length // width if width else int(np.count_nonzero(np.frombuffer(content, np.int8, length, at) >= 0))
