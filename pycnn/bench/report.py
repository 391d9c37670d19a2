"""The benchmark's report: one HTML file that needs nothing beside it, drawn from the same values as the JSON."""

from __future__ import annotations

import html
from typing import Any

from pycnn.bench.page import STYLE, figure, svg
from pycnn.bench.summary import OURS
from pycnn.bench.timing import ROUNDS
from pycnn.shape import PASSES

__all__ = ["render"]

_COLORS = {OURS: "#1b6ca8", "numpy": "#b0b0b0"}
_PEER_COLORS = ("#e08e0b", "#7a9e3f", "#9b5fb0", "#c2513f")


def render(data: dict[str, Any]) -> str:
    """The report of `data` (see `pycnn.bench.summary.as_dict`) as one HTML document."""
    machine = data["machine"]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>pycnn bench</title>",
        f"<style>{STYLE}</style></head><body><h1>pycnn bench</h1>",
        f"<p>{html.escape(machine['processor'])}, {machine['threads']} threads, {machine['isa']}; measured: "
        f"{machine['fma_peak'] / 1e9:.0f} GFLOP/s of float32 multiply-adds, "
        f"{machine['bandwidth'] / 1e9:.1f} GB/s of copying. "
        + html.escape(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
        + ".</p><p>Contestants take turns of some milliseconds, each begun with calls that are not timed; NumPy and "
        "other frameworks run in processes of their own, stopped between their turns. Every figure is the median over "
        f"the calls of {ROUNDS} turns; the spread is half the distance between the quartiles. A rate counts the direct "
        "form's operations, so Winograd may pass the peak.</p>",
    ]
    for network in data["networks"]:
        parts += _network(network, machine)
    convolutions = [layer for network in data["networks"] for layer in network["layers"] if layer["op"] == "conv2d"]
    if convolutions:
        parts.append(
            "<h2>Roofline</h2><p>What pycnn takes, forward and backward: rate against operations per byte "
            "(each tensor moved once), under this machine's measured ceilings.</p>"
        )
        parts.append(_roofline(convolutions, machine))
        parts.append(
            "<h2>Error against tile size</h2><p>max |y − y64| / max |y64| of every algorithm on every "
            "layer, one dot each: larger Winograd tiles trade accuracy for arithmetic.</p>"
        )
        parts.append(_errors(convolutions))
    return "".join(parts) + "</body></html>"


def _network(network: dict[str, Any], machine: dict[str, Any]) -> list[str]:
    title = network["network"] or "problems"
    heading = title if network["batch"] is None else f"{title}, batch {network['batch']}"
    forward = network["forward_seconds"]
    whole = "" if forward is None else f" Whole forward pass of the network: {forward * 1e3:.2f} ms."
    parts = [f"<h2>{html.escape(heading)}</h2>", _totals(network["totals_seconds"])]
    parts.append(
        f"<p>Sums over the convolution and pooling layers, in milliseconds; {OURS} is what <i>auto</i> takes, layer by "
        f"layer.{whole}</p>"
    )
    parts += [f"<p>Left out: {html.escape(sentence)}</p>" for sentence in network["missing"]]
    for operator in dict.fromkeys(layer["pass"] for layer in network["layers"] if layer["op"] == "conv2d"):
        layers = [layer for layer in network["layers"] if layer["pass"] == operator]
        parts.append(_bars(f"{title} {operator}", layers, machine))
    parts.append("<details><summary>Every contestant on every layer</summary><div class='wide'>")
    parts += [_table(network["layers"], machine), "</div></details>"]
    return parts


def _totals(totals: dict[str, dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for by_name in totals.values() for name in by_name))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = []
    for operator, by_name in totals.items():
        cells = "".join(f"<td>{by_name[name] * 1e3:.2f}</td>" if name in by_name else "<td></td>" for name in names)
        rows.append(f"<tr><td class='text'>{operator}</td>{cells}</tr>")
    return f"<table><tr><th class='text'>pass</th>{head}</tr>{''.join(rows)}</table>"


def _table(layers: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    rows = [
        "<table><tr><th class='text'>layer</th><th class='text'>problem</th><th class='text'>pass</th>"
        "<th class='text'>contestant</th><th>ms</th><th>spread</th><th>GFLOP/s</th><th>of peak</th>"
        "<th>error</th><th>× NumPy</th><th class='text'>why</th></tr>"
    ]
    for layer in layers:
        seconds = {c["name"]: c["seconds"] for c in layer["contestants"]}
        for c in layer["contestants"]:
            chosen = c["name"] == layer["auto"]
            kind = "wrong" if c["seconds"] is None else "taken" if c["name"] == layer["taken"] else ""
            rows.append(
                f"<tr class='{kind}'><td class='text'>{html.escape(layer['layer'])}</td>"
                f"<td class='text'>{layer['problem']}</td><td class='text'>{layer['pass']}</td>"
                f"<td class='text'>{html.escape(c['name'])}</td>{_figures(c, layer, seconds, machine)}"
                f"<td class='text why'>{html.escape(c['note'] or (layer['why'] if chosen else ''))}</td></tr>"
            )
    return "".join(rows) + "</table>"


def _figures(c: dict[str, Any], layer: dict[str, Any], seconds: dict[str, Any], machine: dict[str, Any]) -> str:
    if c["seconds"] is None:
        error = "" if c["error"] is None else f"{c['error']:.1e}"
        return f"<td></td><td></td><td></td><td></td><td>{error}</td><td></td>"
    low, high = c["quartiles"]
    rate = f"<td>{c['gflops']:.1f}</td><td>{c['gflops'] * 1e9 / machine['fma_peak']:.0%}</td>"
    if not layer["flops"]:
        rate = "<td></td><td></td>"
    speedup = f"{seconds['numpy'] / c['seconds']:.2f}" if seconds.get("numpy") else ""
    spread = (high - low) / 2 / c["seconds"]
    return f"<td>{c['seconds'] * 1e3:.3f}</td><td>{spread:.0%}</td>{rate}<td>{c['error']:.1e}</td><td>{speedup}</td>"


def _contestants(layers: list[dict[str, Any]]) -> list[str]:
    """Whom the bars show: us, NumPy and the peers."""
    peers = [c["name"] for layer in layers for c in layer["contestants"] if c["kind"] in ("own", "peer")]
    return [OURS, "numpy", *dict.fromkeys(peers)]


def _color(name: str, position: int) -> str:
    return _COLORS.get(name) or _PEER_COLORS[(position - len(_COLORS)) % len(_PEER_COLORS)]


def _rate(layer: dict[str, Any], name: str) -> float:
    wanted = layer["taken"] if name == OURS else name
    return next((c["gflops"] or 0.0 for c in layer["contestants"] if c["name"] == wanted), 0.0)


def _bars(title: str, layers: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    layers = [layer for layer in layers if layer["op"] == "conv2d"]
    names = _contestants(layers)
    drawn, axes = figure(max(7.0, 1.5 + 0.42 * len(layers) * (1 + 0.25 * len(names))), 4.2)
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        places = [place + (i - (len(names) - 1) / 2) * width for place in range(len(layers))]
        axes.bar(places, [_rate(layer, name) for layer in layers], width, label=name, color=_color(name, i))
    axes.axhline(machine["fma_peak"] / 1e9, color="#c2513f", linewidth=1, linestyle="--", label="FMA peak")
    axes.set_xticks(range(len(layers)), [layer["layer"] for layer in layers], rotation=60, ha="right", fontsize=8)
    axes.set_xlim(-0.7, len(layers) - 0.3)
    axes.set_ylabel("GFLOP/s")
    axes.set_title(title, loc="left")
    axes.legend(frameon=False, fontsize=8, ncols=len(names) + 1, loc="lower right", bbox_to_anchor=(1, 1))
    return svg(drawn)


def _roofline(layers: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    drawn, axes = figure(8.5, 4.8)
    for operator, marker in zip(PASSES, "o^s", strict=True):
        mine = [layer for layer in layers if layer["pass"] == operator and _rate(layer, OURS) > 0]
        if mine:
            intensity = [layer["flops"] / layer["bytes"] for layer in mine]
            axes.scatter(intensity, [_rate(layer, OURS) for layer in mine], s=18, marker=marker, label=operator)
    peak, bandwidth = machine["fma_peak"] / 1e9, machine["bandwidth"] / 1e9
    ends = [layer["flops"] / layer["bytes"] for layer in layers]
    low, high = min(*ends, 1.0) / 2, max(ends) * 2
    ridge = peak / bandwidth
    axes.plot([low, ridge, max(high, ridge)], [low * bandwidth, peak, peak], color="#555", linewidth=1)
    axes.annotate(f"{peak:.0f} GFLOP/s", (max(high, ridge), peak), ha="right", va="bottom", fontsize=8)
    axes.annotate(f"{bandwidth:.0f} GB/s", (low, low * bandwidth), ha="left", va="bottom", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s")
    if axes.collections:
        axes.legend(frameon=False)
    return svg(drawn)


def _errors(layers: list[dict[str, Any]]) -> str:
    by_name: dict[str, list[float]] = {}
    for layer in layers:
        for c in layer["contestants"]:
            if c["error"]:  # neither exact nor unknown: a logarithm has no place for those
                by_name.setdefault(c["name"], []).append(c["error"])
    names = sorted(by_name, key=lambda name: sorted(by_name[name])[len(by_name[name]) // 2])
    drawn, axes = figure(8.5, 0.9 + 0.36 * len(names))
    for place, name in enumerate(names):
        axes.scatter(by_name[name], [place] * len(by_name[name]), s=12, alpha=0.5, color="#1b6ca8", edgecolors="none")
    axes.set_yticks(range(len(names)), names)
    axes.set(xscale="log", xlabel="max |y - y64| / max |y64|")
    axes.grid(axis="x", color="#eee")
    axes.set_axisbelow(True)
    return svg(drawn)
