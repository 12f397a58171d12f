"""Rates and times left, told by a clock of the test's."""

from __future__ import annotations

from dataclasses import replace

from sa2va_host.calls.pace import Pace, WholePace
from sa2va_host.events import Progress


def test_the_rate_is_known_from_the_second_event_on() -> None:
    now = 100.0
    pace = Pace(clock=lambda: now)
    first = pace.of(Progress("tracking", 1, 21, "frames"))
    assert (first.rate, first.seconds_left) == (None, None)
    now += 2
    second = pace.of(Progress("tracking", 5, 21, "frames"))
    assert (second.rate, second.seconds_left) == (2.0, 8.0)
    now += 2
    assert pace.of(Progress("tracking", 9, None, "frames")).seconds_left is None


def test_the_rate_is_that_of_late_and_a_phase_begins_anew() -> None:
    now = 0.0
    pace = Pace(clock=lambda: now)
    for done in range(100):
        now += 0.1
        pace.of(Progress("tracking", done, 1000))
    for done in range(100, 140):
        now += 1.0
        pace.of(Progress("tracking", done, 1000))
    now += 1.0
    rate = pace.of(Progress("tracking", 140, 1000)).rate
    assert rate is not None
    assert abs(rate - 1.0) < 0.01
    assert pace.of(Progress("encoding", 3, 5)).rate is None


def test_a_header_that_promises_too_little_leaves_no_time() -> None:
    now = 0.0
    pace = Pace(clock=lambda: now)
    pace.of(Progress("tracking", 1, 5))
    now += 1
    assert pace.of(Progress("tracking", 9, 5)).seconds_left == 0


def test_a_video_in_parts_has_one_course_over_all_of_them() -> None:
    now = 0.0
    pace = WholePace(30, clock=lambda: now)
    words = Progress("generating", 3, None, "tokens")
    assert pace.of(words) is words
    now += 5
    pace.of(Progress("tracking", 1, 10, "frames"))
    pace.before = 10
    assert pace.of(words) is words
    now += 5
    shown = pace.of(Progress("tracking", 1, 10, "frames"))
    assert (shown.done, shown.total, shown.rate, shown.seconds_left) == (11, 30, 2.0, 9.5)


def test_two_events_are_equal_whatever_the_pace() -> None:
    event = Progress("tracking", 1, 5)
    assert replace(event, rate=3.0, seconds_left=1.0) == event
