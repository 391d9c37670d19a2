"""The nets must catch every seeded bug.

The table of which net caught which is printed at the end: ``pytest --slow -rP tests/cuda/test_mutations.py`` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bugs_depthwise
import bugs_direct
import bugs_gemm
import bugs_group_norm
import bugs_halves
import bugs_im2col
import bugs_last
import bugs_ops
import bugs_pointwise
import bugs_pool
import bugs_rectifier
import bugs_sampling
import bugs_tensor
import bugs_tensor_arch
import bugs_wgrad
import bugs_windows
import bugs_winograd
import pytest
from seeded import NETS, Bug, Case, verdict

from pycnn.jit.sources import installed

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]

FAMILIES = {
    "depthwise": bugs_depthwise,
    "direct": bugs_direct,
    "gemm": bugs_gemm,
    "group norm": bugs_group_norm,
    "halves": bugs_halves,
    "im2col": bugs_im2col,
    "channels-last": bugs_last,
    "ops": bugs_ops,
    "pointwise": bugs_pointwise,
    "pool": bugs_pool,
    "rectifier": bugs_rectifier,
    "sampling": bugs_sampling,
    "tensor arch": bugs_tensor_arch,
    "tensor": bugs_tensor,
    "wgrad": bugs_wgrad,
    "windows": bugs_windows,
    "winograd": bugs_winograd,
}

TABLE: dict[str, dict[str, str]] = {}


def every_bug() -> list[Any]:
    return [
        pytest.param(
            f"{family}: {name}", bug, id=f"{family}: {name}", marks=() if name in module.FAST else pytest.mark.slow
        )
        for family, module in FAMILIES.items()
        for name, bug in module.BUGS.items()
    ]


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    width = max(map(len, TABLE), default=0)
    print(f"\n{'seeded bug':{width}}  " + "  ".join(f"{net:8}" for net in NETS))
    for name, caught in TABLE.items():
        print(f"{name:{width}}  " + "  ".join(f"{caught[net]:8}" for net in NETS))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{name}: {key}")
        for name, module in FAMILIES.items()
        for key, case in module.CASES.items()
    ],
)
@pytest.mark.parametrize("net", NETS)
def test_unchanged_code_is_right(net: str, case: Case) -> None:
    assert verdict(net, installed(), case) == "right"


@pytest.mark.parametrize(("name", "bug"), every_bug())
def test_bug_is_caught(name: str, bug: Bug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = bug.verdicts(tmp_path, monkeypatch)
    TABLE[name] = {net: "-" if seen == "right" else seen for net, seen in verdicts.items()}
    assert set(verdicts.values()) != {"right"}, f"no net caught: {name}"
