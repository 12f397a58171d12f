"""A timeline of calls as a file that https://ui.perfetto.dev and chrome://tracing open.

>>> trace = Trace()
>>> with Sa2VA(on_event=trace.event) as sa, trace.call("segment") as details:
...     details.update(sa.segment("picture.png", "the red circle").timings)
>>> trace.write("trace.json")

The worker is seen from here: its spans are between its events, on this process's clock, and so contain the way of a
message, a tenth of a millisecond, and what other clients' turns took. The ``timings`` of a result, which belong into
the details, are the worker's own count. The form is Chrome's Trace Event Format, with complete events (``"ph": "X"``)
in microseconds.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from .events import Event, Progress

HOST, WORKER = 1, 2
"""The process rows. They are numbers of rows, not of processes: a timeline may see several workers."""
_ROWS = {"host": HOST, "transport": HOST, "worker": WORKER, "model": WORKER}
"""The process row of each kind of lane."""
_WORKER_PHASES = ("starting", "loading")
"""What the worker does before there is a model; all other phases are the model's."""


class Span(msgspec.Struct, frozen=True):
    """Something that took time, in seconds of the trace's clock."""

    name: str
    kind: str
    """host, transport, worker or model."""
    thread: int
    begin: float
    end: float
    details: dict[str, Any] = {}


class _Call(msgspec.Struct):
    """What is known of a call in progress. ``seen`` is when its last event came."""

    seen: float
    phase: str = ""


class Trace:
    """Records spans of the host and of the calls that it makes. Thread-safe; each thread's calls have lanes of their
    own. ``clock`` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begun = clock()
        self._spans: list[Span] = []
        self._calls: dict[int, _Call] = {}

    @contextlib.contextmanager
    def span(self, name: str, **details: Any) -> Iterator[dict[str, Any]]:
        """What happens inside is the host's work. The details may be added to until the end."""
        begin = self._clock()
        try:
            yield details
        finally:
            self._add(name, "host", begin, self._clock(), details)

    @contextlib.contextmanager
    def call(self, name: str, **details: Any) -> Iterator[dict[str, Any]]:
        """A call to a worker, made inside on this thread, whose client has `event` as its ``on_event``."""
        thread = threading.get_ident()
        with self.span(name, **details) as known:
            self._calls[thread] = call = _Call(self._clock())
            try:
                yield known
            finally:
                del self._calls[thread]
                if call.phase:  # else no worker was heard
                    self._add("from the worker", "transport", call.seen, self._clock())

    def event(self, event: Event) -> None:
        """For ``on_event``. Events outside a `call` are passed over."""
        call = self._calls.get(threading.get_ident())
        if call is None or not isinstance(event, Progress):
            return
        begin, call.seen = call.seen, self._clock()
        # An event tells what was done since the last one; with nothing done it is the beginning of a phase.
        phase = event.phase if event.done else call.phase
        call.phase = event.phase
        if not phase:
            self._add("to the worker", "transport", begin, call.seen)
        else:
            self._add(phase, "worker" if phase in _WORKER_PHASES else "model", begin, call.seen)

    @property
    def spans(self) -> list[Span]:
        """What was recorded, by beginning; a span that contains others comes before them."""
        return sorted(self._spans, key=lambda span: (span.begin, -span.end))

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the file; raises `OSError` as the system does."""
        from . import media

        # What a link such as /dev/stdout leads to is written, and the link stays.
        return media.write_json(os.path.realpath(path), self.document())

    def document(self) -> dict[str, Any]:
        """The file's content: `traceEvents`, whose first ones name the rows."""
        spans = self.spans
        lanes = {lane: number for number, lane in enumerate(dict.fromkeys((s.kind, s.thread) for s in spans))}
        names = [_name("process_name", row, 0, name) for row, name in ((HOST, "host"), (WORKER, "worker"))]
        names += [_name("thread_name", _ROWS[kind], lane, kind) for (kind, _), lane in lanes.items()]
        return {
            "traceEvents": [
                *names,
                *(
                    {
                        "name": span.name,
                        "cat": span.kind,
                        "ph": "X",
                        "ts": (span.begin - self._begun) * 1e6,
                        "dur": (span.end - span.begin) * 1e6,
                        "pid": _ROWS[span.kind],
                        "tid": lanes[span.kind, span.thread],
                        "args": span.details,
                    }
                    for span in spans
                ),
            ],
            "displayTimeUnit": "ms",
        }

    def _add(
        self, name: str, kind: str, begin: float, end: float, details: dict[str, Any] | None = None
    ) -> None:
        thread = threading.get_ident()
        self._spans.append(Span(name, kind, thread, begin, end, details or {}))


def _name(what: str, row: int, lane: int, name: str) -> dict[str, Any]:
    """A metadata event."""
    return {"name": what, "ph": "M", "pid": row, "tid": lane, "args": {"name": name}}
