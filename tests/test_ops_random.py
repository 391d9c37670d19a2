"""The random stream and dropout: the same numbers on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from pycnn import ops
from pycnn.backends import reference

pytestmark = pytest.mark.usefixtures("backend")


def test_stream_is_the_published_one() -> None:
    assert ops.philox_uint32(4, 0).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("count", [0, 1, 4, 7, 1000, 100_003])
@pytest.mark.parametrize(("seed", "offset"), [(0, 0), (2**64 - 1, 5), (1 << 32, 2**32 - 3), (77, 2**64 - 2)])
def test_stream_is_the_same_everywhere(count: int, seed: int, offset: int) -> None:
    words = ops.philox_uint32(count, seed, offset)
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(words, reference.philox_uint32(count, seed, offset))


def test_stream_continues() -> None:
    whole = ops.philox_uint32(64, 9, 3)
    np.testing.assert_array_equal(np.concatenate([ops.philox_uint32(24, 9, 3), ops.philox_uint32(40, 9, 9)]), whole)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1 / 3, 1.0])
def test_dropout_keeps_the_same_elements(dtype: type, p: float) -> None:
    x = np.random.default_rng(0).standard_normal((7, 5, 11, 13)).astype(dtype)
    for array in (x, x.transpose(0, 2, 3, 1)):
        y, expected = ops.dropout(array, p, 123, 45), reference.dropout(array, p, 123, 45)
        np.testing.assert_array_equal(y == 0, expected == 0)
        # The scale 1/(1 - p) may be rounded to the dtype before the product is: two roundings.
        np.testing.assert_allclose(y, expected, rtol=2 * np.finfo(dtype).eps)


def test_dropout_drops_nan_too() -> None:
    y = ops.dropout(np.full(1000, np.nan), 0.5, 1)
    assert 400 < np.isnan(y).sum() < 600
    assert set(np.unique(y[~np.isnan(y)])) == {0.0}
