"""Checkpoints: whole or not at all, verified on reading, and resuming bit for bit."""

import json
import math
import os
import random as dice
import re
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest

import pycnn
from pycnn import checkpoint, nn, optim
from pycnn.checkpoint import CheckpointError
from pycnn.tensor import Tensor

pytest.importorskip("safetensors")


def trained(steps=2):
    """A small network with an optimiser and a schedule that have something to remember."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    rule = optim.Adam([{"params": net[:2].parameters()}, {"params": net[3].parameters(), "lr": 0.3}], lr=0.1)
    schedule = optim.CosineAnnealingLR(rule, 9)
    for _ in range(steps):
        rule.zero_grad()
        (net(Tensor(pycnn.random.normal((2, 1, 4, 4), dtype=np.float32))) ** 2).sum().backward()
        rule.step()
        schedule.step()
    return {"model": net, "optimizer": rule, "scheduler": schedule}


def flat(value, path=""):
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f"{path}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return flat(dict(enumerate(value)), path)
    return {path: value.data if isinstance(value, Tensor) else value}


def assert_same(first, second):
    a, b = flat(first), flat(second)
    assert a.keys() == b.keys()
    for key in a:
        assert np.asarray(a[key]).dtype == np.asarray(b[key]).dtype, key
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_everything_comes_back(tmp_path):
    parts = trained()
    state = pycnn.random.get_state()
    extra = {"epoch": 3, "history": [0.5, math.inf, None], "note": "ü"}
    checkpoint.save(tmp_path / "run", parts, extra, {"plans": {"n1c1": "direct"}})
    others = trained(0)
    pycnn.manual_seed(99)
    read = checkpoint.restore(tmp_path / "run", others)
    for name, part in parts.items():
        assert_same(part.state_dict(), others[name].state_dict())
    assert pycnn.random.get_state() == state
    assert read.extra == extra
    assert read.environment == {
        **{"pycnn": pycnn.__version__, "isa": pycnn.get_isa(), "backend": pycnn.backends.selected() or "auto"},
        "plans": {"n1c1": "direct"},
    }
    assert os.listdir(tmp_path) == ["run"]


def test_the_instruction_set_is_restored_and_what_cannot_be_is_said(tmp_path):
    before = pycnn.get_isa()
    try:
        pycnn.set_isa("baseline")
        checkpoint.save(tmp_path / "run", {})
        pycnn.set_isa("auto")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            checkpoint.restore(tmp_path / "run", {})
        assert pycnn.get_isa() == "baseline"
        checkpoint.save(tmp_path / "other", {}, environment={"isa": "avx1024", "pycnn": "0.0.1"})
        with pytest.warns(UserWarning, match=r"saved with pycnn 0.0.1 \(now .*\), isa avx1024 \(now baseline\)"):
            checkpoint.restore(tmp_path / "other", {})
    finally:
        pycnn.set_isa(before)


def test_the_file_is_plain_safetensors(tmp_path):
    from safetensors.numpy import load_file

    parts = trained()
    checkpoint.save(tmp_path / "run", parts)
    arrays = load_file(tmp_path / "run")
    np.testing.assert_array_equal(arrays["model/0.weight"], parts["model"][0].weight.data)
    assert arrays["model/1.num_batches_tracked"] == 2
    assert "optimizer/state/0/exp_avg" in arrays


def test_what_cannot_be_saved_is_named(tmp_path):
    class Odd:
        def state_dict(self):
            return {"a": [1, {"b": object()}]}

    (tmp_path / "run").write_bytes(b"old")
    with pytest.raises(TypeError, match=r"odd/a/1/b is object"):
        checkpoint.save(tmp_path / "run", {"odd": Odd()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.save(tmp_path / "run", {}, {"x": object()})
    assert (tmp_path / "run").read_bytes() == b"old"


def test_a_checkpoint_without_the_part_or_for_another_network_is_refused(tmp_path):
    checkpoint.save(tmp_path / "run", {"model": nn.Linear(2, 2)}, {"epoch": 1})
    net = nn.Linear(2, 3)
    with pytest.raises(CheckpointError, match="does not hold optimizer; it holds model"):
        checkpoint.restore(tmp_path / "run", {"model": nn.Linear(2, 2), "optimizer": optim.SGD(net.parameters())})
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        checkpoint.restore(tmp_path / "run", {"model": net})


def test_damage_anywhere_is_one_clear_exception(tmp_path):
    good = tmp_path / "good"
    checkpoint.save(good, trained())
    content, bad = good.read_bytes(), tmp_path / "bad"
    rng = dice.Random(0)
    sizes = [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]
    damaged = [content[:size] for size in sizes] + [content + b"\0", b"PK\3\4" + content, os.urandom(1000)]
    for _ in range(200):  # one flipped bit, anywhere
        place = rng.randrange(len(content))
        damaged.append(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
    for data in damaged:
        bad.write_bytes(data)
        with pytest.raises(CheckpointError, match=re.escape(str(bad))):
            checkpoint.load(bad)
    assert checkpoint.load(good).parts.keys() == {"model", "optimizer", "scheduler"}


def test_files_that_are_something_else_are_refused(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        checkpoint.load(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint|no whole checkpoint"):
        checkpoint.load(tmp_path)
    save_file({"x": np.ones(2)}, tmp_path / "foreign")
    with pytest.raises(CheckpointError, match="no whole checkpoint of pycnn"):
        checkpoint.load(tmp_path / "foreign")
    save_file({"x": np.ones(2)}, tmp_path / "newer", metadata={"pycnn": json.dumps({"format": "pycnn-checkpoint-9"})})
    with pytest.raises(CheckpointError, match="has the format 'pycnn-checkpoint-9'"):
        checkpoint.load(tmp_path / "newer")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        checkpoint.save(tmp_path / "no" / "folder", {})


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """The limit on file sizes stands in for the disk: writing fails half-way, as on a full one."""
    code = """
        import resource, signal, sys, numpy as np
        from pycnn import checkpoint, nn
        class State:
            def state_dict(self):
                return {"x": np.ones(1_000_000)}
        checkpoint.save(sys.argv[1], {"model": nn.Linear(2, 2)}, {"epoch": 1})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        try:
            checkpoint.save(sys.argv[1], {"model": State()}, {"epoch": 2})
        except checkpoint.CheckpointError as error:
            print(error)
    """
    path = tmp_path / "run"
    result = run(code, path)
    assert f"cannot write the checkpoint {path}" in result.stdout
    assert checkpoint.load(path).extra == {"epoch": 1}
    assert os.listdir(tmp_path) == ["run"]


def test_a_failing_rename_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "run"
    checkpoint.save(path, {}, {"epoch": 1})

    def refuse(source, target):
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(CheckpointError, match="Permission denied"):
        checkpoint.save(path, {}, {"epoch": 2})
    assert checkpoint.load(path).extra == {"epoch": 1}
    assert os.listdir(tmp_path) == ["run"]


def test_safetensors_is_asked_for_by_its_extra(tmp_path):
    code = """
        import sys
        sys.modules["safetensors"] = None
        from pycnn import checkpoint
        try:
            checkpoint.save(sys.argv[1], {})
        except ImportError as error:
            print(error)
    """
    assert "pip install 'pycnn[train]'" in run(code, tmp_path / "run").stdout
    assert not os.listdir(tmp_path)


TRAIN = """
    import hashlib, sys
    from pathlib import Path
    import numpy as np
    import pycnn
    from pycnn import checkpoint, functional as F, models, nn, optim, random
    from pycnn.tensor import Tensor

    path, steps = Path(sys.argv[1]), int(sys.argv[2])
    stream = random.Generator(1)
    images = stream.normal((24, 1, 28, 28), dtype=np.float32)
    labels = stream.integers(0, 10, 24)

    class Order:
        epoch = position = 0
        def next(self):
            order = random.Generator(self.epoch).permutation(24)[self.position : self.position + 4]
            self.position += 4
            if self.position == 24:
                self.epoch, self.position = self.epoch + 1, 0
            return order
        def state_dict(self):
            return {"epoch": self.epoch, "position": self.position}
        def load_state_dict(self, state):
            self.epoch, self.position = state["epoch"], state["position"]

    pycnn.manual_seed(5)
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.1), models.lenet5())
    rule = optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    parts = {"model": net, "optimizer": rule, "scheduler": optim.CosineAnnealingLR(rule, steps), "order": Order()}
    step = checkpoint.restore(path, parts).extra["step"] if path.exists() else 0
    while step < steps:
        batch = parts["order"].next()
        rule.zero_grad()
        F.cross_entropy(net(Tensor(images[batch])), Tensor(labels[batch])).backward()
        rule.step()
        parts["scheduler"].step()
        step += 1
        print(step, flush=True)
        checkpoint.save(path, parts, {"step": step})
    digest = hashlib.sha256()
    for value in net.state_dict().values():
        digest.update(value.numpy().tobytes())
    print("done", digest.hexdigest(), random.get_state(), rule.param_groups[0]["lr"])
"""


def command(code, *arguments):
    return [sys.executable, "-c", _prelude() + textwrap.dedent(code), *map(str, arguments)]


def _prelude():
    chosen = pycnn.backends.selected()
    return f"import pycnn; pycnn.use_backend({chosen!r})\n" if chosen else ""


def run(code, *arguments):
    return subprocess.run(command(code, *arguments), capture_output=True, text=True, check=True)


def test_a_run_killed_at_any_moment_resumes_bit_for_bit(tmp_path):
    steps, kills = 300, 7  # a quick machine takes some 20 steps before a kill arrives, and none may find it finished
    expected = run(TRAIN, tmp_path / "whole", steps).stdout.splitlines()[-1]
    assert expected.startswith("done")
    rng, killed, last = dice.Random(3), 0, ""
    for attempt in range(kills + 1):
        with subprocess.Popen(command(TRAIN, tmp_path / "cut", steps), stdout=subprocess.PIPE, text=True) as process:
            for line, output in enumerate(process.stdout):
                last = output.strip()
                if attempt < kills and line == 1 + attempt % 2:
                    time.sleep(rng.uniform(0, 0.02))  # anywhere between this step, its checkpoint and the next step
                    process.send_signal(signal.SIGKILL)
                    break
        killed += process.returncode == -signal.SIGKILL
    assert killed == kills
    assert last == expected
    assert sorted(os.listdir(tmp_path)) == ["cut", "whole"]


def test_resuming_is_not_starting_anew(tmp_path):
    """The test above would pass if the checkpoint were ignored and the run repeated: here it must not be."""
    run(TRAIN, tmp_path / "run", 3)
    lines = run(TRAIN, tmp_path / "run", 5).stdout.splitlines()
    assert [line for line in lines if not line.startswith("done")] == ["4", "5"]
    assert checkpoint.load(tmp_path / "run").extra == {"step": 5}
