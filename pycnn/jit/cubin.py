"""What a cubin says about its kernel: name, parameters, registers, shared memory, spills.

A cubin is an ELF file.  The sections read here are ``.nv.info`` and ``.nv.info.<kernel>`` (lists of attributes, each a
format byte, a code byte and a 16-bit value or length), ``.text.<kernel>`` and ``.nv.shared.<kernel>``.  NVIDIA does not
document the attributes; the codes are those that ``cuobjdump -elf`` prints as EIATTR_*.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_PARAMETER = 0x17  # EIATTR_KPARAM_INFO: index, ordinal, offset, size
_MAX_THREADS = 0x05  # EIATTR_MAX_THREADS: block size that __launch_bounds__ allows
_REGISTERS = 0x2F  # EIATTR_REGCOUNT: symbol, registers
_FRAME = 0x11  # EIATTR_FRAME_SIZE: symbol, bytes of stack
_SIZED = 0x04  # the format in which a 16-bit length and then the value follow

_SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size


@dataclass(frozen=True)
class Cubin:
    """One compiled kernel.

    Attributes:
        entry: its (mangled) name, to ask the driver for.
        parameters: offset and size in bytes of each parameter, in order.
        max_threads: most threads a block may have.
        registers: of one thread.
        shared: bytes of static shared memory.
        stack: bytes of stack of one thread; above 0, registers are spilled.
    """

    entry: str
    parameters: tuple[tuple[int, int], ...]
    max_threads: int
    registers: int
    shared: int
    stack: int

    @staticmethod
    def read(data: bytes) -> Cubin:
        """The description of the one kernel in `data`.  Raises ValueError if it is no cubin with one kernel."""
        sections = _sections(data)
        entries = [name.removeprefix(".text.") for name in sections if name.startswith(".text.")]
        if len(entries) != 1:
            raise ValueError(f"expected a cubin with one kernel, found {len(entries)}")
        entry = entries[0]
        parameters = {}
        max_threads = 0
        for code, value in _attributes(sections[f".nv.info.{entry}"]):
            if code == _PARAMETER:
                _, ordinal, offset, packed = struct.unpack("<IHHI", value)
                parameters[ordinal] = (offset, packed >> 18)
            elif code == _MAX_THREADS:
                x, y, z = struct.unpack("<III", value)
                max_threads = x * y * z
        sizes = {code: struct.unpack("<II", value)[1] for code, value in _attributes(sections[".nv.info"])}
        shared = sections.get(f".nv.shared.{entry}", b"")
        return Cubin(
            entry=entry,
            parameters=tuple(parameters[i] for i in sorted(parameters)),
            max_threads=max_threads,
            registers=sizes[_REGISTERS],
            shared=len(shared),
            stack=sizes[_FRAME],
        )


def whole(data: bytes) -> bytes:
    """A cubin as CuPy's binding returns it, completed.

    The binding takes it for a string and drops what it believes to be the closing zero: the last byte of the program
    headers, which is the high byte of an alignment and therefore zero.  The driver does not mind; nvdisasm does.
    """
    end = _end(data)
    if end - len(data) not in (0, 1):
        raise ValueError(f"a cubin of {end} bytes came back as {len(data)}")
    return data + bytes(end - len(data))


def spilled(log: str) -> int:
    """Bytes of registers that ptxas reports as spilled, in the log beside a cubin."""
    return sum(int(count) for count in re.findall(r"(\d+) bytes spill stores", log))


def _end(data: bytes) -> int:
    if data[:4] != b"\x7fELF":
        raise ValueError("not an ELF file")
    programs, sections = struct.unpack_from("<QQ", data, 0x20)
    program_size, program_count, section_size, section_count = struct.unpack_from("<HHHH", data, 0x36)
    return max(programs + program_size * program_count, sections + section_size * section_count)


def _sections(data: bytes) -> dict[str, bytes]:
    """The sections by name; one without bytes in the file (shared memory) is given as that many zeros."""
    _end(data)
    (start,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", data, 0x3A)
    headers = [_SECTION.unpack_from(data, start + i * size) for i in range(count)]
    names = headers[names_index][4]
    found = {}
    for name_offset, kind, _, _, offset, length, *_ in headers:
        begin = names + name_offset
        name = data[begin : data.index(b"\0", begin)].decode()
        empty = kind == 8  # SHT_NOBITS
        found[name] = bytes(length) if empty else data[offset : offset + length]
    return found


def _attributes(section: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(section):
        form, code, value = struct.unpack_from("<BBH", section, position)
        position += 4
        length = value if form == _SIZED else 0
        yield code, section[position : position + length] if length else struct.pack("<H", value)
        position += length
