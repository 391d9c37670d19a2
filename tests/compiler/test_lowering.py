"""Graphs lowered to programs, held to float64 on the played programs and with each instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from graphs import GRAPHS, make

from pycnn.compiler.graph import Graph
from pycnn.compiler.lower import lower
from pycnn.compiler.passes import optimized
from pycnn.compiler.tracer import trace


def graph_of(model: Any, inputs: list[np.ndarray]) -> Graph:
    return optimized(trace(model, [x.shape[1:] for x in inputs]))


def run(graph: Graph, inputs: list[np.ndarray], engine: Any, channels_last: bool) -> list[np.ndarray]:
    """The outputs, which are full of NaN before."""
    batch = inputs[0].shape[0]
    program = lower(graph, batch, engine.lanes(), channels_last).program(engine, {})

    def moved(array: np.ndarray, *axes: int) -> np.ndarray:
        return np.ascontiguousarray(array.transpose(axes)) if channels_last and array.ndim == 4 else array

    outputs = [moved(np.full((batch, *value.shape), np.nan, np.float32), 0, 2, 3, 1) for value in graph.outputs]
    program.run([moved(x, 0, 2, 3, 1) for x in inputs], outputs)
    return [moved(output, 0, 3, 1, 2) for output in outputs]


def close(found: np.ndarray, exact: np.ndarray, message: str) -> None:
    """Within 2^-24 times a few thousand of the largest: the networks here are shallow, and the bound of the layers is
    held in test_compiled.py; what this test looks for, a wrong place in memory, is off by far more."""
    assert found.shape == exact.shape, message
    assert np.isfinite(found).all(), message
    limit = 2e-4 * max(1e-3, float(np.abs(exact).max(initial=0)))
    assert np.abs(found - exact).max(initial=0) <= limit, f"{message}: off by {np.abs(found - exact).max():.3g}"


@pytest.mark.parametrize(("batch", "channels_last"), [(1, False), (3, False), (2, True)])
@pytest.mark.parametrize("name", GRAPHS)
def test_programs_compute_what_the_graph_says(name: str, batch: int, channels_last: bool, engine: Any) -> None:
    model, inputs = make(name, batch)
    graph = graph_of(model, inputs)
    for found, exact in zip(run(graph, inputs, engine, channels_last), oracle.outputs(graph, inputs), strict=True):
        close(found, exact, f"{name}, batch {batch}")
