"""The records of a zip archive, as far as PyTorch writes them: stored, not compressed, so views of the file.

Python's zipfile would do, but makes some twenty times as much memory as a directory of empty names is long.

Reference: PKWARE, "APPNOTE.TXT - .ZIP file format specification" 6.3, sections 4.3 to 4.5.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from pycnn.weights.source import Source, brief

__all__ = ["Record", "records"]

_LOCAL, _CENTRAL, _END, _END_64, _LOCATOR_64 = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ABSENT = 0xFFFFFFFF  # a size or an offset that stands in the zip64 field instead


@dataclass(frozen=True)
class Record:
    """One file of the archive.

    Attributes:
        source: the archive.
        name: of the file in it.
        local: where its local header is.
        size: in bytes.
        checksum: CRC-32; 0 where the writer did not compute it.
    """

    source: Source
    name: str
    local: int
    size: int
    checksum: int

    def place(self) -> int:
        """Where its bytes begin, once they are known to be there and to have their checksum."""
        data, what = self.source.data, f"record {brief(self.name)}"
        header = data[self.local : self.local + 30]
        if len(header) < 30 or header[:4] != _LOCAL:
            raise self.source.error(f"no local header of {what} at byte {self.local:,}", "one")
        name, extra = struct.unpack("<HH", header[26:30])
        at = self.local + 30 + name + extra
        if at + self.size > len(data):
            raise self.source.error(
                f"{what} of {self.size:,} bytes at byte {at:,}", f"a file of {len(data):,} to hold it"
            )
        if self.checksum and zlib.crc32(data[at : at + self.size]) != self.checksum:
            raise self.source.error(f"{what} with another checksum than the archive's", "undamaged bytes")
        return at

    def bytes(self) -> memoryview:
        """Its bytes."""
        at = self.place()
        return self.source.data[at : at + self.size]


def records(source: Source) -> dict[str, Record]:
    """The archive's directory.

    Raises:
        WeightsError: no whole archive, or a record that is compressed or encrypted.
    """
    count, at = _directory(source)
    data, found, total = source.data, {}, 0
    for _ in range(count):
        entry = data[at : at + 46]
        if len(entry) < 46 or entry[:4] != _CENTRAL:
            raise source.error(f"a zip archive with a damaged directory at byte {at:,}", f"{count:,} entries")
        source.spend(400)
        flags, method, checksum, stored, size = struct.unpack("<HH4xLLL", entry[8:28])
        name_length, extra_length, comment_length = struct.unpack("<HHH", entry[28:34])
        (local,) = struct.unpack("<L", entry[42:46])
        source.spend(4 * name_length)
        name = str(data[at + 46 : at + 46 + name_length], "utf-8", "replace")
        extra = data[at + 46 + name_length : at + 46 + name_length + extra_length]
        size, stored, local = _wide(source, bytes(extra), size, stored, local)
        if method != 0 or flags & 1 or size != stored:
            how = "encrypted" if flags & 1 else f"compressed (method {method})"
            raise source.error(f"record {brief(name)} {how}", "records that are stored, as PyTorch writes them")
        total += size
        if total > len(data):  # thousands that lie on each other would take long to check
            raise source.error(f"records of {total:,} bytes", f"at most the archive's {len(data):,}")
        if name in found:
            raise source.error(f"two records {brief(name)}", "one")
        found[name] = Record(source, name, local, size, checksum)
        at += 46 + name_length + extra_length + comment_length
    return found


def _directory(source: Source) -> tuple[int, int]:
    """How many entries the directory has, and where it begins."""
    data = source.data
    tail = bytes(data[max(0, len(data) - 65557) :])  # the longest comment and the end record
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise source.error("the beginning of a zip archive without its end", "a whole archive; it may be truncated")
    count, _, begin = struct.unpack("<HLL", tail[at + 10 : at + 20])
    locator = tail[at - 20 : at] if at >= 20 else b""
    if locator[:4] == _LOCATOR_64:
        (place,) = struct.unpack("<Q", locator[8:16])
        end = bytes(data[place : place + 56])
        if len(end) < 56 or end[:4] != _END_64:
            raise source.error("a zip64 archive without its end record", "a whole archive")
        count, _, begin = struct.unpack("<QQQ", end[32:56])
    return count, begin


def _wide(source: Source, extra: bytes, *values: int) -> list[int]:
    """The values, those that do not fit 32 bits from the zip64 field of the extra ones."""
    if _ABSENT not in values:
        return list(values)
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[at : at + 4])
        if kind == 1 and at + 4 + length <= len(extra):
            numbers = iter(struct.unpack(f"<{length // 8}Q", extra[at + 4 : at + 4 + length // 8 * 8]))
            return [next(numbers, 0) if value == _ABSENT else value for value in values]
        at += 4 + length
    raise source.error("a zip64 record without its sizes", "them in its extra field")
