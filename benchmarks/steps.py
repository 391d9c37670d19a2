"""One step of training, ours and torch's: ResNet-50 forward, cross entropy, backward, SGD with momentum.

    python -m benchmarks.steps "torch bfloat16 channels-last"         one of torch's, as JSON

torch's run in processes of their own, where their settings and their memory end with them, and where torch.compile,
which compiles for minutes, can be stopped.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import pycnn
from benchmarks.child import ended
from pycnn.bench.training import LEARNING_RATE, MOMENTUM

__all__ = ["RUNS", "STEPS", "WARM", "Size", "Step", "Training", "by_torch", "in_a_process"]

RUNS, WARM = 10, 3


@dataclass(frozen=True)
class Step:
    """How a step is computed.

    Attributes:
        arithmetic: a dtype, for mixed precision where it has 16 bits; or a precision of `pycnn.use_precision`.
        peer: whether it is torch's.
        captured: of ours, whether one CUDA graph is replayed.
        timeline: of ours, whether each launch is timed, instead of the step.
        channels_last: how images and filters lie.
        compiled: of torch's, by torch.compile.
        seconds: a generous guess of how long all of it takes.
    """

    arithmetic: str = "float32"
    peer: bool = False
    captured: bool = True
    timeline: bool = False
    channels_last: bool = False
    compiled: bool = False
    seconds: float = 30

    @property
    def mixed(self) -> bool:
        """Whether most of it is computed in 16 bits."""
        return self.arithmetic in ("float16", "bfloat16")


STEPS = {
    "float32": Step(),
    "torch float32": Step(peer=True),
    "bfloat16 channels-last": Step("bfloat16", channels_last=True),
    "torch bfloat16 channels-last": Step("bfloat16", peer=True, channels_last=True),
    "3xtf32 channels-last": Step("3xtf32", channels_last=True),
    "3xfp16 channels-last": Step("3xfp16", channels_last=True),
    "torch bfloat16 channels-last compiled": Step(
        "bfloat16", peer=True, channels_last=True, compiled=True, seconds=150
    ),
    "float32 kernels": Step(captured=False, timeline=True),
    "bfloat16 channels-last kernels": Step("bfloat16", captured=False, timeline=True, channels_last=True),
    "tf32 channels-last": Step("tf32", channels_last=True),
    "torch tf32": Step("tf32", peer=True),
    "float32 eager": Step(captured=False),
    "torch float32 compiled": Step(peer=True, compiled=True, seconds=150),
    "torch float32 channels-last": Step(peer=True, channels_last=True),
    "float16 channels-last": Step("float16", channels_last=True),
    "bfloat16": Step("bfloat16"),
}


@dataclass(frozen=True)
class Size:
    """A network by its name in `pycnn.models`, and the images that it is trained on."""

    network: str = "resnet50"
    batch: int = 32
    image: tuple[int, int, int] = (3, 224, 224)

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels."""
        images = np.random.default_rng(0).standard_normal((self.batch, *self.image), np.float32)
        return images, np.arange(self.batch) % 10


class Training:
    """Calls that train once, and return the loss.

    Attributes:
        graphs: how many of ours have been captured: the first calls are eager, and then one captures.
    """

    def __init__(self, step: Step, size: Size, device: str) -> None:
        pycnn.manual_seed(0)
        self._net = getattr(pycnn.models, size.network)().train().to(device)
        self._data = [pycnn.Tensor(array).to(device) for array in size.data()]
        if step.channels_last:
            self._net.to(memory_format=pycnn.channels_last)
            self._data[0] = self._data[0].to(memory_format=pycnn.channels_last)
        self._optimizer = pycnn.optim.SGD(self._net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        self._scaler = pycnn.amp.GradScaler(enabled=step.arithmetic == "float16")
        self._step = step
        self._run: Any = pycnn.cuda.capture(self._train, device=device) if step.captured else self._train

    @property
    def graphs(self) -> int:
        """Captured so far."""
        return int(self._run.graphs) if self._step.captured else 0

    def __call__(self) -> Any:
        with pycnn.use_precision("float32" if self._step.mixed else self._step.arithmetic):
            return self._run(*self._data)

    def _train(self, images: Any, labels: Any) -> Any:
        mixed = pycnn.amp.autocast(self._step.arithmetic) if self._step.mixed else contextlib.nullcontext()
        with mixed:
            loss = pycnn.cross_entropy(self._net(images), labels)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss


def by_torch(step: Step, size: Size, device: str) -> dict[str, Any]:
    """Milliseconds of a step by torch, on "cuda" or "cpu": the median, compilation apart; and its loss."""
    import torch

    from pycnn.bench.peers.torch_networks import BUILDERS

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = step.arithmetic == "tf32"
    layout = torch.channels_last if step.channels_last else torch.contiguous_format
    torch.manual_seed(0)
    model = BUILDERS[size.network]().train().to(device, memory_format=layout)
    run = torch.compile(model) if step.compiled else model
    images, labels = (torch.from_numpy(array).to(device) for array in size.data())
    images = images.contiguous(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, fused=True)
    dtype = getattr(torch, step.arithmetic) if step.mixed else torch.bfloat16
    scaler = torch.amp.GradScaler(device, enabled=step.arithmetic == "float16")

    def call() -> Any:
        with torch.autocast(device, dtype, enabled=step.mixed):
            loss = torch.nn.functional.cross_entropy(run(images), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    start = time.perf_counter()
    loss = call().item()
    first = time.perf_counter() - start
    for _ in range(WARM):
        call()
    times = list(_timed(torch, call) if device == "cuda" else _by_clock(call))
    return {"ms": 1e3 * statistics.median(times), "first_s": first, "loss": loss}


def _timed(torch: Any, call: Callable[[], Any]) -> Iterator[float]:
    """Seconds between events around each call; the host runs ahead, as it does in training."""
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(RUNS)]
    for start, end in events:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return (start.elapsed_time(end) / 1e3 for start, end in events)


def _by_clock(call: Callable[[], Any]) -> Iterator[float]:
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        yield time.perf_counter() - start


def in_a_process(name: str) -> dict[str, Any]:
    """`by_torch` of a step on the GPU; for one that is compiled, in its time or with the reason why not.

    Raises RuntimeError where a step that is not compiled fails.
    """
    step = STEPS[name]
    if importlib.util.find_spec("torch") is None:
        return {"skipped": "torch is not installed"}
    command = [sys.executable, "-m", "benchmarks.steps", name]
    try:
        done = ended(command, step.seconds if step.compiled else None)
    except subprocess.TimeoutExpired:
        return {"skipped": f"torch.compile was not done in {step.seconds:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
    if step.compiled:
        return {"skipped": f"torch.compile: {reason}"}
    raise RuntimeError(f"torch's step: {reason}")


def _worker(name: str) -> None:
    import torch

    if torch.cuda.is_available():
        print(json.dumps(by_torch(STEPS[name], Size(), "cuda")))
    else:
        print(json.dumps({"skipped": "torch sees no GPU"}))


if __name__ == "__main__":
    _worker(sys.argv[1])
