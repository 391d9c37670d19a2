"""benchmarks.host_cost runs each of its calls through the whole host code, and no call is out of all proportion."""

from __future__ import annotations

from benchmarks import host_cost


def test_every_call_is_measured() -> None:
    found = host_cost.measure(20)
    assert found.keys() == host_cost.calls().keys()
    for name, (ours, _) in found.items():
        # A call takes 5 to 15 microseconds on an idle machine; ten times that is a plan made anew each time.
        assert 0 < ours < 300, name
