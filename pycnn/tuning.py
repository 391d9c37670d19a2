"""What `auto` predicts with: a table of measured speed for each backend, and the choice by it.

An algorithm's work on a problem is counted in a few terms (`pycnn.costs` says which; a GPU's plans count their own), a
table has the seconds of a unit of each, and their products are added up:

    seconds = sum over terms of coefficient[pass][algorithm][term] * work[term]

`auto` takes the least.  Where a table has this very problem measured, the fastest that was measured is taken instead.
The choice is a pure function of the pass, the problem, the accuracy in force and the table: it does not depend on the
number of threads in force, since results must not, to the bit.  A table is for the number of threads that it was
measured with.

Tables come from the package (measured once for each instruction set), from the cache folder, where ``pycnn tune``
leaves what it measured on this machine, or from a file:

    PYCNN_TUNING=off        the package's own
    PYCNN_TUNING=FILE       that file's, for the backend and instruction set that it was measured for
    pycnn.tuning.use(...)   the same, from Python

Nothing is ever measured unless it is asked for.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pycnn import _cpu, machine
from pycnn._files import cache_folder, replacing, size_of
from pycnn._scoped import Scoped
from pycnn.shape import PASSES, Problem

__all__ = [
    "Candidate",
    "Identity",
    "Table",
    "adopt",
    "all_in_force",
    "choose",
    "duration",
    "forget",
    "in_force",
    "kept",
    "load",
    "of_cpu",
    "own",
    "path_of",
    "save",
    "use",
]

FORMAT = "pycnn-tuning-1"
BACKENDS = ("cpu", "cuda")

Coefficients = Mapping[str, Mapping[str, Mapping[str, float]]]  # by pass, algorithm, term: seconds of a unit
Measured = Mapping[str, Mapping[str, float]]  # by problem, algorithm: seconds


class Identity(NamedTuple):
    """What a measurement holds for.

    Attributes:
        backend: "cpu" or "cuda".
        kind: the instruction set, or what a GPU's kernels are compiled for.
        device: what the processor, or the GPU, calls itself.
        cores: the CPUs of the machine (not those that this process may use), or the GPU's multiprocessors.
        engine: the hash of the kernels' sources.
    """

    backend: str
    kind: str
    device: str
    cores: int
    engine: str


class Candidate(NamedTuple):
    """An algorithm that can run a problem.

    Attributes:
        name: as `algo` takes it.
        model: whose coefficients it has.
        work: how often each term's unit has to be done.
        handicap: what its prediction is multiplied by before it is compared: above 1 where its sums are less accurate.
    """

    name: str
    model: str
    work: Mapping[str, float]
    handicap: float = 1.0


@dataclass(frozen=True, eq=False)
class Table:
    """What was measured on a machine.

    Attributes:
        identity: where.
        threads: how many the engine had; the model is evaluated for so many, whatever there are.
        coefficients: seconds of a unit, by pass, algorithm and term; none below 0.
        measured: seconds of the algorithms of single problems, by the problem's string.
        report: what was said of the calibration: figures by name, for people.
        source: where it was read from, for people.

    Raises:
        ValueError: on construction, for what `load` would refuse.
    """

    identity: Identity
    threads: int
    coefficients: Coefficients
    measured: Measured = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    source: str = "memory"

    def __post_init__(self) -> None:
        if self.identity.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {self.identity.backend!r}")
        if not isinstance(self.threads, int) or self.threads < 1:
            raise ValueError(f"threads must be a whole number above 0, got {self.threads!r}")
        for operator, models in self.coefficients.items():
            if operator not in PASSES:
                raise ValueError(f"coefficients are for {', '.join(PASSES)}, not {operator!r}")
            for model, terms in models.items():
                for term, value in terms.items():
                    _check_seconds(f"coefficient {term} of {model} {operator}", value)
        for problem, times in self.measured.items():
            if problem != str(Problem.parse(problem)):
                raise ValueError(f"a measured problem is not in its own form: {problem!r}")
            for name, value in times.items():
                _check_seconds(f"{name} on {problem}", value)

    @property
    def calibrated(self) -> bool:
        """Whether it has coefficients; without any, only the single problems that it has are chosen by it."""
        return bool(self.coefficients)

    @cached_property
    def name(self) -> str:
        """The hash of all that a choice depends on: two tables of one name choose alike."""
        what = [self.identity.backend, self.identity.kind, self.threads, self.coefficients, self.measured]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def covers(self, identity: Identity) -> bool:
        """Whether it is for this backend and instruction set (or GPU architecture), on whatever machine."""
        return self.identity[:2] == identity[:2]

    def seconds(self, operator: str, candidate: Candidate) -> float:
        """The predicted time; infinite for an algorithm that it knows nothing of."""
        terms = self.coefficients.get(operator, {}).get(candidate.model)
        if terms is None:
            return math.inf
        return sum(terms.get(term, 0.0) * count for term, count in candidate.work.items())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` takes them back."""
        return {
            "format": FORMAT,
            "identity": self.identity._asdict(),
            "threads": self.threads,
            "coefficients": self.coefficients,
            "measured": self.measured,
            "report": self.report,
        }

    @staticmethod
    def from_dict(values: Any, source: str = "memory") -> Table:
        """The table of these values.

        Raises:
            ValueError: no such values; the message names `source` and what is wrong.
        """
        try:
            if values["format"] != FORMAT:
                raise ValueError(f"its format is {values['format']!r}, this pycnn reads {FORMAT!r}")
            identity = Identity(**values["identity"])
            parts = {name: values[name] for name in ("threads", "coefficients", "measured", "report")}
            return Table(identity, **parts, source=source)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{source} is no tuning table: {type(error).__name__} {error}") from None
        except ValueError as error:
            raise ValueError(f"{source} is no tuning table: {error}") from None


def _check_seconds(what: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"{what} must be a number of seconds, at least 0, got {value!r}")


def load(path: str | os.PathLike[str]) -> Table:
    """The table in a file.

    Args:
        path: what `save` or ``pycnn tune --out`` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no table; the message says why.
    """
    size_of(path)
    text = Path(path).read_bytes()
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no tuning table: {error}") from None
    return Table.from_dict(values, str(path))


def save(table: Table, path: str | os.PathLike[str]) -> None:
    """Write a table, whole or not at all; its folder must exist.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "mine.json"
    >>> table = in_force(of_cpu())
    >>> save(table, file)
    >>> load(file).name == table.name
    True
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(table.as_dict(), indent=1) + "\n")


def of_cpu(isa: str | None = None) -> Identity:
    """This machine with an instruction set, by default the one in force."""
    return _of_cpu(isa or machine.get_isa())


@lru_cache(maxsize=8)
def _of_cpu(isa: str) -> Identity:
    return Identity("cpu", isa, machine.processor(), os.cpu_count() or 1, _cpu.engine)


def path_of(identity: Identity) -> Path:
    """Where ``pycnn tune`` keeps the table of a machine; a later engine's takes the place of an older one's."""
    where = hashlib.sha256(f"{identity.device}\n{identity.cores}".encode()).hexdigest()[:12]
    return cache_folder() / f"tuning-{identity.backend}-{identity.kind}-{where}.json"


# ------------------------------------------------------------------------------------------------- the table in force


class use(Scoped):
    """Say by which tables `auto` chooses: until the end of the ``with`` block, or for good if used without one.

    Args:
        tables: each a `Table` or a file of one, for the backend and instruction set that it was measured for, on
            whatever machine; or the one word "off" for the package's own tables, or "auto" for PYCNN_TUNING and what
            ``pycnn tune`` measured on this machine, as at first.  Where none of the given tables is for what is to be
            chosen, it is as with "auto".

    Raises:
        OSError, ValueError: as `load`; two tables for the same.

    >>> with use("off"):
    ...     in_force(of_cpu("avx2")).source
    'the package'
    """

    first: ClassVar[str | tuple[Table, ...]] = "auto"
    inside = ContextVar("pycnn_tuning", default=None)
    lasting: ClassVar[list[Scoped]] = []

    def __init__(self, *tables: Table | str | os.PathLike[str]) -> None:
        if tables in (("off",), ("auto",)):
            super().__init__(tables[0])
            return
        found = tuple(table if isinstance(table, Table) else load(table) for table in tables)
        if not found or len({table.identity[:2] for table in found}) < len(found):
            raise ValueError("give one table at least, and no two for the same backend and instruction set")
        super().__init__(found)


def in_force(identity: Identity) -> Table:
    """The table by which `auto` chooses on this device.

    Raises:
        ValueError: PYCNN_TUNING names a file that cannot be read or is no table.
    """
    setting = use.value()
    if isinstance(setting, tuple):
        for table in setting:
            if table.covers(identity):
                return table
    return _found(identity, setting == "off")


_asked: dict[tuple[str, str], Identity] = {}  # by backend and kind, the devices for which a table was looked for


def all_in_force() -> list[Table]:
    """The tables of all devices that `auto` has been asked about in this process, the CPU's among them."""
    setting = use.value()
    given = setting if isinstance(setting, tuple) else ()
    found = [in_force(identity) for identity in (of_cpu(), *list(_asked.values()))]
    return list({table.identity[:2]: table for table in (*found, *given)}.values())


def adopt(tables: Sequence[Table]) -> None:
    """Have `auto` choose by these tables from now on, as `use` does, unless those in force choose alike already.

    Args:
        tables: of another run, such as a checkpoint's.
    """

    def now(table: Table) -> Table:
        backend, kind = table.identity[:2]
        unknown = Identity(backend, kind, "", 0, "")
        return in_force(of_cpu(kind) if backend == "cpu" else _asked.get((backend, kind), unknown))

    if any(now(table).name != table.name for table in tables):
        use(*tables)


def forget() -> None:
    """Look at PYCNN_TUNING, and into the cache folder, again."""
    _found.cache_clear()


@lru_cache(maxsize=64)
def _found(identity: Identity, off: bool) -> Table:
    _asked[identity[:2]] = identity
    named = "off" if off else os.environ.get("PYCNN_TUNING", "")
    if named and named != "off":
        try:
            table = load(named)
        except (OSError, ValueError) as error:
            raise ValueError(f"PYCNN_TUNING must be off or a file that `pycnn tune` wrote: {error}") from None
        if table.covers(identity):
            return table
    found, complaint = (None, "") if named == "off" else _kept(identity)
    if complaint:
        warnings.warn(complaint, stacklevel=2)
    return found or own(identity)


def kept(identity: Identity) -> Table | None:
    """What ``pycnn tune`` left in the cache folder for this device; None where there is nothing or nothing of use."""
    return _kept(identity)[0]


def _kept(identity: Identity) -> tuple[Table | None, str]:
    """The same, and why it is of no use."""
    if not identity.device:
        return None, ""
    try:
        path = path_of(identity)
        table = load(path)
    except (FileNotFoundError, RuntimeError):  # the latter: there is no home
        return None, ""
    except (OSError, ValueError) as error:
        return None, f"ignored, `pycnn tune` writes it anew: {error}"
    if table.identity != identity:
        return None, f"{path} was measured with another build of the engine and is ignored: run `pycnn tune` again"
    return table, ""


def own(identity: Identity) -> Table:
    """The package's table: measured once for each instruction set of the CPU, the mere count of work for GPUs."""
    return _own(identity.backend, identity.kind)


@lru_cache(maxsize=16)
def _own(backend: str, kind: str) -> Table:
    if backend == "cuda":
        return Table(Identity(backend, kind, "", 0, ""), 1, {}, source="counted work, not calibrated")
    values = json.loads((Path(__file__).parent / "tables" / f"{backend}_{kind}.json").read_bytes())
    return Table.from_dict(values, "the package")


# ---------------------------------------------------------------------------------------------------------- the choice


def choose(
    table: Table, operator: str, problem: str, candidates: Sequence[Candidate], barred: Mapping[str, str]
) -> tuple[str, str]:
    """What `auto` takes among `candidates`, at least one, and the sentence saying why.

    Args:
        table: measured times and coefficients.
        operator: the pass.
        problem: its string, under which `table` may have times.
        candidates: what can run it; of equals the first is taken.
        barred: other names with the reason why they cannot be taken.
    """
    times = table.measured.get(problem)
    names = [candidate.name for candidate in candidates]
    if times is not None and any(name in times for name in names):
        return _measured(times, names, barred)
    seconds = {candidate.name: table.seconds(operator, candidate) for candidate in candidates}
    judged = {candidate.name: seconds[candidate.name] * candidate.handicap for candidate in candidates}
    taken = min(judged, key=judged.__getitem__)
    if len(names) == 1:
        return taken, "the only one that can be taken"
    fastest = min(seconds, key=seconds.__getitem__)
    if fastest != taken:
        saved = f"{fastest}'s {duration(seconds[fastest])} are too little less for its larger error"
        return taken, f"predicted {duration(seconds[taken])}; {saved}"
    next_best = min((name for name in names if name != taken), key=seconds.__getitem__)
    rest = f"; next is {next_best} with {duration(seconds[next_best])}"
    return taken, f"predicted {duration(seconds[taken])}, the least{rest}"


def _measured(times: Mapping[str, float], names: Sequence[str], barred: Mapping[str, str]) -> tuple[str, str]:
    known = [name for name in names if name in times]
    taken = min(known, key=times.__getitem__)
    why = f"measured {duration(times[taken])} on this very problem, the least of {len(known)}"
    fastest = min(times, key=times.__getitem__)
    if times[fastest] < times[taken]:
        why += (
            f"; {fastest}'s {duration(times[fastest])} are not to be had: {barred.get(fastest, 'it cannot run here')}"
        )
    return taken, why


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(0.0123), duration(4.56e-05), duration(float("inf"))
    ('12.3 ms', '45.6 us', 'unknown')
    """
    if math.isinf(seconds):
        return "unknown"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
