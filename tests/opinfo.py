"""PyTorch's own samples of its operators (OpInfo), run through pycnn: values, gradients and what must be refused.

torch is the oracle, forward and backward.  `python tests/opinfo.py` runs every sample and prints the counts.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from unittest import mock

import numpy as np
import torch

import pycnn
from pycnn import functional as F
from pycnn.tensor import Tensor

# Importing torch's tests forbids the whole process to set its flags, which others here do.
with mock.patch.object(torch.backends, "disable_global_flags"):
    from torch.testing._internal.common_methods_invocations import op_db

Function = Callable[..., Any]

BY_NAME = {info.name + (f"|{info.variant_test_name}" if info.variant_test_name else ""): info for info in op_db}
DTYPES = torch.float32, torch.float64


def _method(name: str) -> Function:
    """The method of a Tensor; what is no tensor has none, which is refusal enough."""

    def call(x: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} of {type(x).__name__}")
        return getattr(x, name)(*args, **options)

    return call


# Where name or arguments are not the same on both sides.
OWN: dict[str, Function] = {
    "T": lambda x: x.T,
    "where": lambda x, condition, other: F.where(condition, x, other),
    "zero_": lambda x: x.clone().zero_(),
}


# Not compared: windows of one dimension, which share their name with ours of images; and samples that are random, or of
# inputs without channels, nearly all.
OTHERS = {
    "unfold",
    "nn.functional.feature_alpha_dropout|with_train",
}


def _operators() -> dict[str, Function]:
    """What of OpInfo pycnn has: functions of the same name, else methods of Tensor."""
    found = {}
    for name in BY_NAME:
        base = name.partition("|")[0]
        short = base.removeprefix("nn.functional.")
        if name in OTHERS:
            continue
        if name in OWN:
            found[name] = OWN[name]
        elif short in F.__all__ and (base != short or not hasattr(Tensor, short)):
            found[name] = getattr(F, short)
        elif base == short and hasattr(Tensor, short) and not short.startswith("_"):
            found[name] = _method(short)
    return found


OPERATORS = _operators()


WITH_P = {"nn.functional.normalize", "nn.functional.pairwise_distance"}
OF_NO_SCALAR = {"nn.functional.normalize", "nn.functional.cosine_similarity", "nn.functional.multi_margin_loss"}


def reason_to_skip(name: str, sample: Any) -> str | None:
    """Why torch's answer to a sample cannot be ours; None for nearly all."""
    if "dropout" in name and sample.kwargs.get("training", "alpha" not in name) and 0 < sample.kwargs.get("p", 0.5) < 1:
        return "random numbers of another generator"
    if name in WITH_P and sample.kwargs.get("p", 2) <= 0:
        return "a norm of no positive p is refused"
    if name in OF_NO_SCALAR and sample.input.ndim == 0:
        return "a scalar, which has no dimension to go along, is refused"
    if name == "nn.functional.batch_norm" and sample.input.ndim < 2:
        return "an input without a dimension of channels is refused"
    if name.endswith("_norm") and sample.kwargs.get("eps", 0) < 0:
        return "a negative eps is refused"
    return None


# What torch refuses and pycnn takes, by operator and a piece of the sample's description.
TAKEN: dict[tuple[str, str], str] = {
    ("maximum", "int64[3], [2]"): "a number is taken as a tensor of one element",
    ("minimum", "int64[3], [2]"): "a number is taken as a tensor of one element",
    ("mean", "int64[3, 4, 5]"): "integers have a floating mean",
}

# Tolerances in float32 and float64: sums of up to some thousand terms in another order are a hundred roundings.
NEAR = 1.2e-5, 2.2e-14
COARSE = {
    "nn.functional.normalize": (1.2e-5, 1e-12),  # a gradient that cancels, over the norm's p-th root
    "nn.functional.hardsigmoid": (1.2e-5, 1e-7),  # torch multiplies float64 gradients by a sixth in float32
    "nn.functional.layer_norm": (4e-4, 1e-12),  # one element has no variance, and 1/sqrt(eps) = 316 of each rounding
}


@dataclass
class Count:
    """What became of the samples of one operator, and of what it must refuse."""

    passed: int = 0
    refused: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All of them."""
        return self.passed + self.refused + self.skipped.total() + self.taken.total() + len(self.failed)


def ours(value: Any) -> Any:
    """An argument of torch's as pycnn takes it: tensors become Tensors that own their elements."""
    if isinstance(value, torch.Tensor):
        tensor = Tensor(value.detach().resolve_neg().numpy().copy())
        return tensor.requires_grad_() if value.requires_grad else tensor
    if isinstance(value, torch.memory_format):
        return getattr(pycnn, str(value).removeprefix("torch."), None)
    if isinstance(value, torch.dtype):
        return np.dtype(str(value).removeprefix("torch."))
    if isinstance(value, (list, tuple)):
        return type(value)([ours(one) for one in value]) if type(value) in (list, tuple) else tuple(map(ours, value))
    if isinstance(value, dict):
        return {name: ours(one) for name, one in value.items()}
    return value


def _flat(value: Any) -> list[Any]:
    """All that a call gave, or was given, in order."""
    if isinstance(value, (list, tuple)):
        return [one for part in value for one in _flat(part)]
    if isinstance(value, dict):
        return _flat(list(value.values()))
    return [value]


def _arrays(result: Any) -> list[np.ndarray]:
    return [
        one.detach().numpy() if isinstance(one, (torch.Tensor, Tensor)) else np.asarray(one) for one in _flat(result)
    ]


def _compare(what: str, found: np.ndarray, expected: np.ndarray, nears: tuple[float, float]) -> None:
    if found.shape != expected.shape:
        raise AssertionError(f"{what}: shape {found.shape}, not {expected.shape}")
    if found.dtype != expected.dtype:
        raise AssertionError(f"{what}: dtype {found.dtype}, not {expected.dtype}")
    if expected.dtype.kind != "f":
        if not np.array_equal(found, expected):
            raise AssertionError(f"{what}: other values")
        return
    near = nears[expected.dtype.itemsize == 8]
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=1))
    np.testing.assert_allclose(found, expected, rtol=near, atol=near * largest, err_msg=what)


def check(name: str, sample: Any) -> None:
    """One sample: values, then the gradients of a random combination of them.  Raises AssertionError, or as pycnn."""
    info, function, near = BY_NAME[name], OPERATORS[name], COARSE.get(name, NEAR)
    given = [sample.input, sample.args, sample.kwargs]
    mine = ours(given)
    expected = info(sample.input, *sample.args, **sample.kwargs)
    found = function(mine[0], *mine[1], **mine[2])
    theirs, results = _flat(expected), _flat(found)
    if len(theirs) != len(results):
        raise AssertionError(f"{len(results)} results, not {len(theirs)}")
    for i, (a, b) in enumerate(zip(_arrays(results), _arrays(theirs), strict=True)):
        _compare(f"result {i}", a, b, near)
    pairs = [
        (a, b)
        for a, b in zip(results, theirs, strict=True)
        if isinstance(b, torch.Tensor) and b.requires_grad and b.is_floating_point()
    ]
    leaves = [
        (a, b)
        for a, b in zip(_flat(mine), _flat(given), strict=True)
        if isinstance(b, torch.Tensor) and b.requires_grad
    ]
    if not pairs or not leaves:
        return
    generator = torch.Generator().manual_seed(0)
    slopes = [torch.randn(b.shape, generator=generator, dtype=b.dtype) for _, b in pairs]
    right = torch.autograd.grad([b for _, b in pairs], [b for _, b in leaves], slopes, allow_unused=True)
    total: Any = None
    for (a, _), slope in zip(pairs, slopes, strict=True):
        part = (a * Tensor(slope.numpy())).sum()
        total = part if total is None else total + part
    if total.requires_grad:  # else it was rounded, and torch's gradients are zeros
        total.backward()
    for i, ((a, b), slope) in enumerate(zip(leaves, right, strict=True)):
        wanted = torch.zeros_like(b) if slope is None else slope
        got = np.zeros(a.shape, a.dtype) if a.grad is None else a.grad.data
        _compare(f"gradient of argument {i}", np.asarray(got), wanted.detach().numpy(), near)


def samples(name: str, most: int | None = None) -> list[Any]:
    """Those of one operator in float32 and float64, the same each time; `most` of each, spread over the first many."""
    info, found = BY_NAME[name], []
    for dtype in DTYPES:
        if dtype in info.supported_dtypes("cpu"):
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002 -- OpInfo draws from it, too
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                every = info.sample_inputs("cpu", dtype, requires_grad=info.supports_autograd)
                every = list(every if most is None else islice(every, 30 * most))
            found += every[:: -(-len(every) // most) if most and every else 1]
    return found


def must_refuse(name: str) -> list[Any]:
    """What torch refuses of one operator."""
    info = BY_NAME[name]
    torch.manual_seed(0)
    return [] if info.error_inputs_func is None else [one.sample_input for one in info.error_inputs("cpu")]


def run(name: str, most: int | None = None) -> Count:
    """All samples of an operator, or `most` of each dtype, and all that it must refuse."""
    count = Count()
    with pycnn.use_accuracy("strict"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sample in samples(name, most):
            reason = reason_to_skip(name, sample)
            if reason is not None:
                count.skipped[reason] += 1
                continue
            try:
                check(name, sample)
            except (
                AssertionError,
                ArithmeticError,
                AttributeError,
                LookupError,
                RuntimeError,
                TypeError,
                ValueError,
            ) as e:
                count.failed.append(f"{describe(sample)}: {type(e).__name__}: {' '.join(str(e).split())[:200]}")
            else:
                count.passed += 1
        for sample in must_refuse(name):
            try:
                x, args, options = ours([sample.input, sample.args, sample.kwargs])
                OPERATORS[name](x, *args, **options)
            except (IndexError, RuntimeError, TypeError, ValueError):
                count.refused += 1
                continue
            text = describe(sample)
            taken = [why for (of, part), why in TAKEN.items() if of == name and part in text]
            if taken:
                count.taken[taken[0]] += 1
            else:
                count.failed.append(f"{text}: taken, although torch refuses it")
    return count


def describe(sample: Any) -> str:
    """A sample in a line."""

    def one(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(one, value)) + "]"
        return repr(value)

    settings = "".join(f", {name}={one(value)}" for name, value in sample.kwargs.items())
    return f"{one(sample.input)}, {one(list(sample.args))}{settings}"[:240]


def run_all(names: list[str]) -> Count:
    """All samples of these operators; a line for each that fails, as soon as it does."""
    total = Count()
    for name in names:
        count = run(name)
        for line in count.failed:
            print(f"FAILED {name}: {line}", flush=True)
        total.passed += count.passed
        total.refused += count.refused
        total.skipped.update({f"{name}: {why}": number for why, number in count.skipped.items()})
        total.taken.update({f"{name}: {why}": number for why, number in count.taken.items()})
        total.failed += count.failed
    return total


def markdown(total: Count, operators: int) -> str:
    """The counts and the reasons of what was skipped, as README.md has them."""
    skipped = total.skipped.total() + total.taken.total()
    lines = [
        "| operators | samples | values and gradients agree | refused as torch does | skipped | failed |",
        "|---:|---:|---:|---:|---:|---:|",
        f"| {operators} | {total.total} | {total.passed} | {total.refused} | {skipped} | {len(total.failed)} |",
        "",
    ]
    lines += [f"- {number} skipped: {why}." for why, number in total.skipped.items()]
    lines += [f"- {number} not refused: {why}." for why, number in total.taken.items()]
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> int:
    """Run all samples of these operators, or of all of them; print the counts and what failed."""
    unknown = [name for name in names if name not in OPERATORS]
    if unknown:
        raise SystemExit(f"not among the operators: {', '.join(unknown)}")
    chosen = names or list(OPERATORS)
    total = run_all(chosen)
    print(f"PyTorch {torch.__version__}\n\n{markdown(total, len(chosen))}", end="")
    return bool(total.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
