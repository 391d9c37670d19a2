"""What has been proven on which GPU: a JSON file a device; each result has the hash of the sources it is about."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import tasks
from benchmarks.tasks import Task
from pycnn._files import replacing
from pycnn.backends.cuda import LAUNCHERS, layout
from pycnn.jit import cache
from pycnn.jit.sources import installed

__all__ = ["Ledger", "ledgers", "source_hashes", "status"]


def source_hashes() -> dict[str, str]:
    """Of each kernel: the hash of its sources, its instances and the host code that launches it."""
    hashes = {}
    for kernel in sorted({instance.kernel for instance in installed().instances}):
        instances = installed().of(kernel)
        files = installed().closure(next(iter(instances.values())).source)
        launcher = next(module for module in LAUNCHERS if kernel in module.KERNELS)
        paths = [Path(module.__file__ or "") for module in (launcher, layout)]
        host = {path.name: path.read_text() for path in paths}
        expressions = "\n".join(instance.expression for instance in instances.values())
        hashes[kernel] = cache.key(files=files, instances=expressions, host=host)
    return hashes


class DamagedError(ValueError):
    """A file of evidence that is no JSON."""


class Ledger:
    """One device's evidence file.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"device": {}, "results": {}}
        if path.is_file():
            try:
                self.content = json.loads(path.read_text())
            except json.JSONDecodeError as error:
                raise DamagedError(f"{path} is damaged ({error}); remove it, or put it back as it was") from None

    @property
    def device(self) -> str:
        """Its name."""
        return str(self.content["device"].get("device", self.path.stem))

    def holds(self, task: Task, hashes: dict[str, str]) -> bool:
        """Whether the task has succeeded with the sources as they are."""
        return self._of(task, hashes).get("ok", False)

    def failed(self, task: Task, hashes: dict[str, str]) -> bool:
        """Whether the task has failed with the sources as they are."""
        return not self._of(task, hashes).get("ok", True)

    def _of(self, task: Task, hashes: dict[str, str]) -> dict[str, Any]:
        """The task's result, empty where there is none or the sources were others."""
        result: dict[str, Any] = self.content["results"].get(task.name, {"sources": None})
        return result if result["sources"] == {kernel: hashes[kernel] for kernel in task.kernels} else {}

    def write(self, task: Task, hashes: dict[str, str], ok: bool, result: dict[str, Any], seconds: float) -> None:
        """Add one result and save everything."""
        self.content["results"][task.name] = {
            "ok": ok,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "sources": {kernel: hashes[kernel] for kernel in task.kernels},
            **result,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self.content, indent=1, sort_keys=True) + "\n")


def ledgers(folder: Path) -> list[Ledger]:
    """The evidence of real devices in a folder."""
    found = [Ledger(path) for path in sorted(folder.glob("*.json"))]
    return [ledger for ledger in found if "rehearsal" not in ledger.content["device"]]


def status(folder: Path) -> list[str]:
    """A line for each kernel: on which devices it is proven as it stands, on which it was before it changed."""
    hashes = source_hashes()
    proofs = [task for task in tasks.plan() if not task.name.startswith(("time/", "bandwidth/", "step/"))]
    lines = []
    for kernel in hashes:
        wanted = [task for task in proofs if kernel in task.kernels]
        words = []
        for ledger in ledgers(folder):
            done = sum(ledger.holds(task, hashes) for task in wanted)
            stale = sum(task.name in ledger.content["results"] for task in wanted) - done
            if done == len(wanted):
                words.append(f"proven on {ledger.device}")
            elif done or stale:
                held = f"{done} of {len(wanted)} proofs hold"
                words.append(f"{ledger.device}: {held}, {stale} are older than the sources or failed")
        lines.append(f"{kernel}: {'; '.join(words) or 'never proven on a GPU'}")
    return lines
