"""Gradients, and gradients of gradients, held against differences, element by element, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import autograd
from pycnn.tensor import Tensor

__all__ = ["gradcheck", "gradgradcheck"]

Inputs = Tensor | Sequence[Any]


def gradcheck(
    function: Callable[..., Any],
    inputs: Inputs,
    step: float = 1e-5,
    atol: float = 1e-7,
    rtol: float = 1e-6,
    seed: int = 0,
) -> bool:
    """Compare the gradients of ``function(*inputs)`` with central differences, for every element of every input.

        <u, f(x + h*e_i) - f(x - h*e_i)> / (2*h)  =  (u . f'(x))_i + O(h^2),  for a random u

    Args:
        function: of `inputs`, giving a Tensor or several; smooth within `step` of them.
        inputs: Tensors, those to be checked float64 with requires_grad; other values are passed on.
        step: h.  At 1e-5 the truncation h^2 and the rounding 2^-53/h are both near 1e-10 for values near 1.
        atol, rtol: |numeric - analytic| <= atol + rtol * |analytic|; some thousand times that error.
        seed: of u.

    Returns:
        True.

    Raises:
        AssertionError: naming the input, the element and both numbers; also where a gradient is missing.
        ValueError: no input to check, or one that is not float64.

    >>> import numpy as np, pycnn
    >>> gradcheck(lambda x: x * x, pycnn.Tensor(np.array([3.0]), requires_grad=True))
    True
    """
    values = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, value in enumerate(values) if isinstance(value, Tensor) and value.requires_grad]
    if not checked:
        raise ValueError("gradcheck needs an input with requires_grad")
    for i in checked:
        if values[i].dtype != np.float64:
            raise ValueError(f"gradcheck needs float64, input {i} is {values[i].dtype}")
    outputs = _outputs(function(*values))
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(output.shape) for output in outputs]
    found = autograd.grad(
        outputs, [values[i] for i in checked], [Tensor(u) for u in weights], retain_graph=True, allow_unused=True
    )

    def score() -> float:
        with autograd.no_grad():
            return float(sum(np.sum(u * y.data) for u, y in zip(weights, _outputs(function(*copies)), strict=True)))

    for i, gradient in zip(checked, found, strict=True):
        copies = list(values)
        x = values[i].data.copy()
        copies[i] = Tensor(x)
        numeric = np.zeros_like(x)
        for place in np.ndindex(*x.shape):
            value = x[place]
            x[place] = value + step
            above = score()
            x[place] = value - step
            below = score()
            x[place] = value
            numeric[place] = (above - below) / (2 * step)
        analytic = np.zeros_like(x) if gradient is None else gradient.data
        assert analytic.shape == x.shape, f"input {i}: gradient of shape {analytic.shape} for {x.shape}"
        wrong = ~(np.abs(numeric - analytic) <= atol + rtol * np.abs(analytic))
        if wrong.any():
            place = tuple(int(k) for k in np.argwhere(wrong)[0])
            raise AssertionError(
                f"input {i} at {place}: difference {numeric[place]!r}, gradient {analytic[place]!r} "
                f"({int(wrong.sum())} of {wrong.size} elements differ)"
            )
    return True


def gradgradcheck(
    function: Callable[..., Any],
    inputs: Inputs,
    step: float = 1e-5,
    atol: float = 1e-7,
    rtol: float = 1e-6,
    seed: int = 0,
) -> bool:
    """`gradcheck` of the gradients of `function`, with respect to its inputs and to the gradient of its output.

    Args, Returns, Raises: as `gradcheck`.

    >>> import numpy as np, pycnn
    >>> gradgradcheck(lambda x: x * x * x, pycnn.Tensor(np.array([3.0]), requires_grad=True))
    True
    """
    values = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, value in enumerate(values) if isinstance(value, Tensor) and value.requires_grad]
    rng = np.random.default_rng(seed + 1)
    seeds = [Tensor(rng.standard_normal(output.shape), requires_grad=True) for output in _outputs(function(*values))]

    def gradients(*all_values: Any) -> list[Tensor]:
        given = [
            value if value.requires_grad or i not in checked else value.detach().requires_grad_()
            for i, value in enumerate(all_values[: len(values)])
            if isinstance(value, Tensor)
        ]
        leaves = iter(given)
        arguments = [next(leaves) if isinstance(value, Tensor) else value for value in all_values[: len(values)]]
        with autograd.enable_grad():
            outputs = _outputs(function(*arguments))
            found = autograd.grad(
                outputs,
                [arguments[i] for i in checked],
                list(all_values[len(values) :]),
                create_graph=True,
                allow_unused=True,
            )
        return [one for one in found if one is not None]

    return gradcheck(gradients, (*values, *seeds), step, atol, rtol, seed)


def _outputs(result: Any) -> list[Tensor]:
    results = result if isinstance(result, (tuple, list)) else (result,)
    return [one for one in results if one.dtype.kind == "f"]
