"""Windows over the last dimensions, as convolutions and pooling have them: what they cover, and how it is padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Windows", "windows"]


@dataclass(frozen=True)
class Windows:
    """Of each of the last dimensions: window, stride, dilation, padding on both sides and the output's size."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """What has to be there behind each dimension for all windows to be whole; negative if more is there."""
        rows = zip(self.kernel, self.stride, self.dilation, self.out, strict=True)
        return tuple((p - 1) * s + (k - 1) * d + 1 for k, s, d, p in rows)


def windows(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    pads: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str = "NOTSET",
    ceil_mode: bool = False,
) -> Windows:
    """The windows that the attributes of a node stand for.

    auto_pad "SAME_UPPER" and "SAME_LOWER" make the output as large as the input divided by the stride, rounded up; the
    odd element of padding is added at the end, or at the beginning.

    Raises:
        ValueError: a list of another length, a number out of range, an unknown auto_pad, or windows that do not fit.
    """
    rank = len(size)
    stride = tuple(strides) if strides else (1,) * rank
    dilation = tuple(dilations) if dilations else (1,) * rank
    given = tuple(pads) if pads else (0,) * (2 * rank)
    if not len(kernel) == len(stride) == len(dilation) == len(given) / 2 == rank:
        raise ValueError(
            f"kernel {tuple(kernel)}, strides {stride}, dilations {dilation} and pads {given} for {rank} dimensions"
        )
    if min((*kernel, *stride, *dilation), default=1) < 1:
        raise ValueError(f"kernel {tuple(kernel)}, strides {stride} and dilations {dilation} must be at least 1")
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, got {auto_pad!r}")
    before, after, out = [], [], []
    for i in range(rank):
        span = (kernel[i] - 1) * dilation[i] + 1
        if auto_pad.startswith("SAME"):
            count = -(-size[i] // stride[i])
            total = max((count - 1) * stride[i] + span - size[i], 0)
            first = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            before.append(first)
            after.append(total - first)
        else:
            first, last = (0, 0) if auto_pad == "VALID" else (given[i], given[rank + i])
            rest = size[i] + first + last - span
            if rest < 0:
                raise ValueError(f"a window of {span} does not fit into dimension {i} of {size[i]}, padded")
            count = rest // stride[i] + 1
            # The last, partial window of ceil_mode has to begin in the input or in the padding before it.
            if ceil_mode and rest % stride[i] and count * stride[i] < size[i] + first:
                count += 1
            before.append(first)
            after.append(last)
        out.append(count)
    return Windows(tuple(kernel), stride, dilation, tuple(before), tuple(after), tuple(out))
