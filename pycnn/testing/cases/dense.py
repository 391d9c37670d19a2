"""Matrix products."""

from __future__ import annotations

from pycnn.testing.cases.operands import Case, whole

__all__ = ["CASES"]


CASES: tuple[Case, ...] = (
    Case("gemm", "integers", lambda: (whole(37, 65), whole(65, 21, seed=1), False, False)),
    Case("gemm", "transposed", lambda: (whole(65, 37), whole(21, 65, seed=1), True, True)),
    Case("gemm", "first transposed", lambda: (whole(72, 40), whole(72, 136, seed=1), True, False)),
    Case("gemm", "second transposed", lambda: (whole(130, 400), whole(24, 400, seed=1), False, True)),
    Case("gemm", "empty sum", lambda: (whole(3, 0), whole(0, 5), False, False)),
    Case("linear_fwd", "integers", lambda: (whole(5, 400), whole(120, 400, seed=1), whole(120, seed=2))),
    Case("linear_fwd", "no bias", lambda: (whole(129, 33), whole(70, 33, seed=1), None)),
)
