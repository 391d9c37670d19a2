"""Peers in processes of their own: they answer, stand still between turns, fail in one sentence, never stay behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bench_peers import Odd, Spinner, cannot_import, dies_at_once

from pycnn.bench.numpy_rows import numpy_call
from pycnn.bench.peers import PEERS, NumPy, find_peers
from pycnn.bench.processes import PeerProcess, peer_processes
from pycnn.bench.tasks import Task
from pycnn.shape import PASSES, Pool2dShape, Problem


def task(operator="fprop"):
    shape = Problem.parse("n2c4h8_k6r3_pd1").shape
    rng = np.random.default_rng(0)
    shapes = {"fprop": (shape.x_shape, shape.w_shape), "dgrad": (shape.y_shape, shape.w_shape)}
    wanted = shapes.get(operator, (shape.y_shape, shape.x_shape))
    return Task("conv2d", operator, shape, tuple(rng.standard_normal(size, np.float32) for size in wanted))


def state(pid):
    """R, S, T (stopped), Z ... as /proc has it; None for a process that is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_for(what, seconds=10.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def odd():
    with PeerProcess("odd", Odd, 3) as peer:
        yield peer


def pid_of(peer):
    return peer._process.pid


# -- work --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", PASSES)
def test_results_cross_the_line_whole(operator):
    work = task(operator)
    with PeerProcess("numpy", NumPy, 1) as peer:
        assert peer.prepare(work) == ["numpy"]
        assert np.array_equal(peer.result("numpy"), numpy_call(work)())
        times = peer.slice("numpy", 0.002, 0)
    assert len(times) >= 3
    assert all(0 < seconds < 1 for seconds in times)


def test_peers_are_told_how_many_threads(odd):
    odd.prepare(task())
    assert odd.result("threads") == [3]


def test_what_a_peer_prints_is_not_in_the_table(odd, capfd):
    odd.prepare(task())
    odd.result("prints")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", PEERS)
def test_each_framework_runs_in_processes(name):
    try:
        factories = find_peers([name])
    except ValueError as error:
        pytest.skip(str(error))
    assert list(factories) == list(PEERS[name])
    with peer_processes(factories, 1) as peers:
        for peer in peers:
            assert peer.prepare(task()) == [peer.name]
            np.testing.assert_allclose(peer.result(peer.name), numpy_call(task())(), atol=1e-4)  # sums of 36 products
            assert len(peer.slice(peer.name, 0.001, 0)) >= 1
            assert peer.prepare(Task("avg_pool2d", "forward", Pool2dShape(1, 1, 2, 2, (2, 2), (2, 2)), ())) == []


# -- between turns -----------------------------------------------------------------------------------------------


def test_a_peer_stands_still_between_its_turns(tmp_path):
    seen = tmp_path / "cpu seconds"

    def spent():
        peer.result("ticks")
        return float(seen.read_text())

    with PeerProcess("spinner", Spinner, 1) as peer:
        peer.prepare(str(seen))
        wait_for(lambda: state(pid_of(peer)) == "T")
        before = spent()
        time.sleep(0.5)
        # Its thread would have spun all the while; a few turns of the interpreter's lock, 5 ms each, are the question's
        assert spent() - before < 0.25


# -- failures ----------------------------------------------------------------------------------------------------


def test_an_exception_is_told_in_one_sentence(odd):
    odd.prepare(task())
    with pytest.raises(ChildProcessError, match=r"^odd could not compute: RuntimeError: no room$"):
        odd.result("raises")


@pytest.mark.parametrize(("way", "how"), [("dies", "SIGKILL"), ("leaves", "exit status 3")])
def test_a_peer_that_dies_is_an_error_and_no_wait(odd, way, how):
    odd.prepare(task())
    for _ in range(2):  # asked again, it is still dead
        with pytest.raises(ChildProcessError, match=rf"^the process of odd ended \({how}\) when asked to "):
            odd.slice(way, 0.01, 0)


def test_a_peer_that_cannot_start_is_an_error():
    with pytest.raises(ChildProcessError, match=r"^new could not start: ModuleNotFoundError: No module named 'a_mod"):
        PeerProcess("new", cannot_import, 1)
    with pytest.raises(ChildProcessError, match=r"^the process of new ended \(exit status 4\) when asked to start"):
        PeerProcess("new", dies_at_once, 1)


def test_peers_are_found_by_framework_and_by_contestant():
    pytest.importorskip("torch")
    everybody = find_peers(["all"])
    assert list(find_peers(["torch"])) == ["torch", "torch_cl", "torch_frozen"]
    assert list(find_peers(["torch_cl"])) == ["torch_cl"]
    assert list(find_peers(["torch_compile", "torch_cl"])) == ["torch_compile", "torch_cl"]
    assert list(find_peers(["all", "torch_compile"])) == [*everybody, "torch_compile"]  # which has to be asked for


def test_a_peer_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None if package in ("MNN", "onnx") else package)
    assert list(find_peers(["all"])) == ["torch", "torch_cl", "torch_frozen"]
    with pytest.raises(ValueError, match=r"peer 'mnn' needs MNN and onnx: pip install 'pycnn\[peers\]'"):
        find_peers(["torch", "mnn"])


def test_unknown_peers_are_refused():
    with pytest.raises(ValueError, match="peers must be among torch, onnxruntime, openvino, ncnn, mnn, got 'caffe'"):
        find_peers(["caffe"])


# -- the end -----------------------------------------------------------------------------------------------------


def test_nobody_is_left_when_the_block_ends():
    with pytest.raises(KeyError), peer_processes({"one": Odd, "two": Odd}, 1) as peers:  # noqa: PT012
        pids = [pid_of(peer) for peer in peers]
        assert None not in map(state, pids)
        raise KeyError
    assert [state(pid) for pid in pids] == [None, None]


PARENT = """
import sys
sys.path[:] = {path!r}
from bench_peers import Odd
from pycnn.bench.processes import PeerProcess
with PeerProcess("odd", Odd, 1) as peer:
    peer.prepare(None)
    print(peer._process.pid, flush=True)
    {then}
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("then", ["peer.result('hangs')", "import time; time.sleep(1000)"], ids=["at work", "stopped"])
def test_a_peer_ends_with_its_parent(sent, then):
    program = PARENT.format(path=[*sys.path, os.path.dirname(__file__)], then=then)
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0, text=True
    )
    pid = int(parent.stdout.readline())
    wait_for(lambda: state(pid) == ("S" if "hangs" in then else "T"))
    assert os.getpgid(pid) == pid  # where the terminal's Ctrl-C does not reach it
    if sent == signal.SIGINT:
        os.killpg(parent.pid, sent)  # as the terminal does
    else:
        parent.send_signal(sent)
    _, errors = parent.communicate(timeout=10)
    wait_for(lambda: state(pid) in (None, "Z"))  # a zombie where this machine has nobody who buries orphans
    assert errors.count("Traceback") == (sent == signal.SIGINT)  # the parent's own
