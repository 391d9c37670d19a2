"""oneDNN's published convolution shapes as this project's problem strings.

    python -m tests.published restate FOLDER

FOLDER is a clone of https://github.com/uxlfoundation/oneDNN (with or without a work tree).  What is taken from it are
the sizes, of every line of its tests/benchdnn/inputs/conv/shapes_*, as its tests/benchdnn/doc/driver_conv.md and
knobs_desc.md define them: an axis that is not given is like the one before it, dilation 0 means none, padding is that
of the front, and an output size that is given says what is padded at the back.

An axis of one point, with one tap and no padding, is left out; so are names and memory strides.  A problem of two axes
or fewer becomes a 2-D one (a 1-D one has H = 1).
"""

from __future__ import annotations

import lzma
import re
import subprocess
from pathlib import Path

from .lists import FILE, Axis, text_of

_FIELD = re.compile(r"(g|mb|[io]c|[iokspd][dhw])(\d+)_?")
_INPUTS = "tests/benchdnn/inputs/conv/"
_POINT = Axis(1, 1, 1, 0, 0, 1)

_HEADER = """\
# Convolution problems that oneDNN publishes for its tests, restated.  The facts are from the files
# {inputs}shapes_* of https://github.com/uxlfoundation/oneDNN at commit
# {commit}; tests/published/restate.py says how they were read.
# {lines} lines of {lists} lists are {problems} distinct problems.
# First the lists by number, with how many lines each has; then each problem once, with the numbers of its lists.
"""


def restate(folder: str) -> str:
    """Write `lists.FILE` anew from a clone of oneDNN; what to tell about it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout

    paths = [path for path in git("ls-tree", "--name-only", "HEAD", _INPUTS).split() if "/shapes_" in path]
    names = [path.removeprefix(_INPUTS + "shapes_") for path in paths]
    found: dict[str, list[int]] = {}
    lines = [0] * len(names)
    for number, path in enumerate(paths):
        for line in git("show", f"HEAD:{path}").splitlines():
            for word in line.partition("#")[0].split():
                if not word.startswith("--"):
                    lines[number] += 1
                    found.setdefault(problem(word), []).append(number)
    header = _HEADER.format(
        inputs=_INPUTS, commit=git("rev-parse", "HEAD").strip(), lines=sum(lines), lists=len(names), problems=len(found)
    )
    rows = [f"{number} {name} {count}" for number, (name, count) in enumerate(zip(names, lines, strict=True))]
    rows += [" ".join([text, *map(str, sorted(set(numbers)))]) for text, numbers in sorted(found.items())]
    content = (header + "\n".join(rows) + "\n").encode()
    Path(FILE).write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    return header


def problem(word: str) -> str:
    """The problem string of one of oneDNN's descriptors.

    >>> problem('g2mb256ic96ih27oc256oh27kh5ph2n"alexnet:conv2"')
    'n256c96h27w27_k256r5s5_st1pd2dl1g2'
    """
    size: dict[str, int] = {}
    at = 0
    while at < len(word) and word[at] != "n":
        match = _FIELD.match(word, at)
        if match is None:
            raise ValueError(f"not a descriptor: {word!r} at {word[at:]!r}")
        size[match[1]] = int(match[2])
        at = match.end()
    axes: list[Axis] = []
    for name in "dhw":
        if f"i{name}" in size:
            axes.append(_axis(size, name))
        elif axes:
            axes.append(axes[-1])
    while len(axes) > 2 and (axes[0].inputs, axes[0].taps, axes[0].front, axes[0].back) == (1, 1, 0, 0):
        axes.pop(0)
    axes = [_POINT] * (2 - len(axes)) + axes
    return text_of(size.get("mb", 2), size["ic"], size["oc"], size.get("g", 1), tuple(axes))


def _axis(size: dict[str, int], name: str) -> Axis:
    inputs, taps, outputs = size[f"i{name}"], size[f"k{name}"], size.get(f"o{name}")
    stride, dilation = size.get(f"s{name}", 1), size.get(f"d{name}", 0) + 1
    span = dilation * (taps - 1) + 1
    front = size.get(f"p{name}")
    if outputs is None:
        front = front or 0
        outputs = (inputs + 2 * front - span) // stride + 1
    reach = (outputs - 1) * stride + span  # from the first point of the padding to the last that is read
    front = max(0, reach - inputs) // 2 if front is None else front
    return Axis(inputs, taps, stride, front, max(0, reach - inputs - front), dilation)
