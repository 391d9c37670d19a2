"""The loader: order, resuming, threads, and how it ends."""

import threading
import time

import numpy as np
import pytest

from pycnn.data import ArrayDataset, Compose, DataLoader, HorizontalFlip, Normalize, RandomCrop, draws


def dataset(n=23):
    images = np.random.default_rng(0).integers(0, 256, (n, 1, 6, 6), np.uint8)
    return ArrayDataset(images, np.arange(n) % 10, "0123456789")


AUGMENT = Compose([RandomCrop(6, padding=2), HorizontalFlip(), Normalize(0.5, 0.25)])


def loader(n=23, **settings):
    return DataLoader(dataset(n), **{"batch_size": 5, "transform": AUGMENT, "shuffle": True, "seed": 7, **settings})


def flat(batches):
    return [(images.tobytes(), labels.tolist()) for images, labels in batches]


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pycnn-data")]


def test_every_image_once_an_epoch():
    batches = list(loader(transform=None))
    assert [len(labels) for _, labels in batches] == [5, 5, 5, 5, 3]
    seen = sorted(image.tobytes() for images, _ in batches for image in images)
    assert seen == sorted(image.tobytes() for image in dataset().images(np.arange(23)))


def test_order_changes_with_epoch_and_seed():
    one = loader()
    first, second = flat(one), flat(one)
    assert first != second
    assert first != flat(loader(seed=8))
    assert first == flat(loader())


def test_without_shuffle_in_order():
    labels = np.concatenate([labels for _, labels in loader(shuffle=False)])
    np.testing.assert_array_equal(labels, np.arange(23) % 10)


def test_drop_last():
    assert [len(labels) for _, labels in loader(drop_last=True)] == [5, 5, 5, 5]
    assert len(loader(drop_last=True)) == 4


@pytest.mark.parametrize("settings", [{"workers": 0}, {"workers": 1, "prefetch": 0}, {"workers": 3, "prefetch": 5}])
def test_threads_change_nothing(settings):
    reference, other = loader(workers=0), loader(**settings)
    for _ in range(2):
        assert flat(other) == flat(reference)


def test_augmentation_does_not_depend_on_the_batch_size():
    five, three = loader(), loader(batch_size=3)
    np.testing.assert_array_equal(
        np.concatenate([images for images, _ in five]), np.concatenate([images for images, _ in three])
    )


@pytest.mark.parametrize("consumed", range(1, 12))
def test_resumes_with_the_very_next_batch(consumed):
    unbroken = loader()
    everything = [flat(unbroken) for _ in range(3)]
    broken, taken = loader(), []
    while len(taken) < consumed:
        for batch in broken:
            taken.extend(flat([batch]))
            if len(taken) == consumed:
                state = broken.state_dict()
                break
    resumed = loader()
    resumed.load_state_dict(state)
    for _ in range(3 - state["epoch"] - (state["position"] == len(resumed))):
        taken.extend(flat(resumed))
    assert taken == [batch for epoch in everything for batch in epoch]


def test_state_of_another_run_is_refused():
    with pytest.raises(ValueError, match=r"position must be at most 5.*got 9"):
        loader().load_state_dict({"epoch": 0, "position": 9})


class Failing(ArrayDataset):
    def images(self, indices):
        if 11 in indices:
            raise OSError("the disk is on fire")
        return super().images(indices)


def test_a_reading_error_comes_out_and_threads_end():
    source = Failing(dataset().images(np.arange(23)), np.arange(23) % 10, "0123456789")
    batches = iter(DataLoader(source, 5, workers=2))
    assert [len(next(batches)[1]) for _ in range(2)] == [5, 5]
    with pytest.raises(OSError, match="on fire"):
        next(batches)
    assert not data_threads()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_threads_end_when_the_loop_body_raises(error):
    batches = iter(loader(workers=3))
    next(batches)
    assert data_threads()
    with pytest.raises(error):
        batches.throw(error())
    assert not data_threads()


def test_threads_end_when_the_loop_is_left():
    for _ in loader(workers=3):
        break
    assert not data_threads()


class Slow(ArrayDataset):
    def images(self, indices):
        time.sleep(0.02)
        return super().images(indices)


def test_prefetching_hides_the_reading():
    """Reading takes 20 ms a batch and computing 25: after the first batch the loop never waits for long."""
    source = Slow(dataset(60).images(np.arange(60)), np.arange(60) % 10, "0123456789")
    waited, asked = [], time.perf_counter()
    for _ in DataLoader(source, 5, workers=1, prefetch=2):
        waited.append(time.perf_counter() - asked)
        time.sleep(0.025)
        asked = time.perf_counter()
    # Unhidden it would be 20 ms each; the median leaves room for a busy machine.
    assert np.median(waited[2:]) < 0.010


def test_words_belong_to_positions():
    everything = draws.words(seed=3, epoch=2, first=0, count=20, each=5)
    np.testing.assert_array_equal(everything[7:12], draws.words(seed=3, epoch=2, first=7, count=5, each=5))
    assert (everything != draws.words(seed=3, epoch=3, first=0, count=20, each=5)).any()
    assert draws.words(seed=3, epoch=2, first=0, count=4, each=0).shape == (4, 0)


def test_empty_dataset_has_no_batches():
    empty = ArrayDataset(np.zeros((0, 1, 2, 2), np.uint8), np.zeros(0, np.int64), "ab")
    assert list(DataLoader(empty, 3, shuffle=True)) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"batch_size": 0}, "batch_size"), ({"workers": -1}, "workers"), ({"prefetch": 1.5}, "prefetch")],
)
def test_settings_are_checked(settings, named):
    with pytest.raises((ValueError, TypeError), match=named):
        loader(**settings)
