"""What is made of windows against PyTorch in float64: columns of windows, values, gradients and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from beside_torch import agree, draw

from pycnn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional

CASES = 60
pytestmark = pytest.mark.usefixtures("backend")


def test_unfold_and_fold_agree() -> None:
    ran = 0
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        size, kernel, stride = draw(rng, 1, 9, 2), draw(rng, 1, 4, 2), draw(rng, 1, 4, 2)
        dilation, padding = draw(rng, 1, 3, 2), draw(rng, 0, 3, 2)
        lead = (int(rng.integers(1, 4)),) if rng.random() < 0.2 else (int(rng.integers(1, 3)), int(rng.integers(1, 4)))
        how, what = (kernel, dilation, padding, stride), (seed, lead, size)
        x = rng.standard_normal((*lead, *size))
        if not agree(lambda x, how=how: F.unfold(x, *how), lambda x, how=how: TF.unfold(x, *how), [x], (what, how)):
            continue
        ran += 1
        columns = rng.standard_normal(TF.unfold(torch.from_numpy(x), *how).shape)
        ours = lambda y, how=how, size=size: F.fold(y, size, *how)  # noqa: E731
        assert agree(ours, lambda y, how=how, size=size: TF.fold(y, size, *how), [columns], (what, how))
    assert ran > CASES // 2


def test_no_images_give_no_columns() -> None:
    assert F.unfold(np.zeros((0, 2, 3, 4)), 2).shape == (0, 8, 6)
    assert F.fold(np.zeros((0, 8, 6)), (3, 4), 2).shape == (0, 2, 3, 4)


def test_16_bits_are_added_up_in_float32() -> None:
    """Three windows hold the one pixel, by a tap each; in 16 bits 2048 + 1 is 2048."""
    columns = np.diag([1.0, 1.0, 2048.0])[::-1].astype(np.float16)
    assert F.fold(columns, (1, 1), (1, 3), 1, (0, 2), 1).tolist() == [[[2050.0]]]


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.unfold(np.ones((2, 3)), 1), ValueError, r"x must have 4 dimensions \(N, C, H, W\) or 3"),
    (lambda: F.unfold(np.ones((1, 2, 3, 4)), (4, 1)), ValueError, "no window fits: height 3"),
    (lambda: F.unfold(np.ones((1, 2, 3, 4)), 0), ValueError, "kernel_size must be between 1"),
    (lambda: F.unfold([1.0], 1), TypeError, "x must be a Tensor or an array"),
    (lambda: F.fold(np.ones((1, 3, 4)), 2, 2), ValueError, "a multiple of 4 rows"),
    (lambda: F.fold(np.ones((1, 4, 5)), 3, 2), ValueError, r"x must have 2\*2 columns"),
    (lambda: F.fold(np.ones((1, 4, 4, 1)), 3, 2), ValueError, r"x must have 3 dimensions \(N, C\*R\*S, P\*Q\)"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_bad_input_is_refused_by_name(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
