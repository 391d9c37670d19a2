"""What tests beside PyTorch share: one function of ours and one of torch's, on equal arrays in float64.

Both sides round in float64 (2^-53, about 1e-16) and sums have at most some thousands of terms, so 1e-11 of the largest
magnitude separates a wrong term from a rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import Tensor

torch = pytest.importorskip("torch")

Ints = tuple[int, ...]


def draw(rng: np.random.Generator, low: int, high: int, axes: int) -> Ints:
    return tuple(int(one) for one in rng.integers(low, high + 1, axes))


def agree(
    ours: Callable[..., Any], theirs: Callable[..., Any], arrays: list[np.ndarray], what: object, twice: bool = True
) -> bool:
    """Assert equal values, gradients and, `twice`, gradients of these; whether torch computed anything at all.

    Where torch refuses, so must we, with a ValueError.
    """
    there = [torch.from_numpy(array.copy()).requires_grad_() for array in arrays]
    here = [Tensor(array.copy(), requires_grad=True) for array in arrays]
    try:
        expected = theirs(*there)
    except (RuntimeError, ValueError):
        with pytest.raises(ValueError, match=r"\w"):
            ours(*here)
        return False
    found = ours(*here)
    if isinstance(expected, tuple):
        expected, places = expected
        found, at = found
        np.testing.assert_array_equal(at.numpy(), places.numpy(), str(what))
    same(found, expected, what)
    weights = np.random.default_rng(0).standard_normal(expected.shape)
    there_v, here_v = torch.from_numpy(weights).requires_grad_(), Tensor(weights, requires_grad=True)
    right = torch.autograd.grad((expected * there_v).sum(), there, create_graph=twice)
    left = pycnn.grad((found * here_v).sum(), here, create_graph=twice)
    for ours_one, theirs_one in zip(left, right, strict=True):
        same(ours_one, theirs_one, what)
    if not twice:
        return True
    right = torch.autograd.grad(sum((one**2).sum() for one in right), [*there, there_v], allow_unused=True)
    left = pycnn.grad(sum((one**2).sum() for one in left), [*here, here_v], allow_unused=True)
    for ours_one, theirs_one in zip(left, right, strict=True):
        if ours_one is None or theirs_one is None:
            assert not np.any(ours_one.numpy() if ours_one is not None else 0), what
            assert theirs_one is None or not theirs_one.any(), what
        else:
            same(ours_one, theirs_one, what)
    return True


def same(found: Any, expected: Any, what: object) -> None:
    found = found.detach().numpy() if isinstance(found, Tensor) else found
    expected = expected.detach().numpy()
    assert found.shape == expected.shape, f"shape {found.shape}, torch has {expected.shape}: {what}"
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)  # operands are about 1, and may cancel
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * scale, err_msg=str(what))
