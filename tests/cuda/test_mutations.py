"""Seeded bugs in the kernels and their host code: the nets must catch every one.

A mutation is a small edit of a kernel source or of the host code.  The nets are the simulator with threads ascending,
descending and shuffled, and the PTX interpreter; a net catches a bug by a wrong result or by reporting a fault.  The
table of who caught what is printed at the end (``pytest -rP tests/cuda/test_mutations.py`` or ``-s`` shows it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pycnn.backends import _cuda_direct, _layout, reference
from pycnn.backends._device import Argument, Device, Extent, Reads
from pycnn.backends.cuda import Host
from pycnn.backends.device_sim import SimDevice, SimulationError
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import Sources, installed
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import exact_operands, run
from pycnn.testing.ptx import PtxDevice, PtxError

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]

KERNEL, POOL, HEADER = "conv2d_fprop_direct.cu", "pool2d.cu", "common.cuh"


class Convolution(NamedTuple):
    """A convolution by one algorithm."""

    algo: str
    problem: str
    source: str = KERNEL

    def results(self, backend: Any) -> list[np.ndarray]:
        """y, on integers."""
        problem = Problem.parse(self.problem)
        operands = exact_operands(problem, self.algo)
        return [run(backend, problem, operands, "auto" if backend is reference else self.algo)]


class Pooling(NamedTuple):
    """A pooling operator with uneven windows, tails everywhere, NaN and equal maxima."""

    operator: str
    source: str = POOL

    def results(self, backend: Any) -> list[np.ndarray]:
        """What it returns, on integers that every divisor divides."""
        rng = np.random.default_rng(0)
        x = 36 * rng.integers(-1, 2, (2, 3, 9, 10)).astype(np.float32)
        x[0, 0, 2:4, 3], x[1, 2] = np.nan, -np.inf
        over = ((2, 2), (1, 1), (1, 1, 1, 1), (10, 4))  # some of its windows step over the whole image
        window = ((3, 2), (2, 1), (1, 0, 0, 1))
        _, indices = reference.max_pool2d_fwd(x, *window, (1, 2), False)
        finite = np.nan_to_num(x, neginf=-72)
        dy = 36 * rng.integers(-9, 10, indices.shape).astype(np.float32)
        even = 36 * rng.integers(-9, 10, (2, 3, 4, 3)).astype(np.float32)
        padded = self.operator.endswith("padded")
        averaging = (padded, padded, None)
        result = {
            "max": lambda: backend.max_pool2d_fwd(x, *window, (1, 2), False),
            "max backward": lambda: backend.max_pool2d_bwd(dy, indices, x.shape, *window, (1, 2)),
            "max of nothing": lambda: backend.max_pool2d_fwd(x, *over, False),
            "take": lambda: backend.plane_take(x, np.where(indices == 0, -1, indices)),
            "average": lambda: backend.avg_pool2d_fwd(finite, *window, *averaging),
            "average padded": lambda: backend.avg_pool2d_fwd(finite, *window, *averaging),
            "average backward": lambda: backend.avg_pool2d_bwd(dy[..., :9], (2, 3, 9, 9), *window, *averaging),
            "adaptive backward": lambda: backend.adaptive_avg_pool2d_bwd(even, x.shape),
        }[self.operator]()
        return list(result) if isinstance(result, tuple) else [result]


Case = Convolution | Pooling

# Two channel stages, three tiles of filters and two by two of pixels, tails everywhere; groups; strides that differ.
TILED = Convolution("direct_r3s3_st1_8x8", "n2c9h9w10_k130r3s3_pd1")
GROUPS = Convolution("direct_r3s3_st1_8x8", "n1c18h9w9_k140r3s3_pd1g2")
ANY = Convolution("direct_any_narrow", "n2c12h9w30_k66r2s3_st2x1pd0.1.2.3dl1x2g2")
DGRAD_KERNEL, DIRECT = "conv2d_dgrad_direct.cu", "direct.cuh"
DGRAD = Convolution("direct_narrow", "n2c35h9w14_k19r3s4_st2x3pd1.0.2.1dl1x2_dgrad", DGRAD_KERNEL)
DGRAD_GROUPS = Convolution("direct_narrow", "n1c6h7w7_k8r3s3_st2pd1g2_dgrad", DGRAD_KERNEL)
POOLS = {
    name: Pooling(name)
    for name in (
        *("max", "max of nothing", "max backward", "take"),
        *("average", "average padded", "average backward", "adaptive backward"),
    )
}

# name: (file, before, after, what to run it on)
IN_THE_KERNEL = {
    "no barrier after staging": (KERNEL, "block, w, c0);\n        __syncthreads();", "block, w, c0);", TILED),
    "no barrier before the next stage": (
        KERNEL,
        "            }\n        }\n        __syncthreads();\n    }\n\n    // Store",
        "            }\n        }\n    }\n\n    // Store",
        TILED,
    ),
    "barrier that some threads skip": (
        KERNEL,
        "block, w, c0);\n        __syncthreads();",
        "block, w, c0);\n        if (threadIdx.x < 96) __syncthreads();",
        TILED,
    ),
    "halo one row too low": (KERNEL, "const int h = h0 + row", "const int h = h0 + row + 1", TILED),
    "halo one column short": (
        KERNEL,
        "(tile_q() - 1) * stride_w + S; }",
        "(tile_q() - 1) * stride_w + S - 1; }",
        TILED,
    ),
    "no guard on the right edge": (KERNEL, "if (q >= Q) return;", "", TILED),
    "no guard on the bottom edge": (KERNEL, "if (p + i < P) out", "out", TILED),
    "no guard on the last filter": (KERNEL, "if (filter + k >= group_filters) break;", "", TILED),
    "no guard on the last channel": (KERNEL, "c0 + c < group_channels && ", "", TILED),
    "padding left unwritten": (DIRECT, "if (first + j * threads < count) store", "if (value[j] != 0) store", TILED),
    "groups forgotten in w": (KERNEL, "block.group) * group_filters + block.k0", "0) + block.k0", GROUPS),
    "bias of the first group": (KERNEL, "b[channel + k]", "b[filter + k]", GROUPS),
    "bias forgotten": (KERNEL, "sum[i][k] + bias;\n        out", "sum[i][k];\n        out", TILED),
    "swapped strides": (
        KERNEL,
        "p * static_cast<Index>(shape.stride_h)",
        "p * static_cast<Index>(shape.stride_w)",
        ANY,
    ),
    "dilation forgotten": (KERNEL, "s * static_cast<Index>(shape.dilation_w)", "s", ANY),
    "one tap too few": (KERNEL, "for (int t = 0; t < staged; ++t) {", "for (int t = 0; t + 1 < staged; ++t) {", ANY),
    "no guard on the last pixel": (KERNEL, "if (pixel < pixels) y", "y", ANY),
    "loop that never ends": (KERNEL, "tap0 < all_taps; tap0 += T.taps", "tap0 < all_taps; tap0 += 0 * T.taps", ANY),
    "dgrad: taps of the wrong class": (
        DGRAD_KERNEL,
        "h_padded % stride_h)",
        "h0 % stride_h)",
        DGRAD,
    ),
    "dgrad: taps of a class next to each other": (
        DGRAD_KERNEL,
        "take_digit(k, grid.taps_w) * step_w",
        "take_digit(k, grid.taps_w)",
        DGRAD,
    ),
    "dgrad: no guard on the last tap": (
        DGRAD_KERNEL,
        "k < group_filters && r < R && s < S",
        "k < group_filters",
        DGRAD,
    ),
    "dgrad: no barrier before the weights are staged": (
        DGRAD_KERNEL,
        "dp, dq};\n        }\n        __syncthreads();",
        "dp, dq};\n        }",
        DGRAD,
    ),
    "dgrad: no barrier before the next stage": (
        DGRAD_KERNEL,
        "            }\n        }\n        __syncthreads();\n    }\n\n#pragma unroll\n    for (int c = 0",
        "            }\n        }\n    }\n\n#pragma unroll\n    for (int c = 0",
        DGRAD,
    ),
    "dgrad: groups forgotten in dy": (
        DGRAD_KERNEL,
        "n * shape.K + group * group_filters)",
        "n * shape.K)",
        DGRAD_GROUPS,
    ),
    "dgrad: row of a class taken for the image's": (
        DGRAD_KERNEL,
        "static_cast<int64>(row[i]) * stride_h",
        "static_cast<int64>(row[i])",
        DGRAD,
    ),
    "dgrad: no guard on the last column": (
        DGRAD_KERNEL,
        "h < shape.H && column_w < shape.W",
        "h < shape.H",
        DGRAD,
    ),
    "unsigned test forgotten": (HEADER, "static_cast<uint32>(i) < static_cast<uint32>(n)", "i < n", ANY),
    "last of equal maxima": (POOL, "value > best", "value >= best", POOLS["max"]),
    "NaN loses": (POOL, " || is_nan", "", POOLS["max"]),
    "maximum that starts from zero": (POOL, "-positive_infinity()", "0", POOLS["max of nothing"]),
    "minus infinity is no maximum": (POOL, "index < 0 || value > best", "value > best", POOLS["max"]),
    "window not clipped at the far edge": (POOL, "end < size ? end : size", "end", POOLS["max"]),
    "padding forgotten before the image": (POOL, "while (begin < 0) begin += step;", "", POOLS["average"]),
    "no guard on the last plane": (POOL, "if (place.plane >= shape.planes) return;", "", POOLS["max"]),
    "first window one too late": (POOL, "beyond + stride - 1", "beyond + stride", POOLS["max backward"]),
    "last window forgotten": (POOL, "axis.stride) + 1;", "axis.stride);", POOLS["average backward"]),
    "gradient to every pixel of its window": (POOL, "if (indices[window] == pixel) sum", "sum", POOLS["max backward"]),
    "dilation forgotten in the gather": (
        POOL,
        "- 1) * static_cast<Index>(axis.dilation)",
        "- 1)",
        POOLS["max backward"],
    ),
    "index -1 is read": (POOL, "if (inside(index, pixels)) value", "value", POOLS["take"]),
    "plane of the output in the input": (POOL, "x[place.plane * pixels + index]", "x[index]", POOLS["take"]),
    "divisor beyond the padding": (
        POOL,
        "(end < most ? end : most) - begin",
        "end - begin - 1",
        POOLS["average padded"],
    ),
    "padding counted": (POOL, "averaging.count_include_pad == 0", "false", POOLS["average"]),
    "adaptive windows do not overlap": (
        POOL,
        " + static_cast<Index>(count.value) - 1;",
        ";",
        POOLS["adaptive backward"],
    ),
}


class Tampered:
    """A device whose launches are changed on the way."""

    def __init__(self, device: Device, change: Callable[..., tuple]) -> None:
        self._device = device
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def launch(self, kernel: Any, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        self._device.launch(kernel, *self._change(grid, block, shared, list(arguments)))


def argument_order(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    arguments[2], arguments[3] = arguments[3], arguments[2]
    return grid, block, shared, arguments


def grid_too_small(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    return (grid[0] - 1, 1, 1), block, shared, arguments


def block_too_small(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    return grid, (block[0] // 2, 1, 1), shared, arguments


def missing_argument(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    return grid, block, shared, [argument for argument in arguments if getattr(argument, "name", "") != "b"]


def output_taken_for_an_input(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    return grid, block, shared, [*arguments[:-1], Reads("y", arguments[-1].array)]


def unsorted_arguments(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    return grid, block, shared, [arguments[0], arguments[2], arguments[1], *arguments[3:]]


IN_THE_LAUNCH = {
    "argument order": (argument_order, TILED),
    "grid too small": (grid_too_small, TILED),
    "block too small": (block_too_small, TILED),
    "missing argument": (missing_argument, TILED),
    "output passed as an input": (output_taken_for_an_input, TILED),
    "gradient taken for indices": (unsorted_arguments, POOLS["max backward"]),
    "half of every block of a pooling": (block_too_small, POOLS["max"]),
}


def swap_divisors(plan: _cuda_direct.Plan) -> _cuda_direct.Plan:
    return dataclasses.replace(plan, geometry=plan.geometry[16:32] + plan.geometry[:16] + plan.geometry[32:])


def wrong_pad(shape: Conv2dShape) -> bytes:
    top, bottom, left, right = shape.padding
    return _layout.pack_conv2d_shape(dataclasses.replace(shape, padding=(top, bottom, right, left)))


IN_THE_PLAN = {
    "divisors in the wrong order": ("_tiled", lambda call: lambda *given: swap_divisors(call(*given)), TILED),
    "right padding for the left": ("pack_conv2d_shape", lambda call: wrong_pad, ANY),
}

NETS = ("forward", "reverse", "random", "ptx")
TABLE: dict[str, dict[str, str]] = {}


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    width = max(map(len, TABLE), default=0)
    print(f"\n{'seeded bug':{width}}  " + "  ".join(f"{net:8}" for net in NETS))
    for name, caught in TABLE.items():
        print(f"{name:{width}}  " + "  ".join(f"{caught[net]:8}" for net in NETS))


def device(net: str, sources: Sources) -> Device:
    if net == "ptx":
        return PtxDevice(sources=sources, patience=20_000)
    return SimDevice(order=net, seed=3, sources=sources, options=("-Wno-error",), patience=1)


def verdict(net: str, sources: Sources, case: Case, change: Callable[..., tuple] | None = None) -> str:
    """How a net sees the code: "right", "wrong" (result), or "fault"."""
    place = device(net, sources)
    host = Host(Tampered(place, change) if change else place, sources)  # type: ignore[arg-type]
    try:
        found = case.results(Simulated(host))
    except (SimulationError, PtxError):
        return "fault"
    pairs = zip(found, case.results(reference), strict=True)
    return "right" if all(np.array_equal(*pair, equal_nan=True) for pair in pairs) else "wrong"


def hold(name: str, verdicts: dict[str, str]) -> None:
    TABLE[name] = {net: "-" if seen == "right" else seen for net, seen in verdicts.items()}
    assert set(verdicts.values()) != {"right"}, f"no net caught: {name}"


@pytest.mark.parametrize("case", [TILED, GROUPS, ANY, DGRAD, DGRAD_GROUPS, *POOLS.values()], ids=lambda case: case[0])
@pytest.mark.parametrize("net", NETS)
def test_unchanged_code_is_right(net: str, case: Case) -> None:
    assert verdict(net, installed(), case) == "right"


@pytest.mark.parametrize("name", IN_THE_KERNEL)
def test_bug_in_the_kernel_is_caught(name: str, tmp_path: Path) -> None:
    file, before, after, case = IN_THE_KERNEL[name]
    for source in (*installed().closure(case.source), "instances.toml"):
        text = (installed().folder / source).read_text()
        if source == file:
            assert before in text, f"the code that {name!r} changes is no longer there"
            text = text.replace(before, after, 1)
        (tmp_path / source).write_text(text)
    sources = Sources(tmp_path)
    hold(name, {net: verdict(net, sources, case) for net in NETS})


@pytest.mark.parametrize("name", IN_THE_LAUNCH)
def test_bug_in_the_launch_is_caught(name: str) -> None:
    change, case = IN_THE_LAUNCH[name]
    hold(name, {net: verdict(net, installed(), case, change) for net in NETS})


@pytest.mark.parametrize("name", IN_THE_PLAN)
def test_bug_in_the_plan_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, change, case = IN_THE_PLAN[name]
    module = "pycnn.backends.cuda" if function == "pack_conv2d_shape" else "pycnn.backends._cuda_direct"
    original = getattr(_layout if function == "pack_conv2d_shape" else _cuda_direct, function)
    monkeypatch.setattr(f"{module}.{function}", change(original))
    hold(name, {net: verdict(net, installed(), case) for net in NETS})
