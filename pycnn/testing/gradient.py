"""Gradients held against slopes: in float64, along a random direction, one number against another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["check_gradient", "directional_derivative"]


def directional_derivative(
    function: Callable[..., np.ndarray],
    inputs: Sequence[np.ndarray],
    directions: Sequence[np.ndarray],
    step: float = 1e-3,
) -> np.ndarray:
    """The derivative of `function` at `inputs` along `directions`, by a five-point difference.

        (8*(f(x + h*v) - f(x - h*v)) - (f(x + 2*h*v) - f(x - 2*h*v))) / (12*h)  =  f'(x) v + O(h^4)

    Args:
        inputs, directions: float64 arrays, a direction for each input, of its shape.
        step: h; at 1e-3 both h^4 and the roundings 2^-53/h are near 1e-13.

    >>> float(directional_derivative(np.sin, [np.array(0.0)], [np.array(1.0)]).round(10))
    1.0
    """

    def at(distance: float) -> np.ndarray:
        return function(*(x + distance * v for x, v in zip(inputs, directions, strict=True)))

    near, far = at(step) - at(-step), at(2 * step) - at(-2 * step)
    return (8 * near - far) / (12 * step)


def check_gradient(
    function: Callable[..., np.ndarray],
    gradients: Callable[..., Sequence[np.ndarray]],
    inputs: Sequence[np.ndarray],
    seed: int = 0,
    tolerance: float = 1e-8,
    step: float = 1e-3,
) -> None:
    """Assert that `gradients` is the gradient of `function`: <u, f'(x) v> == sum of <gradient_i, v_i> for random u, v.

    Args:
        function: of the inputs, giving one array; smooth within 2 * `step` of them (no ReLU kink, no new maximum).
        gradients: of (dy, *inputs), giving one gradient an input.
        inputs: float64 arrays.
        tolerance: relative to the size of the sums; 1e-8 leaves five digits above the difference's own error.

    Raises:
        AssertionError: with both numbers.

    >>> check_gradient(lambda x: x**2, lambda dy, x: [2 * x * dy], [np.array([1.0, 3.0])])
    """
    rng = np.random.default_rng(seed)
    directions = [rng.standard_normal(x.shape) for x in inputs]
    slope = directional_derivative(function, inputs, directions, step)
    dy = rng.standard_normal(slope.shape)
    found = gradients(dy, *inputs)
    assert len(found) == len(inputs), f"{len(found)} gradients for {len(inputs)} inputs"
    for i, (x, dx) in enumerate(zip(inputs, found, strict=True)):
        assert dx.shape == x.shape, f"gradient {i} has shape {dx.shape}, its input {x.shape}"
    numeric = float(np.sum(dy * slope))
    analytic = float(sum(np.sum(dx * v) for dx, v in zip(found, directions, strict=True)))
    size = float(np.sum(np.abs(dy * slope))) + 1e-30
    assert abs(numeric - analytic) <= tolerance * size, f"slope {numeric!r}, gradient says {analytic!r}"
