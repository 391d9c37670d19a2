"""Batches, prepared by threads while the engine computes, in an order that a checkpoint can hold."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import numpy as np

from pycnn import random
from pycnn.data import draws
from pycnn.data.dataset import Dataset
from pycnn.data.transforms import Transform
from pycnn.shape import whole

__all__ = ["Batch", "DataLoader"]

Batch = tuple[np.ndarray, np.ndarray]  # images (N, C, H, W), labels (N,) int64


class DataLoader:
    """Iterate over a data set in batches, epoch after epoch.

    One ``for`` loop is (the rest of) one epoch.  The order of the images and every random number of the transform
    follow from (seed, epoch, position), so they are the same whatever the number of threads, and `state_dict` needs
    no more than two numbers to let a resumed run go on with the very batch that would have come next.

    Args:
        dataset: where the images come from.
        batch_size: images a batch; the last of an epoch may be smaller.
        transform: applied to each batch in the threads; None hands on the raw uint8.
        shuffle: a new random order each epoch.
        seed: of the order and of the transform.
        drop_last: leave out a last batch that is smaller.
        workers: threads that prepare batches; 0 prepares each when it is asked for.
        prefetch: batches that may wait, ready, for the engine.

    Raises:
        ValueError, TypeError: a number out of range.  Whatever reading or transforming a batch raises comes out of
            the loop that asked for it, with the threads already gone.

    >>> import numpy as np
    >>> from pycnn.data import ArrayDataset
    >>> images = np.zeros((5, 1, 2, 2), np.uint8)
    >>> loader = DataLoader(ArrayDataset(images, np.arange(5), "abcde"), batch_size=2)
    >>> [labels.tolist() for _, labels in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        transform: Transform | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        workers: int = 1,
        prefetch: int = 2,
    ) -> None:
        self.dataset = dataset
        self.batch_size = whole("batch_size", batch_size, 1)
        self.transform = transform
        self.shuffle = shuffle
        self.seed, _ = random.Generator(seed).get_state()  # which refuses what is no seed
        self.drop_last = drop_last
        self.workers = whole("workers", workers, 0)
        self.prefetch = whole("prefetch", prefetch, 0)
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: the epoch, and how many of its batches were handed out."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where `state` was taken.

        Raises ValueError if it says a position that this loader's epochs do not have.
        """
        epoch, position = whole("epoch", state["epoch"], 0), whole("position", state["position"], 0)
        if position > len(self):
            raise ValueError(
                f"position must be at most {len(self)}, the batches of an epoch, got {position}: "
                f"was it saved with another data set or batch size?"
            )
        self.epoch, self.position = epoch, position

    def __iter__(self) -> Generator[Batch, None, None]:
        """The batches of this epoch that were not handed out yet; after the last the next epoch begins.

        A batch counts as handed out from the moment the loop body has it.
        """
        if self.position == len(self):  # a checkpoint taken after the last batch of an epoch
            self.epoch, self.position = self.epoch + 1, 0
        n = len(self.dataset)
        order = draws.permutation(n, self.seed, self.epoch) if self.shuffle else np.arange(n)
        with closing(self._batches(order, self.epoch, self.position)) as batches:
            for position, batch in batches:
                self.position = position + 1
                yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def _prepare(self, order: np.ndarray, epoch: int, position: int) -> Batch:
        first = position * self.batch_size
        indices = order[first : first + self.batch_size]
        images = self.dataset.images(indices)
        if self.transform is not None:
            words = draws.words(self.seed, epoch, first, len(indices), self.transform.draws)
            images = self.transform(images, words)
        return images, self.dataset.labels[indices]

    def _batches(self, order: np.ndarray, epoch: int, start: int) -> Generator[tuple[int, Batch], None, None]:
        """(position, batch) from `start` to the end of the epoch; threads end with this generator, however it ends."""
        if self.workers == 0:
            for position in range(start, len(self)):
                yield position, self._prepare(order, epoch, position)
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="pycnn-data")
        waiting: deque[Future[Batch]] = deque()
        upcoming = iter(range(start, len(self)))
        try:
            for position in range(start, len(self)):
                while len(waiting) < self.workers + self.prefetch and (later := next(upcoming, None)) is not None:
                    context = contextvars.copy_context()  # the chosen backend goes along
                    waiting.append(pool.submit(context.run, self._prepare, order, epoch, later))
                yield position, waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
