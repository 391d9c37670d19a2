"""Seeded bugs of the family of activations: functions exchanged, settings, sides of a choice, launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, InHost, InKernel, InLaunch, block_too_small, grid_too_small, swapped

SOURCE = "activation.cu"


class Chosen(NamedTuple):
    """A call whose result is exact, so that every right backend has the same bits."""

    call: Callable[[Any], np.ndarray]
    source: str = SOURCE

    def results(self, backend: Any) -> list[np.ndarray]:
        """What it returns."""
        return [self.call(backend)]


def quarters(*shape: int, seed: int = 1) -> np.ndarray:
    """Multiples of a quarter up to 8, on which the sides of a choice meet."""
    return (np.random.default_rng(seed).integers(-32, 33, shape) / 4).astype(np.float32)


X, DY = quarters(3, 1, 5, 211), quarters(3, 1, 5, 211, seed=2)
NANS = np.where(X == 1, np.nan, X)
SIXES = 6 * X  # whole after a division by six

CASES: dict[str, Any] = {
    "leaky": Chosen(lambda b: b.activation_fwd(NANS, "leaky_relu", 0.25)),
    "leaky backward": Chosen(lambda b: b.activation_bwd(DY, NANS, "leaky_relu", 0.25)),
    "hardtanh": Chosen(lambda b: b.activation_fwd(NANS, "hardtanh", -1.5, 2.0)),
    "hardtanh backward": Chosen(lambda b: b.activation_bwd(DY, NANS, "hardtanh", -1.5, 2.0)),
    "threshold": Chosen(lambda b: b.activation_fwd(NANS, "threshold", 1.5, -9.0)),
    "shrink": Chosen(lambda b: b.activation_fwd(NANS, "hardshrink", 1.5)),
    "huber": Chosen(lambda b: b.activation_fwd(NANS, "huber", 1.5, 2.0)),
    "huber backward": Chosen(lambda b: b.activation_bwd(DY, NANS, "huber", 1.5, 2.0)),
    "hardswish backward": Chosen(lambda b: b.activation_bwd(DY, np.where(abs(X) < 3, 0, X), "hardswish")),
    "hardsigmoid backward": Chosen(lambda b: b.activation_bwd(SIXES, X, "hardsigmoid")),
    "softplus far": Chosen(lambda b: b.activation_fwd(abs(X) + 1, "softplus", 2.0, 1.0)),
}


def _settings_turned(pack: Any) -> Any:
    """The first two settings change places; other numbers stay."""
    return lambda *values: pack(values[1], values[0], *values[2:]) if len(values) == 3 else pack(*values)


BUGS: dict[str, Bug] = {
    "leaky_relu scales the wrong side": InKernel(
        SOURCE, "x > 0.0f ? x : x * s.a", "x < 0.0f ? x : x * s.a", CASES["leaky"]
    ),
    "leaky_relu's gradient loses its slope": InKernel(
        SOURCE, "x > 0.0f ? dy : dy * s.a", "x > 0.0f ? dy : 0.0f", CASES["leaky backward"]
    ),
    "a limit swallows NaN": InKernel(SOURCE, "x = x < low ? low : x;", "x = x >= low ? x : low;", CASES["hardtanh"]),
    "the gradient passes at an upper bound": InKernel(
        SOURCE, "x <= s.a || x >= s.b", "x <= s.a || x > s.b", CASES["hardtanh backward"]
    ),
    "threshold is met": InKernel(SOURCE, "x <= s.a ? s.b : x", "x < s.a ? s.b : x", CASES["threshold"]),
    "hardshrink of one side": InKernel(
        SOURCE, "return fabsf(x) <= s.a ? 0.0f : x", "return x <= s.a ? 0.0f : x", CASES["shrink"]
    ),
    "huber's line starts too high": InKernel(SOURCE, "size - 0.5f * s.a", "size - s.a", CASES["huber"]),
    "huber's slope is not scaled": InKernel(
        SOURCE, "dy * (s.b * clamped(x, -s.a, s.a))", "dy * clamped(x, -s.a, s.a)", CASES["huber backward"]
    ),
    "the functions are one off": InKernel(SOURCE, "function != op", "function != op + 1", CASES["threshold"]),
    "softplus compares without its factor": InKernel(SOURCE, "x * s.a > s.b ? x", "x > s.b ? x", CASES["softplus far"]),
    "settings packed in another order": InHost(
        "pycnn.backends.cuda.activation.pack_float32", _settings_turned, CASES["hardtanh"]
    ),
    "dy and x change places": InLaunch(swapped(3, 4), CASES["leaky backward"]),
    "a block is missing": InLaunch(grid_too_small, CASES["huber"]),
    "half of the threads": InLaunch(block_too_small, CASES["huber"]),
}

FAST = ("threshold is met", "settings packed in another order")
