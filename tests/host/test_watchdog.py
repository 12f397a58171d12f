"""When a living worker counts as hanging, with a clock that the test turns."""

import pytest

from sa2va_host.lifecycle.watchdog import CANCEL_MARGIN, Watchdog


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def dog(clock):
    return Watchdog(stall_limit=10.0, cancel_grace=5.0, loaded=True, clock=clock)


def test_silence_counts_only_while_calls_are_open(dog, clock):
    clock.now += 11
    assert dog.verdict(calls_open=False) is None
    verdict = dog.verdict(calls_open=True)
    assert verdict is not None
    assert verdict.code == "worker_stalled"
    dog.rest()
    assert dog.verdict(calls_open=True) is None


def test_an_answer_counts_from_the_engines_last_step(dog, clock):
    clock.now += 9
    dog.heard(silent=9.0)
    clock.now += 2
    assert dog.verdict(calls_open=True) is not None
    dog.heard()
    assert dog.verdict(calls_open=True) is None


def test_a_call_that_was_given_up_must_end(dog, clock):
    dog.gave_up(1)
    dog.gave_up(2)
    assert dog.has_reason
    dog.ended(1)
    clock.now += 5 + CANCEL_MARGIN
    assert dog.verdict(calls_open=False) is None
    clock.now += 0.1
    verdict = dog.verdict(calls_open=False)
    assert verdict is not None
    assert "after it was cancelled" in verdict.what
    dog.ended(2)
    dog.ended(3)
    assert not dog.has_reason
    assert dog.verdict(calls_open=False) is None


def test_pings_come_once_a_second(dog, clock):
    assert dog.ping_is_due()
    assert not dog.ping_is_due()
    clock.now += 1
    assert dog.ping_is_due()


def test_a_load_without_progress_is_given_less_time(clock):
    dog = Watchdog(stall_limit=10.0, cancel_grace=5.0, loaded=False, clock=clock)
    clock.now += 3
    assert dog.verdict(calls_open=True) is None
    clock.now += 0.1
    verdict = dog.verdict(calls_open=True)
    assert verdict is not None
    assert verdict.what == "made no progress while it loaded for 3 s and was ended"
    dog.loaded = True
    assert dog.verdict(calls_open=True) is None
