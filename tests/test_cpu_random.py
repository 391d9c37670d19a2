"""Philox4x32-10 of the engine: published vectors, the reference's stream at every length, and dropout on it."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_engine import DTYPES, check, instruction_sets

from pycnn import _cpu
from pycnn.backends import cpu, reference

# Random123 1.14, tests/kat_vectors, "philox4x32 10": counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def number(words: tuple[int, ...]) -> int:
    return sum(word << 32 * i for i, word in enumerate(words))


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_published_words(
    counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]
) -> None:
    for _ in instruction_sets():
        assert tuple(cpu.philox_uint32(4, number(key), number(counter)).tolist()) == words


@pytest.mark.parametrize(
    "offset", [0, 1, 2**32 - 3, 2**64 - 5, 2**64 - 40, 2**96 - 2, 2**128 - 3], ids=lambda offset: f"{offset:#x}"
)
def test_philox_is_the_references_stream(offset: int) -> None:
    seed = 0x0123456789ABCDEF
    for _ in instruction_sets():
        for count in (0, 1, 2, 3, 4, 5, 31, 63, 64, 65, 127, 129, 1000, 16384, 16385, 33000):
            (words,) = check(lambda count=count: cpu.philox_uint32(count, seed, offset))
            np.testing.assert_array_equal(words, reference.philox_uint32(count, seed, offset))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999, 1 - 2.0**-33, 1 - 2.0**-53, 1.0])
def test_dropout_equals_reference(p: float, dtype: type) -> None:
    rng = np.random.default_rng(0)
    for _ in instruction_sets():
        for shape in ((), (1,), (7,), (3, 5), (2, 3, 11, 13), (16385,), (0, 4), (40000,)):
            x = rng.normal(size=shape).astype(dtype)
            (y,) = check(lambda x: cpu.dropout(x, p, 5, 2**64 - 100), x)
            expected = reference.dropout(x, p, 5, 2**64 - 100)
            np.testing.assert_array_equal(y == 0, expected == 0)
            # 1/(1 - p) and the product are each rounded once.
            np.testing.assert_allclose(y, expected, rtol=1.01 * np.finfo(dtype).eps)


def test_dropout_drops_nan_and_infinity_too() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1.0] * 200, np.float32)
    for _ in instruction_sets():
        np.testing.assert_array_equal(cpu.dropout(x, 0.5, 1, 2), reference.dropout(x, 0.5, 1, 2))


@pytest.mark.parametrize("p", [-0.1, 1.0, np.nan, np.inf])
def test_bad_probabilities_raise(p: float) -> None:
    with pytest.raises(ValueError, match="p must be in"):
        _cpu.dropout(np.ones(3), p, 0, 0, 0)


def test_negative_count_raises() -> None:
    with pytest.raises(ValueError, match="count must not be negative"):
        _cpu.philox_uint32(-1, 0, 0, 0)
