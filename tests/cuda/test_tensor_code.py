"""Convolution on tensor cores: what NVRTC makes of the kernels, in the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tensor_instances import by_cost, exactly, kind, of

from pycnn.shape import PASSES
from pycnn.testing.ptx import PtxDevice
from pycnn.testing.ptx.machine import Machine

pytestmark = pytest.mark.simulator


# Tails, groups and more tiles of gemm_k than stages, as small as they come.
PTX = {
    "fprop": "n1c36h5w6_k10r3s2_st2x1pd1.0.2.1dl1x2g2",
    "dgrad": "n1c10h5w7_k64r3s2_st2x1pd1.0.2.1dl1x2g2",
    "wgrad": "n2c16h9w9_k12r3s2_st1x1pd1.0.2.1dl1x2g2",
}
INTERPRETED = {
    "f16_64x64": ("sm_75", "sm_90a"),
    "f16_strided_64x64": ("sm_75", "sm_90a"),
    "bf16_64x64": ("sm_90a",),
    "bf16_strided_64x64": ("sm_90a",),
    "tf32_64x64": ("sm_90a",),
    "tf32_strided_64x64": ("sm_90a",),
    "3xtf32_64x64": ("sm_90a",),
    "3xtf32_strided_64x64": ("sm_90a",),
    "3xfp16_64x64": ("sm_90a",),
    "3xfp16_strided_64x64": ("sm_90a",),
}


@pytest.mark.nvrtc
@pytest.mark.parametrize("instance", [pytest.param(name, marks=by_cost(name)) for name in INTERPRETED])
@pytest.mark.parametrize("operator", PASSES)
def test_ptx_is_exact(operator: str, instance: str) -> None:
    problem = of(instance, PTX[operator], operator)
    for arch in INTERPRETED[instance]:
        device = PtxDevice(arch)
        assert exactly(instance, problem, device)
        assert f"conv2d_{operator}_tensor[{instance}]" in map(str, device.launches)


def times_to_a_bank(addresses: np.ndarray, lanes: np.ndarray, size: int, matrices: bool) -> int:
    """How often an access of these lanes goes to one bank at most: a warp's by 128 bytes, a matrix's by its rows."""
    together = lanes // (8 if matrices else 128 // max(size, 4))
    most = 0
    for part in np.unique(together):
        words = np.unique(addresses[together == part][:, None] // 4 + np.arange(max(size // 4, 1)))
        most = max(most, int(np.bincount(words % 32).max()))
    return most


@pytest.mark.nvrtc
@pytest.mark.parametrize(
    "instance",
    [
        *("f16_64x64", "3xtf32_64x64"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("f16_strided_64x64", "3xtf32_strided_64x64")),
    ],
)
@pytest.mark.parametrize("operator", PASSES)
def test_copies_and_fragments_meet_no_bank_twice(operator: str, instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, int] = {}
    memory = Machine.memory

    def watched(self: Machine, instruction: Any, space: str, addresses: np.ndarray, size: int, writing: bool) -> Any:
        if space == "shared":
            name = instruction.text.split()[0]
            times = times_to_a_bank(addresses, np.asarray(self.active), size, "ldmatrix" in name)
            found[name] = max(found.get(name, 0), times)
        return memory(self, instruction, space, addresses, size, writing)

    monkeypatch.setattr(Machine, "memory", watched)
    assert exactly(instance, of(instance, PTX[operator], operator), PtxDevice("sm_90a"))
    alone = "ld.shared.u32" if kind(instance).vectors else "none"  # fragments across; else places in the ring too
    for name, times in found.items():
        if name.startswith(("ldmatrix", "st.shared.v4", alone)) or (name.startswith("cp.async") and ".cg." in name):
            assert times == 1, name
        if name.startswith("cp.async") and ".ca." in name:
            assert times == 4, name
    assert any(name.startswith(("ldmatrix", "cp.async", "st.shared.v4")) for name in found)
