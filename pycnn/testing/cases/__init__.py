"""The cases of every operator that is no convolution and no pooling, a file a subject."""

from pycnn.testing.cases import (
    activation,
    boxes,
    channels_last,
    dense,
    group_norm,
    loss,
    norm,
    random,
    rectifier,
    sampling,
    shaping,
    windows,
)
from pycnn.testing.cases.operands import Case

__all__ = ["CASES", "Case"]

SUBJECTS = (
    activation,
    rectifier,
    loss,
    norm,
    group_norm,
    shaping,
    windows,
    random,
    dense,
    sampling,
    boxes,
    channels_last,
)

CASES: tuple[Case, ...] = tuple(case for subject in SUBJECTS for case in subject.CASES)
