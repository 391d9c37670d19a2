"""What can go wrong on the way from source to machine code."""

from __future__ import annotations


class CompileError(RuntimeError):
    """A compiler refused a source.  The message ends with its log."""

    def __init__(self, what: str, log: str) -> None:
        super().__init__(f"{what} does not compile:\n{log.strip()}")
        self.log = log


class MissingToolError(RuntimeError):
    """A compiler or driver is not installed.  The message says what to install."""
