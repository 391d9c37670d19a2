"""Kernels of one's own, proven: found by entry points, verified, raced; wrong ones named."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_kernel import HOW, SMALL, W, X, dgrad, fprop, wgrad

import pycnn
from pycnn.backends import reference
from pycnn.bench import contest as contests
from pycnn.bench.contest import contest
from pycnn.bench.machine import Machine
from pycnn.bench.timing import race
from pycnn.bench.workloads import from_problem
from pycnn.cli import main
from pycnn.custom import registry
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import check_conv2d, every_pass, problems, verify_conv2d


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's kernels are gone when it ends."""
    monkeypatch.setattr(registry, "_kernels", {})


# ------------------------------------------------------------------------------------------------------- entry points

MODULE = """
import numpy as np, pycnn
pycnn.register_conv2d("{name}", lambda x, w, shape: np.full(shape.y_shape, 7, x.dtype))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Installs a package whose entry point "theirs" is a module that registers the kernel of the name given."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str) -> str:
        about = tmp_path / "their_package-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{registry.GROUP}]\ntheirs = their_package_{name}\n")
        module = f"their_package_{name}"
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(MODULE.format(name=name))
        importlib.invalidate_caches()
        return module

    return install


def test_an_installed_packages_kernel_is_found_when_it_is_asked_for(package: Callable[[str], str]) -> None:
    module = package("theirs")
    for algo in ("auto", "direct", "im2col_explicit"):
        pycnn.conv2d(X, W, None, *HOW, algo=algo)
    with pytest.raises(ValueError, match="got 'others'"):
        pycnn.conv2d(X, W, None, *HOW, algo="others")
    assert module not in sys.modules  # nobody asked for it yet
    assert (pycnn.conv2d(X, W, None, *HOW, algo="theirs") == 7).all()
    assert registry.names() == ["theirs"]
    assert module in sys.modules


def test_an_entry_point_that_registers_another_name_is_refused(package: Callable[[str], str]) -> None:
    package("another")
    with pytest.raises(
        ValueError, match=r"theirs of pycnn\.conv2d names their_package_another, which registers no such"
    ):
        pycnn.conv2d(X, W, None, *HOW, algo="theirs")


# ------------------------------------------------------------------------------------------------------- verification


def test_a_right_kernel_is_right_in_every_pass_on_every_problem() -> None:
    pycnn.register_conv2d("mine", fprop, dgrad, wgrad)
    seen: list[tuple[int, int, Problem]] = []
    found = verify_conv2d("mine", most_macs=50_000, progress=lambda *state: seen.append(state))
    small = {problem for problem in every_pass(problems()) if problem.shape.macs <= 50_000}
    assert small < set(found.right)  # and some layers of networks
    assert found.refused == {}
    assert [problem.shape.macs for problem in found.right] == sorted(problem.shape.macs for problem in found.right)
    assert [state[2] for state in seen] == list(found.right)
    assert [state[0] for state in seen] == list(range(seen[0][1]))
    assert str(found) == f"mine is right on {len(seen)} problems on cpu (fprop, dgrad, wgrad)"
    check_conv2d("cpu", SMALL, "mine")
    assert verify_conv2d("mine", "cpu", [str(SMALL)], dtype="float64").right[0].dtype == "float64"


# A kernel that forgets one thing, and the smallest of these problems on which that shows.
GIVEN = ["n1c2h5_k2r3", "n1c2h6_k2r3_pd1", "n1c2h7_k2r3_pd2dl2", "n1c4h8_k4r3_pd1g2", "n1c3h11_k3r3_st2x1pd1"]


def without(**forgotten: Any) -> Callable[..., Any]:
    def run(x: Any, w: Any, shape: Conv2dShape) -> Any:
        used = {name: getattr(shape, name) for name in ("stride", "padding", "dilation", "groups")} | forgotten
        if used["groups"] != shape.groups:
            w = np.concatenate([w] * shape.groups, 1)
        y = reference.conv2d_fprop(x, w, None, *used.values())
        return np.resize(y, shape.y_shape)

    return run


@pytest.mark.parametrize(
    ("forgotten", "problem"),
    [
        ({"padding": (0, 0, 0, 0)}, "n1c2h6w6_k2r3s3_st1pd1dl1g1"),
        ({"dilation": (1, 1)}, "n1c2h7w7_k2r3s3_st1pd2dl2g1"),
        ({"groups": 1}, "n1c4h8w8_k4r3s3_st1pd1dl1g2"),
        ({"stride": (1, 1)}, "n1c3h11w11_k3r3s3_st2x1pd1dl1g1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_kernel_is_told_the_smallest_problem(forgotten: dict[str, Any], problem: str) -> None:
    pycnn.register_conv2d("mine", without(**forgotten))
    with pytest.raises(
        AssertionError, match=rf"^mine is wrong on {problem} \(cpu\): integers: at \(.*\) got .*, expected"
    ):
        verify_conv2d("mine", given=reversed(GIVEN))
    pycnn.register_conv2d("right", without())
    assert len(verify_conv2d("right", given=GIVEN).right) == len(GIVEN)


def modifying(x: Any, w: Any, shape: Conv2dShape) -> Any:
    y = fprop(x, w, shape)
    x[0, 0, 0, 0] += 1
    return y


class Keeping:
    """Hands out the same memory again."""

    def __call__(self, x: Any, w: Any, shape: Conv2dShape) -> Any:
        self.y = getattr(self, "y", np.empty(shape.y_shape, x.dtype))
        self.y[...] = fprop(x, w, shape)
        return self.y


class Drifting:
    """Gives something else each time."""

    calls = 0

    def __call__(self, x: Any, w: Any, shape: Conv2dShape) -> Any:
        self.calls += 1
        y = fprop(x, w, shape)
        y[0, 0, 0, 0] += np.float32(2.0**-20) * self.calls
        return y


def rounding(x: Any, w: Any, shape: Conv2dShape) -> Any:
    """Right but for errors that a Winograd tile may make and a sum of products may not."""
    y = fprop(x, w, shape)
    return y + 16 * np.spacing(np.abs(y).max())


def asserting(x: Any, w: Any, shape: Conv2dShape) -> Any:
    assert shape.H == 0, "no such image"


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (modifying, "is wrong on n1c2h5.*an input was modified"),
        (Keeping(), "is wrong on n1c2h5.*memory shared"),
        (Drifting(), "is wrong on n1c2h5.*two runs differ in 1 elements"),
        (rounding, "is wrong on n1c2h5.*must be exact"),
        (lambda x, w, shape: x[0, 9], "fails on n1c2h5w5_k2r3s3_st1pd0dl1g1 .*IndexError"),
        (lambda x, w, shape: x, "fails on n1c2h5.*must return the shape"),
        (asserting, "is wrong on n1c2h5.*no such image"),
    ],
)
def test_every_way_to_be_wrong_is_said(kernel: Any, words: str) -> None:
    pycnn.register_conv2d("mine", kernel)
    with pytest.raises(AssertionError, match=f"^mine {words}"):
        verify_conv2d("mine", given=["n1c2h5_k2r3"])


def test_a_kernel_is_held_to_the_bound_that_it_names() -> None:
    pycnn.register_conv2d("mine", rounding, bound="winograd_f4x4_3x3")
    assert verify_conv2d("mine", given=["n1c64h9_k2r3"]).right
    result = contest(from_problem(Problem.parse("n1c64h9_k2r3")), "fprop", algos=["mine"], seconds=0.001)
    assert result.row("mine") is not None


def test_what_is_refused_is_counted() -> None:
    pycnn.register_conv2d("mine", fprop, refuses=lambda _, shape, dtype: "one group only" if shape.groups > 1 else None)
    found = verify_conv2d("mine", given=GIVEN)
    assert list(map(str, found.refused)) == ["n1c4h8w8_k4r3s3_st1pd1dl1g2"]
    assert str(found) == "mine is right on 4 problems on cpu (fprop), 1 refused"
    with pytest.raises(ValueError, match="mine runs on none of the 1 problems on cpu: one group only"):
        verify_conv2d("mine", given=[GIVEN[3]])
    with pytest.raises(ValueError, match=r"runs on none of the 5 problems on reference: it was registered for.* cpu"):
        verify_conv2d("mine", "reference", GIVEN)


def test_a_kernel_for_gpus_alone_needs_one() -> None:
    if pycnn.cuda.is_available():
        pytest.skip("there is a GPU")
    pycnn.register_conv2d("mine", fprop, backends="cuda")
    with pytest.raises(ValueError, match="the kernel mine was registered for CUDA GPUs only, and none is here"):
        verify_conv2d("mine")


# ------------------------------------------------------------------------------------------------------------ the race

FILE = """
import numpy as np
import pycnn
from helper_of_mine import how

def fprop(x, w, shape):
    from pycnn.backends import reference
    return reference.conv2d_fprop(x, w, None, *how(shape)) {damage}

pycnn.register_conv2d("mine", fprop)
"""
HELPER = """
def how(shape):
    return shape.stride, shape.padding, shape.dilation, shape.groups
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`pycnn bench` on a file that registers "mine": exit code, output and errors."""
    for package in ("rich", "threadpoolctl", "matplotlib"):
        pytest.importorskip(package)
    machine = Machine("a machine", 2, 2, "avx2", 1e11, 1e10, {"numpy": "2"})
    monkeypatch.setattr("pycnn.bench.machine.measure", lambda: machine)
    monkeypatch.setattr(contests, "race", lambda racers, seconds: race(racers, 0, rounds=1))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "helper_of_mine", raising=False)
    (tmp_path / "helper_of_mine.py").write_text(HELPER)

    def call(*arguments: str, damage: str = "") -> tuple[int, str, str]:
        file = tmp_path / "mine.py"
        file.write_text(FILE.format(damage=damage))
        words = [str(file) if word == "FILE" else word for word in arguments]
        code = main(["bench", "--quick", "--most-macs", "3000", "--out", str(tmp_path / "out"), *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_one_command_verifies_and_races_a_file(command: Any) -> None:
    code, said, _ = command("--kernel", "FILE", "--problem", "n1c4h8_k4r3_pd1")
    assert code == 0
    assert said.startswith("mine is right on ")
    assert "x mine" in said
    assert " fprop " in said
    assert "dgrad" not in said  # the file has no such pass
    assert "fprop, all layers" in said


def test_peers_race_a_kernel_too(command: Any) -> None:
    pytest.importorskip("torch")
    code, said, _ = command("--kernel", "FILE", "--peers", "torch", "--problem", "n1c4h8_k4r3_pd1")
    assert code == 0
    assert all(f"x {name}" in said for name in ("numpy", "mine", "torch", "torch_cl"))


def test_a_wrong_kernel_is_never_raced_and_is_1(command: Any) -> None:
    code, said, _ = command("--kernel", "FILE", "--problem", "n1c4h8_k4r3_pd1", damage="+ (shape.R > 3)")
    assert code == 1
    assert "mine is wrong on n2c4h11w13" not in said
    smallest = min((p for p in problems() if p.shape.R > 3 and p.shape.N), key=lambda problem: problem.shape.macs)
    assert f"mine is wrong on {smallest.shape} (cpu): integers: at (" in said
    assert "x mine" not in said


def test_an_installed_packages_kernel_is_proven_by_its_name(command: Any, package: Callable[[str], str]) -> None:
    package("theirs")
    code, said, _ = command("--algo", "theirs", "--problem", "n1c4h8_k4r3_pd1")
    assert code == 1
    assert said.startswith("theirs is wrong on n2c3h1w1_k4r1s1_st1pd0dl1g1 (cpu): integers: at (")


def test_registered_kernels_race_what_auto_takes_or_what_is_named() -> None:
    pycnn.register_conv2d("mine", fprop)
    pycnn.register_conv2d("other", fprop, refuses=lambda *_: "it never runs")
    layer = from_problem(Problem.parse("n1c4h8_k4r3_pd1"))
    result = contest(layer, "fprop", algos=["mine", "other"], seconds=0.001)
    assert [(row.contestant, row.kind) for row in result.rows] == [(result.auto, "ours"), ("mine", "own")]
    assert result.refused["other"] == "it never runs"
    assert result.taken == result.row(result.auto)
    result = contest(layer, "fprop", algos=["im2col_explicit", "mine"], seconds=0.001)
    assert [row.contestant for row in result.rows] == ["im2col_explicit", "mine"]
    result = contest(layer, "dgrad", algos=["mine"], seconds=0.001)
    assert [row.kind for row in result.rows] == ["ours"]
    assert result.refused["mine"].startswith("it was registered for fprop only")


def test_a_kernel_that_lies_to_its_proof_is_still_judged(command: Any) -> None:
    """What the race computes is compared, too: here a problem that no list has."""
    code, said, _ = command("--kernel", "FILE", "--problem", "n1c4h8_k29r3_pd1", damage="+ (shape.K == 29)")
    assert code == 1
    assert "problem fprop mine: wrong: error" in said


def test_what_a_kernel_refuses_is_said(command: Any) -> None:
    code, said, _ = command("--kernel", "FILE", "--passes", "fprop,wgrad", "--problem", "n1c4h8_k4r3_pd1")
    assert code == 0
    assert "left out: mine in wgrad of n1c4h8w8_k4r3s3_st1pd1dl1g1: it was registered for fprop only" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kernel", "no_such_file.py"], "no_such_file.py: No such file"),
        (["--kernel", "no_such_module_of_mine"], "No module named 'no_such_module_of_mine'"),
        (["--kernel", "json"], "--kernel json registers no kernel: it has to call pycnn.register_conv2d"),
        (["--algo", "direct"], "--most-macs is about verifying a kernel of yours"),
        (["--kernel", "FILE", "--algo", "theirs", "--most-macs", "9"], "needs --kernel, or one in --algo"),
        (["--kernel", "FILE", "--backend", "reference"], "it was registered for the backends cpu"),
        (["--kernel", "FILE", "--peers", "caffe"], "peers must be among torch"),
    ],
)
def test_bad_arguments_are_one_line_and_2(command: Any, arguments: list[str], words: str) -> None:
    code, _, err = command("--problem", "n1c4h8_k4r3_pd1", *arguments)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


# ------------------------------------------------------------------------------------------------------- the examples

NUMBA = """
import pycnn.examples.numba_direct
from pycnn.testing import verify_conv2d
print(verify_conv2d("numba_direct", given=[{given}]))
"""


def test_the_numba_example_is_right_in_numbas_simulator() -> None:
    """Stride, padding, dilation and groups, each with sides that differ; small, as each thread is run as Python."""
    pytest.importorskip("numba")
    given = ["n1c2h3w4_k2r2s3_st2x1pd1.0.0.2", "n2c2h4w5_k1r2s2_dl2x3pd1", "n1c4h2w3_k2r1s2_g2", "n1c2h1_k2r3_pd1"]
    done = subprocess.run(
        [sys.executable, "-c", NUMBA.format(given=", ".join(map(repr, given)))],
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        check=False,
    )
    assert done.stdout == f"numba_direct is right on 12 problems on cpu ({', '.join(PASSES[:3])})\n", done.stderr


def test_the_numba_example_wants_a_gpu_where_numba_does_not_simulate(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.delitem(sys.modules, "pycnn.examples.numba_direct", raising=False)
    importlib.import_module("pycnn.examples.numba_direct")
    with pytest.raises(ValueError, match="it was registered for the backends cuda, and this call goes to cpu"):
        pycnn.conv2d(X, W, None, *HOW, algo="numba_direct")
