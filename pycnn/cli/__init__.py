"""The ``pycnn`` command.

Every module of this package without a leading underscore is a command: it has ``add_parser(subparsers)``, which
declares the arguments, and ``run(args) -> int | None``, which imports what it needs only when it is called.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

__all__ = ["main"]

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130


def commands() -> list[str]:
    """The commands there are, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line, or, quicker to build, with the one command `only`."""
    top = argparse.ArgumentParser(
        prog="pycnn",
        description="Convolution networks on CPU and CUDA: train, measure, describe and compare them.",
        epilog="PYCNN_TRACEBACK=1 shows where an error came from.",
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in commands() if only is None else [only]:
        module = importlib.import_module(f"{__name__}.{name}")
        module.add_parser(subparsers)
    return top


class _Version(argparse.Action):
    """Prints the version when asked, so that nothing has to be imported to parse anything else."""

    def __call__(self, top: argparse.ArgumentParser, *_: object) -> None:
        from pycnn import __version__

        print(f"pycnn {__version__}")
        top.exit(OK)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments without the program's name; the process's own by default.

    Returns:
        0, or what the command itself says (1: `bench` found a wrong result); 2 after one line on stderr about what was
        wrong with the input (a bad value, a file that is missing or damaged, a full disk, a package or a compiler that
        is not installed); 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = arguments[0] if arguments and arguments[0] in commands() else None
    args = parser(first).parse_args(arguments)
    run = importlib.import_module(f"{__name__}.{args.command}").run
    from pycnn.jit.errors import MissingToolError

    try:
        code = run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        print(f"pycnn {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ImportError, MemoryError, MissingToolError) as error:
        if os.environ.get("PYCNN_TRACEBACK"):
            raise
        print(f"pycnn {args.command}: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    return OK if code is None else code


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
