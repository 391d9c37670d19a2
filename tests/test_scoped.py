"""Settings for good and for a block: `use_backend`, and `use_accuracy`, which is made the same way."""

import threading

import pytest

import pycnn
from pycnn import algorithms, backends


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for kind in (pycnn.use_backend, pycnn.use_accuracy):
        monkeypatch.setattr(kind, "lasting", [])


def test_a_block_ends():
    with pycnn.use_backend("reference"):
        with pycnn.use_backend("shapes"):
            assert backends.selected() == "shapes"
        assert backends.selected() == "reference"
    assert backends.selected() is None
    assert algorithms.accuracy() == "fast"


def test_without_a_block_it_lasts():
    pycnn.use_backend("reference")
    with pycnn.use_backend("cpu"):
        assert backends.selected() == "cpu"
    assert backends.selected() == "reference"
    pycnn.use_backend("shapes")
    assert backends.selected() == "shapes"
    pycnn.use_backend(None)
    assert backends.selected() is None


def test_none_inside_a_block_lets_the_array_decide():
    pycnn.use_backend("reference")
    with pycnn.use_backend(None):
        assert backends.selected() is None
    assert backends.selected() == "reference"


def test_a_block_holds_for_its_thread_and_a_lasting_one_for_all():
    seen = []
    pycnn.use_accuracy("strict")
    with pycnn.use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append((backends.selected(), algorithms.accuracy())))
        thread.start()
        thread.join()
    assert seen == [(None, "strict")]


def test_blocks_of_two_threads_leave_nothing_behind():
    first, second = pycnn.use_backend("reference"), pycnn.use_backend("reference")  # both made before either is entered
    with first, second:
        pass
    assert backends.selected() is None


def test_a_failed_block_ends_too():
    with pytest.raises(KeyError), pycnn.use_accuracy("strict"):
        raise KeyError
    assert algorithms.accuracy() == "fast"


@pytest.mark.parametrize("use", [pycnn.use_backend, pycnn.use_accuracy])
def test_an_unknown_name_changes_nothing(use):
    with pytest.raises(ValueError, match="must be one of"):
        use("fastest")
    assert use.lasting == []
