"""kernels/philox.cuh and random.cu in the simulator and the PTX interpreter: published words, the oracle's stream."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import DEVICES, Ends, in_every_order, view_off_by_one

from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

FORWARD = DEVICES["forward"]

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
OFFSETS = [0, 1, 2**32 - 3, 2**64 - 5, 2**64 - 40, 2**96 - 2, 2**128 - 3]
SEED = 0x0123456789ABCDEF


def number(words: tuple[int, ...]) -> int:
    return sum(word << 32 * i for i, word in enumerate(words))


@pytest.mark.nvrtc
@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_published_words(counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]) -> None:
    for backend in (*DEVICES.values(), Simulated(Host(PtxDevice()))):
        assert tuple(backend.philox_uint32(4, number(key), number(counter)).tolist()) == words


@pytest.mark.parametrize("offset", OFFSETS, ids=lambda offset: f"{offset:#x}")
def test_the_references_stream(offset: int) -> None:
    for count in (0, 1, 3, 4, 5, 63, 64, 1000, 2047, 2048, 2049, 5001):
        (words,) = in_every_order(lambda backend, count=count: backend.philox_uint32(count, SEED, offset))
        np.testing.assert_array_equal(words, reference.philox_uint32(count, SEED, offset))


@pytest.mark.nvrtc
def test_ptx_gives_the_references_stream_and_masks() -> None:
    backend = Simulated(Host(PtxDevice()))
    np.testing.assert_array_equal(
        backend.philox_uint32(2100, SEED, 2**64 - 40), reference.philox_uint32(2100, SEED, 2**64 - 40)
    )
    x = np.arange(1, 2200, dtype=np.float32)
    np.testing.assert_array_equal(backend.dropout(x, 0.5, 1, 2**64 - 7), reference.dropout(x, 0.5, 1, 2**64 - 7))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999, 1 - 2.0**-33, 1 - 2.0**-53, 1.0])
def test_dropout(p: float) -> None:
    rng = np.random.default_rng(0)
    for shape in ((), (1,), (7,), (3, 5), (2, 3, 11, 13), (2049,), (0, 4), (4100,)):
        x = rng.normal(size=shape).astype(np.float32)
        (y,) = in_every_order(lambda backend, x=x: backend.dropout(x, p, 5, 2**64 - 100))
        expected = reference.dropout(x, p, 5, 2**64 - 100)
        assert y.shape == shape
        np.testing.assert_array_equal(y == 0, expected == 0)
        # 1/(1 - p) and the product are each rounded once.
        np.testing.assert_allclose(y, expected, rtol=1.01 * 2.0**-23)


def test_dropout_of_one_half_is_exact_and_drops_nan_and_infinity_too() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1.0] * 200, np.float32)
    np.testing.assert_array_equal(FORWARD.dropout(x, 0.5, 1, 2), reference.dropout(x, 0.5, 1, 2))


def test_counter_adds_to_the_offset() -> None:
    device = SimDevice()
    host = Host(device)
    x = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    given, counter = device.alloc(x.shape, x.dtype), device.alloc((1,), np.int64)
    device.fill(given, x)
    counter[0] = 0
    for drawn in (0, 250, 500):
        y = host.dropout(given, 0.5, SEED, 2**64 - 300, counter=counter)
        np.testing.assert_array_equal(y, reference.dropout(x, 0.5, SEED, 2**64 - 300 + drawn))
        host.advance(counter, 250)
        assert counter[0] == drawn + 250
    counter[0] = 2**63 - 5
    host.advance(counter, 3)
    assert counter[0] == 2**63 - 2
    y = host.dropout(given, 0.5, SEED, 2**63 + 5, counter=counter)
    np.testing.assert_array_equal(y, reference.dropout(x, 0.5, SEED, 2**64 + 3))


@pytest.mark.nvrtc
def test_advance_in_ptx() -> None:
    device = PtxDevice()
    counter = device.alloc((), np.int64)
    counter[...] = 41
    Host(device).advance(counter, 2**33 + 1)
    assert counter == 2**33 + 42


def test_counter_must_be_one_int64() -> None:
    device = SimDevice()
    for shape, dtype in (((1,), np.int32), ((2,), np.int64)):
        with pytest.raises(ValueError, match="counter must be one int64"):
            Host(device).advance(device.alloc(shape, dtype), 1)


def test_operands_that_start_between_vectors_or_have_gaps() -> None:
    device = SimDevice()
    x = np.random.default_rng(2).normal(size=4096).astype(np.float32)
    y = Host(device).dropout(view_off_by_one(device, x), 0.5, 3, 4)
    np.testing.assert_array_equal(y, reference.dropout(x, 0.5, 3, 4))
    gaps = x.reshape(64, 64)[:, ::2]
    np.testing.assert_array_equal(FORWARD.dropout(gaps, 0.5, 3, 4), reference.dropout(gaps, 0.5, 3, 4))


def test_past_two_to_the_31_elements() -> None:
    host = Host(Ends())
    size = 2**31 + 10
    x = host.device.alloc((size,), np.float32)
    x[:12], x[-10:] = 1, 1
    y = host.dropout(x, 0.5, SEED, 7)
    np.testing.assert_array_equal(y[:12], reference.dropout(np.ones(12, np.float32), 0.5, SEED, 7))
    np.testing.assert_array_equal(y[-10:], reference.dropout(np.ones(10, np.float32), 0.5, SEED, 7 + 2**29))
    words = host.philox_uint32(size, SEED, 7)
    np.testing.assert_array_equal(words[-10:], reference.philox_uint32(10, SEED, 7 + 2**29))


def test_nothing_launches_nothing() -> None:
    device = SimDevice()
    backend = Simulated(Host(device))
    assert backend.philox_uint32(0, 1, 2).shape == (0,)
    assert backend.dropout(np.ones((0, 2), np.float32), 0.5, 1, 2).shape == (0, 2)
    assert device.launches == []


def test_float64_is_refused() -> None:
    with pytest.raises(UnavailableError, match="no kernel for dropout in float64"):
        FORWARD.dropout(np.ones(3), 0.5, 1, 2)
