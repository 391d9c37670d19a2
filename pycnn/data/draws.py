"""Random numbers for data: pure functions of a seed and a place in the run, so nothing has to be remembered.

Every number comes from Philox4x32-10 under a key derived from (seed, purpose, epoch), at a counter that is the
image's position in the epoch.  Batch size aside, nothing of how the images are fetched (threads, prefetching, a run
killed and resumed) can change them.
"""

from __future__ import annotations

import numpy as np

from pycnn import backends
from pycnn.shape import whole

__all__ = ["AUGMENTATION", "ORDER", "key", "permutation", "words"]

ORDER, AUGMENTATION = 1, 2  # purposes: each has a stream of its own
_FAR = 1 << 40  # keys are drawn where no image's counter comes


def _philox(count: int, seed: int, offset: int) -> np.ndarray:
    """`count` words of the stream of `seed`: the host's backends, whichever is chosen, agree bit for bit."""
    host = backends.get("reference" if backends.selected() == "reference" else "cpu")
    return host.philox_uint32(count, seed, offset)


def key(seed: int, *steps: int) -> int:
    """The 64-bit key that `seed` and `steps` (a purpose, an epoch) lead to.

    >>> key(0, ORDER, 3) == key(0, ORDER, 3), key(0, ORDER, 3) == key(0, AUGMENTATION, 3)
    (True, False)
    """
    place = whole("seed", seed, 0)
    for step in steps:
        low, high = _philox(2, place, _FAR + step)
        place = int(low) | int(high) << 32
    return place


def permutation(n: int, seed: int, epoch: int = 0) -> np.ndarray:
    """A random order of ``range(n)``, int64: the argsort of n 64-bit random numbers.

    >>> sorted(permutation(5, seed=1).tolist())
    [0, 1, 2, 3, 4]
    """
    pairs = _philox(2 * n, key(seed, ORDER, epoch), 0).astype(np.uint64)
    return np.argsort(pairs[0::2] | pairs[1::2] << np.uint64(32), kind="stable")


def words(seed: int, epoch: int, first: int, count: int, each: int) -> np.ndarray:
    """Random words for the `count` images from position `first` of an epoch on.

    Returns:
        uint32 of shape (count, each); row i depends on (seed, epoch, first + i) only.
    """
    if each == 0:
        return np.empty((count, 0), np.uint32)
    blocks = -(-each // 4)  # a counter gives four words
    stream = _philox(count * blocks * 4, key(seed, AUGMENTATION, epoch), first * blocks)
    return stream.reshape(count, blocks * 4)[:, :each]
