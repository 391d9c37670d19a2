"""The cases of every operator that is no convolution and no pooling, a file a subject."""

from pycnn.testing.cases import activation, channels_last, dense, loss, norm, random, shaping
from pycnn.testing.cases.operands import Case

__all__ = ["CASES", "Case"]

CASES: tuple[Case, ...] = tuple(
    case for subject in (activation, loss, norm, shaping, random, dense, channels_last) for case in subject.CASES
)
