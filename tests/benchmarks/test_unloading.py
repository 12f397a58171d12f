"""Memory is back when the driver says so, not when `unload` returns."""

from __future__ import annotations

import time

import pytest

from benchmarks import unloading
from sa2va_host.machine.nvidia import Driver, Gpu


@pytest.fixture
def free(monkeypatch):
    """What the driver says is free, one answer after the other; the last one for ever."""

    def say(*answers):
        left = list(answers)
        monkeypatch.setattr(unloading, "free_memory", lambda: left.pop(0) if len(left) > 1 else left[0])

    return say


def test_the_time_goes_on_until_the_driver_counts_as_much_free_as_before(free):
    free(400, 400, 1000)
    unload, until, left = unloading.measure(lambda: time.sleep(0.02), before=1000)
    assert 0.02 <= unload.median < until.median < 1
    assert left.values == (0.0,)
    assert not left.missed


def test_what_is_left_after_a_second_misses_its_aim(free, monkeypatch):
    monkeypatch.setattr(unloading, "WITHIN", 0.1)
    free(400)
    _, until, left = unloading.measure(lambda: None, before=1000)
    assert not until.values
    assert "did not within 0.1 s" in until.reason
    assert left.values == (600.0,)
    assert left.missed


def test_without_a_driver_only_the_unload_is_measured():
    unload, until, left = unloading.measure(lambda: None, before=None)
    assert unload.values
    assert "no NVIDIA driver tells" in until.reason
    assert "no NVIDIA driver tells" in left.reason


def test_a_driver_that_does_not_tell_its_memory_is_none(monkeypatch):
    """It would seem that nothing is left."""
    shared = Driver("570.1", "12.8", (Gpu("GB10", 0, 0),))
    monkeypatch.setattr(unloading, "find_driver", lambda: shared)
    assert unloading.free_memory() is None
