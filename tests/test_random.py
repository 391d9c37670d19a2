"""The random stream: its state, its distributions, and its being the same everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest

import pycnn
from pycnn import random
from pycnn.random import Generator

pytestmark = pytest.mark.usefixtures("on_reference")


def test_state_goes_back_and_forth() -> None:
    g = Generator(5)
    g.normal(7)
    state = g.get_state()
    expected = [g.uniform(3), g.normal((2, 2)), g.permutation(9), g.integers(0, 9, 4)]
    g.set_state(list(state))  # as JSON brings it back
    for value, again in zip(
        expected, [g.uniform(3), g.normal((2, 2)), g.permutation(9), g.integers(0, 9, 4)], strict=True
    ):
        assert np.array_equal(value, again)


def test_seeds_and_draws_differ() -> None:
    a, b = Generator(1), Generator(2)
    first = a.words(100)
    assert not np.array_equal(first, b.words(100))
    assert not np.array_equal(first, a.words(100))


def test_reserve_hands_out_the_stream_without_overlap() -> None:
    g = Generator(3)
    taken = [g.reserve(words) for words in (1, 4, 5, 0, 3)]
    assert taken == [(3, 0), (3, 1), (3, 2), (3, 4), (3, 4)]
    assert g.get_state() == (3, 5)
    whole = Generator(3).words(8)
    assert np.array_equal(Generator(3, 1).words(4), whole[4:])


def test_manual_seed_restarts_the_default_stream() -> None:
    pycnn.manual_seed(11)
    first = random.uniform(4)
    pycnn.manual_seed(11)
    assert np.array_equal(first, random.uniform(4))
    assert random.get_state() == (11, 2)


@pytest.mark.parametrize("state", [(1,), (1, -1), (2**64, 0), (0.5, 0)])
def test_bad_states_are_refused(state: tuple) -> None:
    with pytest.raises(ValueError, match="a state is"):
        Generator().set_state(state)


N = 100_000


def moments(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std())


def test_uniform_is_uniform() -> None:
    values = Generator(0).uniform(N, -1.0, 3.0)
    assert values.min() >= -1
    assert values.max() < 3
    mean, std = moments(values)
    # The mean of N such numbers has a standard deviation of 4/sqrt(12 N) = 0.0037; five of them.
    assert abs(mean - 1) < 0.018
    assert abs(std - 4 / math.sqrt(12)) < 0.018
    # 64 equal cells: chi-square of 63 degrees of freedom, above 127 once in 300,000 seeds.
    counts = np.histogram(values, 64, (-1, 3))[0]
    assert ((counts - N / 64) ** 2 / (N / 64)).sum() < 127


def test_normal_is_normal() -> None:
    values = Generator(0).normal(N, 2.0, 0.5)
    mean, std = moments(values)
    z = (values - 2) / 0.5
    # Standard deviations over N draws: mean 1, std 1/sqrt(2), third moment sqrt(15), fourth sqrt(96), all / sqrt(N).
    unit = 5 / math.sqrt(N)
    assert abs(mean - 2) < 0.5 * unit
    assert abs(std - 0.5) < 0.5 * unit
    assert abs((z**3).mean()) < math.sqrt(15) * unit
    assert abs((z**4).mean() - 3) < math.sqrt(96) * unit
    # Neighbours come from one pair of uniform numbers and must not be correlated.
    assert abs((z[::2] * z[1::2]).mean()) < math.sqrt(2) * unit
    assert np.isfinite(values).all()


def test_normal_is_box_and_mullers() -> None:
    words = [int(word) for word in Generator(9).words(4)]
    u, v = (((words[i] << 21) | (words[i + 1] >> 11)) * 2.0**-53 for i in (0, 2))
    radius = math.sqrt(-2 * math.log(1 - u))
    expected = [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    # NumPy's vectorised log and cos may differ from libm's by a unit in the last place.
    np.testing.assert_allclose(Generator(9).normal(2), expected, rtol=1e-14)


def test_normal_in_float32_is_normal() -> None:
    values = Generator(0).normal(N + 1, 2.0, 0.5, np.float32)[:N]
    assert values.dtype == np.float32
    z = (values.astype(np.float64) - 2) / 0.5
    unit = 5 / math.sqrt(N)  # as above
    assert abs(z.mean()) < unit
    assert abs(z.std() - 1) < unit / math.sqrt(2)
    assert abs((z**3).mean()) < math.sqrt(15) * unit
    assert abs((z**4).mean() - 3) < math.sqrt(96) * unit
    assert abs((z[::2] * z[1::2]).mean()) < math.sqrt(2) * unit
    assert np.abs(z).max() < 5.8
    first, second = (int(word) >> 8 for word in Generator(9).words(2))
    radius = math.sqrt(-2 * math.log((first + 1) * 2.0**-24))
    expected = [radius * math.cos(2 * math.pi * second * 2.0**-24), radius * math.sin(2 * math.pi * second * 2.0**-24)]
    # float32: log, cos and sin are right to some units in the last place, the angle of up to 2 pi to 4e-7.
    np.testing.assert_allclose(Generator(9).normal(2, dtype=np.float32), expected, atol=5e-6)
    assert Generator(0).normal(0, dtype=np.float32).shape == (0,)


def test_truncated_normal_stays_inside() -> None:
    values = Generator(0).truncated_normal(N, 1.0, 2.0, -1.0, 3.0)
    assert values.min() >= -1
    assert values.max() <= 3
    # A normal number cut at one standard deviation has the standard deviation sqrt(1 - 2 phi(1) / erf(1/sqrt 2)).
    phi = math.exp(-0.5) / math.sqrt(2 * math.pi)
    expected = 2 * math.sqrt(1 - 2 * phi / math.erf(math.sqrt(0.5)))
    mean, std = moments(values)
    assert abs(mean - 1) < 5 * expected / math.sqrt(N)
    assert abs(std - expected) < 5 * expected / math.sqrt(N)
    with pytest.raises(ValueError, match="cannot draw"):
        Generator(0).truncated_normal(3, low=9.0, high=10.0)


def test_integers_reach_both_ends_evenly() -> None:
    values = Generator(0).integers(-2, 5, N)
    counts = np.bincount(values + 2, minlength=7)
    assert counts.size == 7
    # chi-square of 6 degrees of freedom: above 37 once in 500,000 seeds.
    assert ((counts - N / 7) ** 2 / (N / 7)).sum() < 37
    with pytest.raises(ValueError, match="integers needs"):
        Generator(0).integers(3, 3)


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_permutation_holds_every_number_once(count: int) -> None:
    order = Generator(4).permutation(count)
    assert np.array_equal(np.sort(order), np.arange(count))
    assert order.dtype == np.int64


def test_permutation_is_even_over_places() -> None:
    g = Generator(0)
    places = np.zeros((4, 4))
    for _ in range(4000):
        places[np.arange(4), g.permutation(4)] += 1
    # Each cell expects 1000 with a standard deviation of 27; five of them.
    assert np.abs(places - 1000).max() < 137


def test_shapes_and_dtypes() -> None:
    g = Generator(0)
    assert g.uniform((), dtype=np.float32).dtype == np.float32
    assert g.normal((2, 0, 3)).shape == (2, 0, 3)
    assert g.uniform(np.int64(3)).shape == (3,)
    assert g.integers(0, 2).shape == ()
