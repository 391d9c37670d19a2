"""A pickle machine that makes plain values and calls nothing but what it was given.

Python's own `pickle` executes what a file asks for, and its memo and its stack grow as the file says.  This one knows
the opcodes of protocols 2 to 5 that data need.  A name such as ``os.system`` is looked up in a vocabulary and nowhere
else; nothing is imported.  Each opcode pays for what it makes (`Source.spend`), so a small file cannot make much.

Reference: Python's ``pickletools`` documents every opcode.
"""

from __future__ import annotations

import pickletools
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from pycnn.weights.source import Source, brief

__all__ = ["Builder", "Stateful", "run"]

_OPCODES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
# Bytes: a place on the stack, which every opcode may take, and what some of them make.
_COST, _NUMBER, _STRING, _TUPLE, _CONTAINER, _MEMO = 16, 40, 64, 64, 160, 100
_MAX_INTEGER = 64  # bytes
_MAX_KEY = (1 << 61) - 1  # from here on integers share their hashes, and a dict of them could be made very slow


@dataclass(frozen=True)
class Builder:
    """A name that a pickle may call.

    Attributes:
        name: as the pickle writes it.
        build: what is called instead.
    """

    name: str
    build: Callable[..., Any]


class Stateful(ABC):
    """A value that takes its contents after it was made (opcode BUILD)."""

    @abstractmethod
    def set_state(self, state: Any) -> None:
        """Take the contents, or raise WeightsError."""


def run(
    source: Source,
    data: memoryview,
    at: int,
    vocabulary: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Run one pickle.

    Args:
        source: the file, for its allowance and its errors.
        data: the bytes.
        at: where in them the pickle begins.
        vocabulary: what a global name stands for: a `Builder`, or a value.
        persistent: what a persistent id stands for.

    Returns:
        the value, and the place after the pickle.

    Raises:
        WeightsError: a name outside the vocabulary, an opcode that data do not need, or bytes that are no pickle.
    """
    machine = _Machine(source, data, at, vocabulary, persistent)
    return machine.run(), machine.at


class _Mark:
    """Where the items of a container begin on the stack."""


_MARK = _Mark()


class _Machine:
    def __init__(
        self,
        source: Source,
        data: memoryview,
        at: int,
        vocabulary: Mapping[str, Any],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.at = at
        self._source, self._data = source, data
        self._vocabulary, self._persistent = vocabulary, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []  # places of the marks, so that finding one does not search the stack
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            code = self._byte()
            if code == _STOP:
                break
            self._source.spend(_COST)
            step = _STEPS.get(code)
            if step is None:
                name = _OPCODES.get(code)
                self._refuse(f"the pickle opcode {name}" if name else f"byte {code:#04x} where a pickle has an opcode")
            step(self)
        value = self._pop()
        if self._stack:
            self._refuse("a pickle that leaves more than one value")
        return value

    # -- reading -----------------------------------------------------------------------------------------------

    def _refuse(self, found: str, expected: str = "a pickle of tensors, numbers, strings, lists and dicts") -> NoReturn:
        raise self._source.error(found, expected)

    def _bytes(self, count: int) -> memoryview:
        part = self._data[self.at : self.at + count]
        if len(part) < count:
            self._refuse(f"a pickle cut off at byte {len(self._data):,}", f"{count:,} bytes from byte {self.at:,}")
        self.at += count
        return part

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _text(self, count: int, encoding: str = "utf-8") -> str:
        part = self._bytes(count)
        self._source.spend(_STRING + 4 * count)  # Python's widest characters
        try:
            return str(part, encoding, "surrogatepass" if encoding == "utf-8" else "strict")
        except ValueError:
            self._refuse(f"a string that is not {encoding}")

    def _line(self) -> str:
        part = bytes(self._data[self.at : self.at + 256])
        end = part.find(b"\n")
        if end < 0 and len(part) < 256:
            self._refuse(f"a pickle cut off at byte {len(self._data):,}", f"the end of a name at byte {self.at:,}")
        if end < 0:
            self._refuse("a name of more than 255 bytes")
        text = self._text(end)
        self.at += 1
        return text

    # -- the stack ---------------------------------------------------------------------------------------------

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _push_number(self, value: float) -> None:
        self._source.spend(_NUMBER)
        self._push(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            self._refuse("a pickle that takes a value where there is none")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            found = brief(self._stack[-1]) if self._stack else "nothing"
            self._refuse(f"a pickle that puts something into {found}", f"a {kind.__name__}")
        return self._stack[-1]

    def _items(self) -> list[Any]:
        """What lies above the last mark, taken off with it."""
        if not self._marks:
            self._refuse("a pickle that looks for a mark where there is none")
        place = self._marks.pop()
        items = self._stack[place + 1 :]
        del self._stack[place:]
        self._source.spend(_TUPLE + 8 * len(items))
        return items

    # -- opcodes -----------------------------------------------------------------------------------------------

    def _protocol(self) -> None:
        version = self._byte()
        if not 2 <= version <= 5:
            self._refuse(f"pickle protocol {version}", "2 to 5")

    def _frame(self) -> None:
        self._number("<Q")  # a hint for buffered reading; what is missing is found when it is read

    def _mark(self) -> None:
        self._marks.append(len(self._stack))
        self._push(_MARK)

    def _pop_one(self) -> None:
        if self._stack and self._stack[-1] is _MARK:
            self._marks.pop()
            self._stack.pop()
        else:
            self._pop()

    def _drop(self) -> None:
        self._items()

    def _again(self) -> None:
        value = self._pop()
        self._stack += [value, value]

    def _integer(self, count: int) -> None:
        if count > _MAX_INTEGER or count < 0:
            self._refuse(f"an integer of {count:,} bytes", f"at most {_MAX_INTEGER}")
        self._push_number(int.from_bytes(self._bytes(count), "little", signed=True))

    def _binary(self, count: int) -> None:
        self._source.spend(_STRING + count)
        self._push(bytes(self._bytes(count)))

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._source.spend(_TUPLE)
        self._push(tuple(reversed(items)))

    def _empty(self, value: list[Any] | dict[Any, Any]) -> None:
        self._source.spend(_CONTAINER)
        self._push(value)

    def _append(self) -> None:
        item = self._pop()
        self._source.spend(8)
        self._top(list).append(item)

    def _appends(self) -> None:
        items = self._items()
        self._top(list).extend(items)

    def _fill(self, pairs: list[Any]) -> None:
        into = self._top(dict)
        if len(pairs) % 2:
            self._refuse("a pickle with a key and no value")
        self._source.spend(_MEMO * (len(pairs) // 2))
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, (str, int)) or (isinstance(key, int) and abs(key) >= _MAX_KEY):
                self._refuse(f"a dict with the key {brief(key)}", "strings and whole numbers of 61 bits as keys")
            into[key] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._fill([key, value])

    def _dict(self) -> None:
        items = self._items()
        self._empty({})
        self._fill(items)

    def _list(self) -> None:
        items = self._items()
        self._empty(items)

    def _put(self, place: int) -> None:
        value = self._pop()
        self._push(value)
        self._source.spend(_MEMO)
        self._memo[place] = value

    def _get(self, place: int) -> None:
        if place not in self._memo:
            self._refuse(f"a reference to memo entry {place}, which was not made")
        self._push(self._memo[place])

    def _global(self, module: Any, name: Any) -> None:
        full = f"{module}.{name}"
        if full not in self._vocabulary:
            self._refuse(f"a reference to {full if len(full) < 600 else brief(full)}, which is not needed for tensors")
        self._push(self._vocabulary[full])

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self._refuse(f"a reference to {brief(module)}, {brief(name)}", "two strings")
        self._global(module, name)

    def _call(self) -> None:
        arguments, builder = self._pop(), self._pop()
        if not isinstance(builder, Builder) or not isinstance(arguments, tuple):
            self._refuse(f"a pickle that calls {brief(builder)} with {brief(arguments)}")
        try:
            value = builder.build(*arguments)
        except TypeError:  # the builders check all values themselves, so it is their number
            self._refuse(f"{builder.name} with {len(arguments)} arguments", "its arguments")
        self._push(value)

    def _build(self) -> None:
        state = self._pop()
        if self._stack and isinstance(self._stack[-1], dict):  # attributes of an OrderedDict: its layers' versions
            return
        self._top(Stateful).set_state(state)

    def _resolve(self) -> None:
        key = self._pop()
        if self._persistent is None:
            self._refuse("a persistent id")
        self._push(self._persistent(key))


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda machine: machine._push(value)


def _sized(form: str, action: Callable[[_Machine, int], None]) -> Callable[[_Machine], None]:
    """An opcode whose argument is a number of this form."""
    return lambda machine: action(machine, machine._number(form))


def _string(form: str, encoding: str = "utf-8") -> Callable[[_Machine], None]:
    return lambda machine: machine._push(machine._text(machine._number(form), encoding))


_STOP = ord(".")
_M = _Machine
_BY_CODE: dict[str, Callable[[_Machine], None]] = {
    **{"\x80": _M._protocol, "\x95": _M._frame, "(": _M._mark, "0": _M._pop_one, "2": _M._again},
    "1": _M._drop,
    **{"N": _constant(None), "\x88": _constant(True), "\x89": _constant(False)},
    **{code: _sized(form, _M._push_number) for code, form in {"J": "<i", "K": "<B", "M": "<H", "G": ">d"}.items()},
    **{"\x8a": _sized("<B", _M._integer), "\x8b": _sized("<i", _M._integer)},
    **{"X": _string("<I"), "\x8c": _string("<B"), "\x8d": _string("<Q")},
    # Python 2 wrote these for its byte strings, which were its strings.
    **{"T": _string("<I", "latin-1"), "U": _string("<B", "latin-1")},
    **{code: _sized(form, _M._binary) for code, form in {"B": "<I", "C": "<B", "\x8e": "<Q", "\x96": "<Q"}.items()},
    ")": _constant(()),
    "t": lambda machine: machine._push(tuple(machine._items())),
    **{code: partial(_M._tuple, count=count) for count, code in enumerate("\x85\x86\x87", 1)},
    "]": lambda machine: machine._empty([]),
    # Of a set, which holds no arrays, nothing is needed but that it can be passed over.
    **{"\x8f": lambda machine: machine._empty([]), "\x90": _M._appends, "\x91": _M._list},
    "}": lambda machine: machine._empty({}),
    **{"a": _M._append, "e": _M._appends, "l": _M._list, "d": _M._dict, "s": _M._set_item},
    "u": lambda machine: machine._fill(machine._items()),
    **{"q": _sized("<B", _M._put), "r": _sized("<I", _M._put), "h": _sized("<B", _M._get)},
    "j": _sized("<I", _M._get),
    "\x94": lambda machine: machine._put(len(machine._memo)),
    "c": lambda machine: machine._global(machine._line(), machine._line()),
    **{"\x93": _M._stack_global, "R": _M._call, "\x81": _M._call, "b": _M._build, "Q": _M._resolve},
}
_STEPS = {ord(code): step for code, step in _BY_CODE.items()}
