"""Files that are files, those that are written whole or not at all, and the folder for those that only save time."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["cache_folder", "printable", "replacing", "size_of"]


def cache_folder() -> Path:
    """Where what can be made again is kept: $PYCNN_CACHE_DIR, else pycnn under $XDG_CACHE_HOME, else ~/.cache/pycnn."""
    chosen = os.environ.get("PYCNN_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pycnn"


def printable(name: str | os.PathLike[str]) -> str:
    r"""A file's name as text; bytes that are no UTF-8, which neither a terminal nor a picture takes, are written out.

    >>> printable(os.fsdecode(b"caf\xe9.png"))
    'caf\\xe9.png'
    """
    return os.fsencode(name).decode(errors="backslashreplace")


def size_of(path: str | os.PathLike[str]) -> int:
    """The size in bytes of a file that is to be read, which is no pipe or device: these may never end, or never begin.

    Raises:
        OSError: no such file, a folder (IsADirectoryError), or something else that is no file.

    >>> size_of(os.devnull)
    Traceback (most recent call last):
    OSError: [Errno 22] a pipe, a device or a socket, where a file is expected: '/dev/null'
    """
    state = os.stat(path)
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "a pipe, a device or a socket, where a file is expected", os.fspath(path))
    return state.st_size


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """A temporary name beside `path`; what is written there takes `path`'s place when the ``with`` block ends well.

    Whoever reads `path`, at any moment and in any process, finds the old file or the new one, whole.  If the block or
    the renaming raises, the old file stays and the temporary one is removed.

    Args:
        path: the file; its folder must exist.
        durable: have the disk hold the file before it gets its name, and the name before this returns.  The temporary
            name is then always the same, so that runs killed one after another leave one file behind and not a heap;
            two writers of one `path` need the other kind, which has a name for each process and thread.

    Raises:
        FileNotFoundError: no such folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "notes.txt") as temporary:
    ...     _ = temporary.write_text("all of it")
    >>> [(file.name, file.read_text()) for file in folder.iterdir()]
    [('notes.txt', 'all of it')]
    """
    final = Path(path)
    if not final.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(final.parent))
    writer = "" if durable else f".{os.getpid()}.{threading.get_ident()}"
    temporary = final.with_name(f".{final.name}{writer}.part")
    try:
        yield temporary
        if durable:
            _flush(temporary)
        os.replace(temporary, final)
        if durable:
            _flush(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the system write a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
