"""One process's connection to one worker specification: it is made when a call needs it, and made anew after a fork.

Called by `sa2va_host.client`. Submits calls to the link, waits for them on the caller's thread, and lets go when it is
closed, forgotten, or when the interpreter ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from sa2va_host.cancellation import Cancellation
from sa2va_host.config import Settings, checked_timeout
from sa2va_host.errors import Cancelled, OutOfMemory, Sa2VAError
from sa2va_host.events import Event
from sa2va_host.lifecycle.workers import run_directory
from sa2va_host.protocol.specification import Specification

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sa2va_host.lifecycle.rendezvous import Record, RunDirectory
    from sa2va_host.protocol.wire import ArrayHeader, Message

    from .book import Room
    from .call import Call, Note, Outcome
    from .link import Link
    from .pace import WholePace
    from .search import Connect, Full


class Session:
    """Thread-safe. Nothing is started until `reserve`."""

    def __init__(
        self,
        specification: Specification,
        settings: Settings,
        *,
        on_event: Callable[[Event], None] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._specification = specification
        self._settings = settings
        self._on_event = on_event
        self._command = list(command) if command is not None else None
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._link_pid = 0
        self._closed = False
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def close(self) -> None:
        """Open calls end as `Cancelled`, later ones too; idempotent."""
        self._closed = True
        if self._finalizer is not None:
            self._finalizer()

    def attach(self) -> None:
        """Connect to the worker if there is one that has its model, while the caller still prepares a call. Starts
        none and raises nothing: what is wrong is the call's to say.
        """
        with contextlib.suppress(Sa2VAError):
            if found := _find_loaded(self._specification, self._settings):
                self._connected().attach(found)

    def reserve(self) -> Room:
        """Room for one call, for `with`. Raises `WorkerBusy` when too many are open, `Cancelled` once closed."""
        return self._connected().reserve()

    def call(
        self,
        opening: Callable[[int, list[ArrayHeader]], Message],
        arrays: Callable[[], Sequence[NDArray[Any] | memoryview]] = tuple,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Outcome:
        """Submit a call and wait for what it brings, as `follow` does. ``arrays`` is asked once there is room, since a
        call that is refused is to cost nothing; ``opening`` has their headers.
        """
        from .call import Done

        with self.reserve() as room:
            headers, buffers = room.pack(arrays())
            for call, note in self.follow(
                room, lambda number: opening(number, headers), buffers, timeout, cancellation
            ):
                if isinstance(note, Done):
                    outcome = call.future.result()
                    outcome.arrays = headers
                    return outcome
        raise AssertionError("the last note of a call is Done")

    def follow(
        self,
        room: Room,
        opening: Callable[[int], Message],
        buffers: Sequence[memoryview] = (),
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
        *,
        streams: bool = False,
        pace: WholePace | None = None,
    ) -> Generator[tuple[Call, Note], None, None]:
        """Submit a call and wait for it on this thread, where events are delivered too: its notes as they come, at
        last `Done`.

        ``opening`` makes the first message for a call id; with ``streams`` masks are notes too, else they are of the
        outcome; ``pace`` as `Call` says. Closing the iterator, Ctrl-C and whatever a callback raises cancel the call.
        """
        from .call import Call, Done

        notes: queue.SimpleQueue[Note | Cancelled] = queue.SimpleQueue()
        limit = self._settings.timeout if timeout is None else checked_timeout(timeout)
        call = Call(opening, buffers, timeout=limit, listener=notes.put, streams=streams, pace=pace)
        with (cancellation or Cancellation()).heard_by(notes.put):
            room.submit(call)
            try:
                while True:
                    try:
                        note = notes.get(timeout=0.5)  # with a limit, so that Ctrl-C arrives on every system
                    except queue.Empty:
                        continue
                    if isinstance(note, Cancelled):
                        raise note
                    if self._on_event is not None and isinstance(note, Event):
                        self._on_event(note)
                    yield call, note
                    if isinstance(note, Done):
                        return
            except BaseException:
                room.link.cancel(call, Cancelled("The caller went away."))
                raise

    def _connected(self) -> Link:
        """The link of this process; a fork gets its own, and so does whoever comes after one that failed."""
        with self._lock:
            if self._is_closed():
                raise Cancelled("This Sa2VA object is closed.", advice="Make a new one.")
            if self._link is None or self._link_pid != os.getpid() or self._link.failure:
                from .link import Link

                self._link = Link(
                    _connector(self._specification, self._settings, self._command),
                    max_open=self._settings.queue_bound,
                    stall_limit=self._settings.stall_limit,
                    cancel_grace=self._settings.cancel_grace,
                    unload_wait=self._settings.unload_wait,
                )
                self._link_pid = os.getpid()
                self._finalizer = weakref.finalize(self, _close, self._link, self._link_pid)
                if self._is_closed():  # by another thread meanwhile, which found nothing to close
                    self._finalizer()
            return self._link

    def _is_closed(self) -> bool:
        return self._closed


def _connector(specification: Specification, settings: Settings, command: Sequence[str] | None) -> Connect:
    """Finds or starts the worker. Holds no reference to the session, so that it can be collected."""
    rivals: list[Record] = []  # who was in the way when the last one was started

    def connect(
        cancelled: Callable[[], bool], starting: Callable[[], None], full: Full | None
    ) -> tuple[Record, RunDirectory] | OutOfMemory:
        if full is None and (found := _find_loaded(specification, settings)):
            return found  # nobody is started or makes way, and what that takes is not imported
        from sa2va_host.lifecycle.eviction import in_the_way, make_way
        from sa2va_host.lifecycle.launcher import ensure_worker

        run = run_directory(settings)
        if full is not None:
            error, until = full
            make_way(specification, run, error, until=until, rivals=rivals, cancelled=cancelled)
        rivals[:] = in_the_way(specification, run)
        try:
            record = ensure_worker(
                specification, settings, run, command=command, cancelled=cancelled, starting=starting
            )
        except OutOfMemory as error:
            return error
        return record, run

    return connect


def _find_loaded(specification: Specification, settings: Settings) -> tuple[Record, RunDirectory] | None:
    """A worker that has its model in memory."""
    run = run_directory(settings)
    record = run.find(specification)
    return None if record is None or record.info is None else (record, run)


def _close(link: Link, pid: int) -> None:
    """Also runs at interpreter exit. In a fork the link's thread does not exist: leave its parent's things
    alone.
    """
    if pid == os.getpid():
        link.close()
