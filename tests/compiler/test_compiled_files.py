"""Compiled networks in files: they come back whole, without the Python model, and a bad file is refused in words."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import GRAPHS, images, make

import pycnn
from pycnn import _archive
from pycnn.compiler import CompiledFileError
from pycnn.compiler.files import FORMAT

pytest.importorskip("safetensors")


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a is b is None or bool(np.array_equal(a, b))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_network_comes_back(name: str, tmp_path: Path) -> None:
    model, inputs = make(name, 2)
    compiled = pycnn.compile(model, tuple(inputs))
    compiled.save(tmp_path / "net")
    loaded = pycnn.load_compiled(tmp_path / "net")
    assert str(loaded.graph) == str(compiled.graph)
    assert same(loaded(*inputs), compiled(*inputs))
    assert os.listdir(tmp_path) == ["net"]


def test_the_accuracy_and_another_instruction_set(tmp_path: Path) -> None:
    model, x = pycnn.nn.Conv2d(64, 64, 3, padding=1), images(1, 64, 28, 28)
    compiled = pycnn.compile(model, x, accuracy="strict")
    before = pycnn.get_isa()
    try:
        pycnn.set_isa("baseline")
        compiled.save(tmp_path / "net")
    finally:
        pycnn.set_isa(before)
    loaded = pycnn.load_compiled(tmp_path / "net")
    assert loaded.accuracy == "strict"
    assert loaded.summary() == compiled.summary()


def test_the_python_model_is_not_needed(tmp_path: Path) -> None:
    x = images(1, 3, 32, 32)
    compiled = pycnn.compile(pycnn.models.resnet20().eval(), x)
    compiled.save(tmp_path / "net")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", compiled(x))
    code = """
import sys, numpy, pycnn
net = pycnn.load_compiled("net")
assert numpy.array_equal(net(numpy.load("x.npy")), numpy.load("y.npy"))
assert "pycnn.models" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": _root()})


def _root() -> str:
    return str(Path(pycnn.__file__).parents[1])


def test_damage_anywhere_is_one_clear_exception(tmp_path: Path) -> None:
    model, inputs = make("intermediate output")
    good, bad = tmp_path / "good", tmp_path / "bad"
    pycnn.compile(model, inputs[0]).save(good)
    content, rng = good.read_bytes(), random.Random(0)
    sizes = [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]
    damaged = [content[:size] for size in sizes] + [content + b"\0", b"PK\3\4" + content, os.urandom(1000)]
    for _ in range(200):  # one flipped bit, anywhere
        place = rng.randrange(len(content))
        damaged.append(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
    for data in damaged:
        bad.write_bytes(data)
        with pytest.raises(CompiledFileError, match=re.escape(str(bad))):
            pycnn.load_compiled(bad)


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompiledFileError, match="cannot read the compiled network"):
        pycnn.load_compiled(tmp_path / "absent")
    pycnn.checkpoint.save(tmp_path / "run", {"model": pycnn.nn.Linear(2, 1)})
    with pytest.raises(CompiledFileError, match=f"format 'pycnn-checkpoint-1', and this pycnn reads '{FORMAT}'"):
        pycnn.load_compiled(tmp_path / "run")
    model, inputs = make("plain")
    with pytest.raises(CompiledFileError, match="cannot write the compiled network"):
        pycnn.compile(model, inputs[0]).save(tmp_path / "no" / "folder")


def _node(index: int, **changes: Any) -> Callable[[Any, Any], None]:
    def change(header: Any, arrays: Any) -> None:
        header["nodes"][index].update(changes)

    return change


def _setting(**changes: Any) -> Callable[[Any, Any], None]:
    def change(header: Any, arrays: Any) -> None:
        header["nodes"][0]["settings"].update(changes)

    return change


def _array(name: str, array: Any) -> Callable[[Any, Any], None]:
    def change(header: Any, arrays: Any) -> None:
        arrays[name] = array

    return change


def _set(name: str, value: Any) -> Callable[[Any, Any], None]:
    return lambda header, arrays: header.__setitem__(name, value)


# What a file with a right checksum may say all the same: (change, words of the refusal).
LIES: dict[str, tuple[Callable[[Any, Any], None], str]] = {
    "unknown operation": (_node(0, op="system"), "no operation is named 'system'"),
    "operation of another name": (_node(0, op="__import__"), "no operation is named"),
    "more settings": (_setting(shell="rm"), "does not take what it is given"),
    "missing settings": (_node(0, settings={}), "does not take what it is given"),
    "no settings": (_node(0, settings=5), "no compiled network"),
    "huge padding": (_setting(padding=[2**50, 0, 0, 0]), "between 0 and 2"),
    "padding that is no number": (_setting(padding=["1", 1, 1, 1]), "no compiled network"),
    "stride of nothing": (_setting(stride=[0, 1]), "at least 1|between 1"),
    "stride in another form": (_setting(stride=1), "stride must be"),
    "groups that do not divide": (_setting(groups=2), "groups|channels"),
    "a flag for bounds": (_setting(clamp=True), "clamp must be None or two floats around 0"),
    "one bound": (_setting(clamp=[6.0]), "clamp must be None or two floats around 0"),
    "bounds without zero": (_setting(clamp=[1.0, 6.0]), "clamp must be None or two floats around 0"),
    "bounds that are no numbers": (_setting(clamp=[math.nan, 6.0]), "clamp must be None or two floats around 0"),
    "unknown algorithm": (_setting(algo=["direct"]), "algo must be a string"),
    "a later input": (_node(0, inputs=[3]), "there is no value 3"),
    "a negative input": (_node(0, inputs=[-1]), "there is no value -1"),
    "an input that is no number": (_node(0, inputs=[False]), "there is no value False"),
    "another shape": (_node(0, shape=[5, 5, 5]), "conv2d makes"),
    "no shape": (_node(0, shape="large"), "is no shape"),
    "negative size": (_set("inputs", [[-3, 9, 11]]), "is no shape"),
    "no inputs": (_set("inputs", []), "no value 0|not whole"),
    "no outputs": (_set("outputs", []), "not whole"),
    "an output too many": (_set("outputs", [1, 2]), "not whole"),
    "structure of nothing": (_set("structure", ["set", [0]]), "no kind of result"),
    "structure of another number": (_set("structure", 1), "not whole"),
    "structure of numbers": (_set("structure", 0.5), "no compiled network"),
    "no accuracy": (_set("accuracy", "sloppy"), "accuracy must be one of"),
    "weights missing": (lambda header, arrays: arrays.pop("0.w"), "0.w"),
    "weights too many": (_array("9.w", np.zeros(1, np.float32)), "nothing uses: 9.w"),
    "weights of another size": (_array("0.b", np.zeros(4, np.float32)), "b must be a float array of shape"),
    "weights of another dtype": (_array("0.b", np.zeros(33)), "an array of F64"),
    "nothing at all": (lambda header, arrays: header.clear() or header.update(format=FORMAT), "'inputs'|no compiled"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused_in_words(name: str, tmp_path: Path) -> None:
    model, inputs = make("plain")
    pycnn.compile(model, inputs[0]).save(tmp_path / "net")
    header, arrays = _archive.read(tmp_path / "net", FORMAT)
    change, words = LIES[name]
    change(header, arrays)
    json.dumps(header)
    _archive.write(tmp_path / "lie", header, arrays)
    with pytest.raises(CompiledFileError, match=words):
        pycnn.load_compiled(tmp_path / "lie")


def test_what_is_in_the_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    model, inputs = make("plain")
    compiled = pycnn.compile(model, inputs[0])
    compiled.save(tmp_path / "net")
    arrays = load_file(tmp_path / "net")
    assert {name: array.shape for name, array in arrays.items()} == {
        **{"0.w": (33, 3, 3, 3), "0.b": (33,), "2.w": (17, 33, 3, 3), "2.b": (17,)},
    }
    assert np.array_equal(arrays["2.w"], np.asarray(compiled.graph.nodes[2].constants["w"]))
