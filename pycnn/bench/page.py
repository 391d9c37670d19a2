"""What the benchmark's pages have in common: their style, and figures without a display."""

from __future__ import annotations

import io
from typing import Any

from pycnn._extras import extra

__all__ = ["STYLE", "figure", "svg"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; color: #222; }
h1, h2 { font-weight: 600; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th { position: sticky; top: 0; background: #fff; border-bottom: 1px solid #888; }
td.text, th.text { text-align: left; } td.why { white-space: normal; min-width: 18rem; }
tr.taken, td.taken { background: #eaf3fa; font-weight: 600; } tr.wrong, td.wrong { color: #b00020; }
svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } details { margin: 1rem 0; } summary { cursor: pointer; }
"""


def figure(width: float, height: float) -> tuple[Any, Any]:
    """A Matplotlib figure of so many inches and its axes.  Raises ModuleNotFoundError without Matplotlib."""
    with extra("viz", "Matplotlib"):
        from matplotlib.figure import Figure
    drawn = Figure(figsize=(width, height), layout="constrained")
    axes = drawn.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return drawn, axes


def svg(drawn: Any) -> str:
    """A figure as an SVG element."""
    out = io.StringIO()
    drawn.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
