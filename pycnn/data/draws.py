"""Random numbers for data: pure functions of a seed and a place in the run, so nothing has to be remembered.

Every number comes from Philox4x32-10 under a key derived from (seed, purpose, epoch), at a counter that is the
image's position in the epoch.  Batch size aside, nothing of how the images are fetched (threads, prefetching, a run
killed and resumed) can change them.
"""

from __future__ import annotations

import numpy as np

from pycnn.random import Generator

__all__ = ["AUGMENTATION", "ORDER", "generator", "permutation", "words"]

ORDER, AUGMENTATION = 1, 2  # purposes: each has a stream of its own
_FAR = 1 << 63  # keys are drawn where no image's counter comes


def generator(seed: int, *steps: int) -> Generator:
    """The stream that belongs to `seed` and `steps` (a purpose, an epoch): its key is drawn from their parent's.

    >>> same, other = generator(0, ORDER, 3), generator(0, AUGMENTATION, 3)
    >>> same.get_state() == generator(0, ORDER, 3).get_state(), same.get_state() == other.get_state()
    (True, False)
    """
    stream = Generator(seed)
    for step in steps:
        low, high = Generator(stream.get_state()[0], _FAR + step).words(2).tolist()
        stream = Generator(low | high << 32)
    return stream


def permutation(n: int, seed: int, epoch: int = 0) -> np.ndarray:
    """A random order of ``range(n)``, int64.

    >>> sorted(permutation(5, seed=1).tolist())
    [0, 1, 2, 3, 4]
    """
    return generator(seed, ORDER, epoch).permutation(n)


def words(seed: int, epoch: int, first: int, count: int, each: int) -> np.ndarray:
    """Random words for the `count` images from position `first` of an epoch on.

    Returns:
        uint32 of shape (count, each); row i depends on (seed, epoch, first + i) only.
    """
    if each == 0:
        return np.empty((count, 0), np.uint32)
    blocks = -(-each // 4)  # a counter gives four words
    key, _ = generator(seed, AUGMENTATION, epoch).get_state()
    return Generator(key, first * blocks).words(count * blocks * 4).reshape(count, blocks * 4)[:, :each]
