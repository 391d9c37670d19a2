"""Measurements and proofs, run from a checkout: ``pytest benchmarks``, ``python -m benchmarks.evidence``.

Both put the checkout first on the import path.  Where its pycnn has no native module built in place, the installed
pycnn is the one to measure, so the checkout moves to the end.
"""

import os
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
os.environ.setdefault("PYCNN_REPOSITORY", str(_CHECKOUT))  # where the simulator's sources are

if not any((_CHECKOUT / "pycnn").glob("_cpu*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _CHECKOUT] + [str(_CHECKOUT)]
