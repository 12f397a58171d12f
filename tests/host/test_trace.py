"""A timeline that viewers open: whose work each moment was, on a clock of the test's own."""

from __future__ import annotations

import json
import threading

import pytest

from sa2va_host.events import Event, Progress, TextPiece
from sa2va_host.trace import HOST, WORKER, Trace


class Clock:
    """Counts whole seconds, one for each look at it."""

    def __init__(self):
        self.now = -1.0

    def __call__(self):
        self.now += 1.0
        return self.now


COLD_CALL: list[Event] = [
    Progress("starting"),
    Progress("loading", 0, 10, "bytes"),
    Progress("loading", 10, 10, "bytes"),
    Progress("encoding", 0, 1, "frames"),
    Progress("encoding", 1, 1, "frames"),
    TextPiece("Sure"),
    Progress("generating", 4, 4, "tokens"),
    Progress("tracking", 1, 1, "frames"),
]


@pytest.fixture
def trace():
    """Of a first call: the host begins it in second 1, and sees each of its events a second after the one before."""
    trace = Trace(Clock())
    with trace.call("segment", prompt="it") as details:
        for event in COLD_CALL:
            trace.event(event)
        details["tokens"] = 4
    return trace


def test_every_moment_of_a_call_belongs_to_one_phase_in_order(trace):
    whole, *parts = trace.spans
    assert (whole.name, whole.kind, whole.details) == ("segment", "host", {"prompt": "it", "tokens": 4})
    assert [(part.kind, part.name) for part in parts] == [
        ("transport", "to the worker"),
        ("worker", "starting"),
        ("worker", "loading"),
        ("worker", "loading"),
        ("model", "encoding"),
        ("model", "generating"),
        ("model", "tracking"),
        ("transport", "from the worker"),
    ]
    assert [part.begin for part in parts[1:]] == [part.end for part in parts[:-1]]
    assert whole.begin < parts[0].begin
    assert parts[-1].end < whole.end


def test_the_file_has_one_process_row_for_host_and_worker_each(trace, tmp_path):
    events = json.loads(trace.write(tmp_path / "trace.json").read_text())["traceEvents"]
    rows = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert rows == {HOST: "host", WORKER: "worker"}
    lanes = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    spans = [event for event in events if event["ph"] == "X"]
    for span in spans:
        assert set(span) == {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"}
        assert lanes[span["tid"]] == span["cat"]
        assert rows[span["pid"]] == ("worker" if span["cat"] in ("worker", "model") else "host")
    assert (spans[1]["ts"], spans[1]["dur"]) == (2e6, 1e6)  # microseconds since the trace was made


def test_calls_at_the_same_time_have_lanes_of_their_own(trace):
    def call():
        with trace.call("another"):
            trace.event(Progress("encoding", 0, 1))

    thread = threading.Thread(target=call)
    with trace.call("one"):
        thread.start()
        thread.join()
    spans = [
        event for event in trace.document()["traceEvents"] if event["ph"] == "X" and event["cat"] == "host"
    ]
    assert len({span["tid"] for span in spans if span["name"] in ("one", "another")}) == 2


def test_a_call_that_fails_is_there_and_one_without_a_worker_has_no_transport():
    trace = Trace()
    with pytest.raises(ValueError, match="no"), trace.call("segment"):
        raise ValueError("no")
    trace.event(Progress("encoding", 1, 1))  # of nobody's call
    assert [(span.kind, span.name) for span in trace.spans] == [("host", "segment")]
