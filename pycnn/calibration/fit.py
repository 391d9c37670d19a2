"""Coefficients from measured times: the non-negative ones whose predictions are nearest, as ratios.

    least  sum over samples of  weight * (predicted - seconds)^2 / (predicted * seconds)

which for small errors is the sum of squares of log(predicted / seconds): 10 % too much and 10 % too little count alike,
on microseconds as on milliseconds.  The weights turn the squares into absolute values where errors are larger than
usual (Huber), so that samples which another process disturbed do not pull.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["fit", "non_negative"]

_ROUNDS = 12  # of reweighting; errors settle within six
_CALM = 3  # rounds before weights look at errors
_USUAL = 1.5  # an error is large from so many times the median on


def fit(samples: Sequence[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    """Seconds of a unit of each term.

    Args:
        samples: the work of a call by term, and the seconds it took, above 0.

    >>> fit([({"call": 1, "fma": 10}, 2.5), ({"call": 1, "fma": 100}, 7.0), ({"call": 1, "fma": 40}, 4.0)])
    {'call': 2.0, 'fma': 0.05}
    """
    terms = list(dict.fromkeys(term for work, _ in samples for term in work))
    counts = np.array([[work.get(term, 0.0) for term in terms] for work, _ in samples])
    seconds = np.array([taken for _, taken in samples])
    scale = counts.max(axis=0, initial=0.0)
    scale[scale == 0] = 1.0
    counts = counts / scale
    predicted, found = seconds.copy(), np.zeros(len(terms))
    for number in range(_ROUNDS):
        weights = 1.0 / np.sqrt(predicted * seconds)
        if number >= _CALM:
            errors = np.abs(np.log(predicted / seconds))
            large = _USUAL * np.median(errors) + 1e-3
            weights = weights / np.sqrt(np.maximum(1.0, errors / large))
        found = non_negative(counts * weights[:, None], seconds * weights)
        predicted = np.maximum(counts @ found, 1e-3 * seconds)
    # Digits beyond these are noise, and a table is for people too.
    return {term: float(f"{value:.4g}") for term, value in zip(terms, found / scale, strict=True)}


def non_negative(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The c >= 0 for which |matrix @ c - values| is least.

    Lawson & Hanson, "Solving least squares problems", 1974, chapter 23: columns enter one by one, the one first along
    which the error falls most steeply, and leave again where the solution without bounds would make them negative.

    >>> non_negative(np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([1.0, 3.0])).round(6).tolist()
    [2.0, 0.0]
    """
    columns = matrix.shape[1]
    found, free = np.zeros(columns), np.zeros(columns, bool)
    least = 1e-10 * np.abs(matrix.T @ values).max(initial=0.0)
    for _ in range(10 * columns):
        slope = matrix.T @ (values - matrix @ found)
        slope[free] = -np.inf
        enters = int(np.argmax(slope)) if columns else 0
        if not columns or slope[enters] <= least:
            break
        free[enters] = True
        while True:
            trial = np.zeros(columns)
            trial[free] = np.linalg.lstsq(matrix[:, free], values, rcond=None)[0]
            if (trial[free] > 0).all():
                found = trial
                break
            bound = free & (trial <= 0)
            step = (found[bound] / np.maximum(found[bound] - trial[bound], 1e-300)).min()
            found = found + step * (trial - found)
            free &= found > 1e-15
            found[~free] = 0.0
    return found
