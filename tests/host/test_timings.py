"""Timings of several calls, put together."""

from __future__ import annotations

from sa2va_host.timings import phases, together

FIRST = {
    "encoding": 0.5,
    "generating": 2.0,
    "first_token": 1.0,
    "tokens": 10.0,
    "tokens_per_second": 5.0,
    "load": 3.0,
    "process_peak_bytes": 100.0,
    "device_peak_bytes": 7.0,
    "total": 2.6,
}
SECOND = {**FIRST, "generating": 1.0, "first_token": 0.6, "tokens": 20.0, "process_peak_bytes": 200.0}


def test_the_phases_are_the_models_own_time():
    assert phases(FIRST) == {"encoding": 0.5, "generating": 2.0}


def test_seconds_add_up_and_peaks_do_not():
    assert together([FIRST, SECOND]) == {
        "encoding": 1.0,
        "generating": 3.0,
        "first_token": 1.0,
        "tokens": 30.0,
        "tokens_per_second": 10.0,
        "load": 3.0,
        "process_peak_bytes": 200.0,
        "device_peak_bytes": 7.0,
        "total": 5.2,
    }


def test_one_call_stays_as_it_is_and_none_is_nothing():
    assert together([FIRST]) == FIRST
    assert together([]) == {}


def test_calls_of_other_engines_have_phases_of_their_own():
    assert together([{"matting": 0.5, "total": 1.0}, FIRST])["matting"] == 0.5
