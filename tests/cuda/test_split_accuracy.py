"""How accurate the precisions are beside float32's own sums: the README's table, which ``-s`` prints."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import DEVICES

from pycnn import use_precision
from pycnn.shape import Problem
from pycnn.testing import float_operands, magnitudes, oracle, run

pytestmark = pytest.mark.simulator

# The root mean square error, by that of float32's own sums: least and most that is allowed.  Split products leave out
# 3 * 2^-22 of a product and add up a sixteenth as often; tf32 rounds operands to 2^-11, some 10^3 times float32's unit.
RATIOS = {"3xtf32": (0.2, 1.5), "3xfp16": (0.2, 1.0), "tf32": (50.0, 2000.0)}


@pytest.mark.parametrize("kind", ["normal", "positive"])
@pytest.mark.parametrize("text", ["n1c64h14_k64r3_pd1", "n1c256h8_k64r3_pd1"])
def test_error_beside_float32(text: str, kind: str) -> None:
    problem = Problem.parse(text)
    operands = float_operands(problem)
    operands = operands if kind == "normal" else magnitudes(operands)
    y64 = oracle(problem, operands)

    def error(precision: str, algo: str) -> float:
        with use_precision(precision):
            return float(np.sqrt(np.mean((run(DEVICES["forward"], problem, operands, algo) - y64) ** 2)))

    plain = error("float32", "im2col_implicit_64x64")
    for precision, (least, most) in RATIOS.items():
        ratio = error(precision, f"im2col_tensor_{precision}_strided_64x64") / plain
        print(f"{text} {kind:8} {precision:6} {ratio:8.2f}")
        assert least <= ratio <= most
