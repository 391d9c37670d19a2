"""The command's door: help, errors, interruption, and what is imported for it."""

import errno
import os
import subprocess
import sys
import types

import pytest

from pycnn import cli
from pycnn.cli import _progress, main
from pycnn.jit import MissingToolError


def python(*arguments, **settings):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60, **settings
    )


@pytest.fixture
def fake(monkeypatch):
    """A command `fake` whose `run` is the function that the test sets."""
    module = types.ModuleType("pycnn.cli.fake")
    module.add_parser = lambda subparsers: subparsers.add_parser("fake").add_argument("--number", type=int)
    monkeypatch.setitem(sys.modules, "pycnn.cli.fake", module)
    monkeypatch.setattr(cli, "commands", lambda: ["fake"])
    monkeypatch.delenv("PYCNN_TRACEBACK", raising=False)
    return module


def raising(error):
    def run(_):
        raise error

    return run


def test_every_command_has_help(capsys):
    assert "train" in cli.commands()
    for name in cli.commands():
        with pytest.raises(SystemExit) as left:
            main([name, "--help"])
        assert left.value.code == 0
        assert f"pycnn {name}" in capsys.readouterr().out


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert all(f"\n    {name}" in said for name in cli.commands())


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["train"], ["train", "lenet5", "--epochs", "many"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: pycnn" in capsys.readouterr().err


def test_version(capsys):
    from pycnn import __version__

    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"pycnn {__version__}\n"


def test_help_imports_nothing_heavy():
    heavy = "{'matplotlib', 'rich', 'sklearn', 'PIL', 'pooch', 'safetensors', 'onnx', 'cupy', 'torch'}"
    code = (
        "import sys\nfrom pycnn.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print(sorted({heavy} & sys.modules.keys()) + [m for m in sys.modules if m.startswith('pycnn.models')])"
    )
    assert python("-c", code).stdout.strip().splitlines()[-1] == "[]"


def test_module_runs():
    assert "COMMAND" in python("-m", "pycnn", "--help").stdout


@pytest.mark.parametrize("code", [None, 0, 3])
def test_return_codes(fake, code):
    fake.run = lambda args: code
    assert main(["fake"]) == (code or 0)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("x must be 3,\n   got 4"), "x must be 3, got 4"),
        (FileNotFoundError("no train-images here"), "no train-images here"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.png"), "a.png: No such file or directory"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (ModuleNotFoundError("Matplotlib is not installed"), "Matplotlib is not installed"),
        (MemoryError(), "MemoryError"),
        (MissingToolError("the simulator needs g++"), "the simulator needs g++"),
    ],
)
def test_bad_input_is_one_line_and_2(fake, capsys, error, line):
    fake.run = raising(error)
    assert main(["fake"]) == 2
    assert capsys.readouterr().err == f"pycnn fake: {line}\n"


def test_traceback_on_request(fake, monkeypatch):
    monkeypatch.setenv("PYCNN_TRACEBACK", "1")
    fake.run = raising(ValueError("here"))
    with pytest.raises(ValueError, match="here"):
        main(["fake"])


def test_a_bug_is_not_hidden(fake):
    fake.run = raising(AttributeError("a bug"))
    with pytest.raises(AttributeError, match="a bug"):
        main(["fake"])


def test_ctrl_c_is_130(fake, capsys):
    fake.run = raising(KeyboardInterrupt())
    assert main(["fake"]) == 130
    assert capsys.readouterr().err == "pycnn fake: interrupted\n"


def test_closed_pipe_is_no_error():
    code = (
        "import sys, types\nfrom pycnn import cli\nm = types.ModuleType('pycnn.cli.fake')\n"
        "m.add_parser = lambda s: s.add_parser('fake')\n"
        "m.run = lambda a: print('line\\n' * 200000)\n"
        "sys.modules['pycnn.cli.fake'] = m\ncli.commands = lambda: ['fake']\nsys.exit(cli.main(['fake']))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_no_bar_where_nobody_watches(capsys):
    with _progress.bar("working") as drawn:
        drawn.title("still working")
        drawn.update(1, 2, "half")
    with _progress.download_progress() as show:
        show("file", 1, None)
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setattr(_progress, "is_live", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with _progress.bar("working", transient=False) as drawn:
        drawn.title("nearly done")
        drawn.update(3, 4, "three of four")
    said = capsys.readouterr()
    assert "nearly done" in said.err
    assert "75 %" in said.err
    assert "three of four" in said.err
    assert said.out == ""
