"""One process's connection to one worker specification: it is made when a call needs it, and made anew after a fork.

Called by `sa2va_host.client`. Submits calls to the link, waits for them on the caller's thread, and lets go when it is
closed, forgotten, or when the interpreter ends.
"""

from __future__ import annotations

import contextlib
import copy
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from sa2va_host.cancellation import Cancellation
from sa2va_host.config import Settings, checked_timeout
from sa2va_host.errors import Cancelled, OutOfMemory, Sa2VAError
from sa2va_host.events import Event
from sa2va_host.lifecycle.workers import run_directory
from sa2va_host.models.choice import refreshed
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

_PATIENCE = 0.5
"""Seconds between two looks whether Ctrl-C was pressed, where the system does not interrupt who waits."""


class Session:
    """Thread-safe. Nothing is started until `reserve`."""

    def __init__(
        self,
        specification: Specification,
        settings: Settings,
        *,
        on_event: Callable[[Event], None] | None = None,
        command: Sequence[str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """``notes`` stand before those of every outcome. ``specification`` is looked at again for each call: a
        checkpoint that was replaced meanwhile is another one, and has a worker of its own.
        """
        self._notes = tuple(notes)
        self._specification = specification
        self._settings = settings
        self._on_event = on_event
        self._command = list(command) if command is not None else None
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._link_pid = 0
        self._closed = False
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._left: list[tuple[Link, weakref.finalize[Any, Any]]] = []
        """Links whose checkpoint was replaced, while they still have calls; and what closes them."""
        self._earlier: list[Specification] = []
        """What was asked for before a checkpoint was replaced."""

    def close(self) -> None:
        """Open calls end as `Cancelled`, later ones too, and one that is just connecting; idempotent."""
        with self._lock:  # a link that is being made is waited for: nobody else would close it
            self._closed = True
            finalizers = [self._finalizer, *(finalizer for _, finalizer in self._left)]
        for finalizer in filter(None, finalizers):
            finalizer()

    def specifications(self) -> list[Specification]:
        """What a call would ask for now; then what earlier calls asked for, before a checkpoint was replaced."""
        now = refreshed(self._specification)
        with self._lock:
            earlier = [self._specification, *reversed(self._earlier)]
        return list({each.key: each for each in (*reversed(earlier), now)}.values())[::-1]

    def attach(self) -> None:
        """Connect to the worker if there is one that has its model, while the caller still prepares a call. Starts
        none and raises nothing: what is wrong is the call's to say.
        """
        with contextlib.suppress(Sa2VAError):
            now = refreshed(self._specification)
            if found := _find_loaded(now, self._settings):
                with self._lock:
                    self._connected(now).attach(found)

    def reserve(self) -> Room:
        """Room for one call, for `with`. Raises `WorkerBusy` when too many are open, `Cancelled` once closed."""
        now = refreshed(self._specification)
        with self._lock:  # else another thread, which finds the link without a call, might close it first
            return self._connected(now).reserve()

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
        asked: float | None = None,
        notes: queue.SimpleQueue[Note | Cancelled] | None = None,
    ) -> Generator[tuple[Call, Note], None, None]:
        """Submit a call and wait for it on this thread, where events are delivered too: its notes as they come, at
        last `Done`.

        ``opening`` makes the first message for a call id; with ``streams`` masks are notes too, else they are of the
        outcome; ``pace`` and ``asked`` as `Call` says. Others may put notes of their own into ``notes`` (`FrameRead`).
        Closing the iterator, Ctrl-C and whatever a callback raises cancel the call.
        """
        from .call import Call, Done

        heard: queue.SimpleQueue[Note | Cancelled] = queue.SimpleQueue() if notes is None else notes
        call = Call(
            opening,
            buffers,
            timeout=self.limit(timeout),
            listener=heard.put,
            streams=streams,
            pace=pace,
            asked=asked,
        )

        def cancelled(error: Cancelled) -> None:
            heard.put(error)
            # Not by way of this thread, which may be anywhere between two notes.
            room.link.drop(call, copy.copy(error))

        with (cancellation or Cancellation()).heard_by(cancelled):
            room.submit(call)
            try:
                while True:
                    note = next_note(heard)
                    if self._on_event is not None and isinstance(note, Event):
                        self._on_event(note)
                    if isinstance(note, Done) and self._notes and call.future.exception() is None:
                        outcome = call.future.result()
                        outcome.notes = [*self._notes, *outcome.notes]
                    yield call, note
                    if isinstance(note, Done):
                        return
            except BaseException:
                if not call.done:
                    room.link.cancel(call, Cancelled("The caller went away."))
                raise

    def limit(self, timeout: float | None) -> float | None:
        """How many seconds a call may take for which ``timeout`` was said; None for any number."""
        return self._settings.timeout if timeout is None else checked_timeout(timeout)

    def _connected(self, specification: Specification) -> Link:
        """The link of this process; a fork gets its own, and so does whoever comes after one that failed, or after the
        checkpoint was replaced. Under the lock.
        """
        if self._closed:
            raise Cancelled("This Sa2VA object is closed.", advice="Make a new one.")
        if self._link_pid != os.getpid():  # a fork has the threads of none of them
            self._link, self._finalizer = None, None
            self._left.clear()
        if specification.key != self._specification.key:
            if self._link is not None and self._finalizer is not None:
                self._left.append((self._link, self._finalizer))
                self._link, self._finalizer = None, None
            self._earlier = [each for each in self._earlier if each.key != self._specification.key]
            self._earlier.append(self._specification)
        self._specification = specification
        self._close_left()
        if self._link is None or self._link.failure:
            from .link import Link

            self._link = Link(
                _connector(specification, self._settings, self._command),
                max_open=self._settings.queue_bound,
                stall_limit=self._settings.stall_limit,
                cancel_grace=self._settings.cancel_grace,
                unload_wait=self._settings.unload_wait,
            )
            self._link_pid = os.getpid()
            self._finalizer = weakref.finalize(self, _close, self._link, self._link_pid)
        return self._link

    def _close_left(self) -> None:
        """Let go of the links that were left and have no call any more."""
        idle = [each for each in self._left if each[0].is_idle]
        self._left = [each for each in self._left if each not in idle]
        for _, close in idle:
            close()


def next_note(notes: queue.SimpleQueue[Note | Cancelled], until: float | None = None) -> Note:
    """Wait for the next one. Raises `Cancelled` where that is what came, `queue.Empty` when it is ``until`` then
    (monotonic clock).
    """
    while True:
        # With a limit, so that Ctrl-C arrives on every system.
        seconds = _PATIENCE if until is None else min(_PATIENCE, max(0.0, until - time.monotonic()))
        try:
            note = notes.get(timeout=seconds)
        except queue.Empty:
            if until is not None and time.monotonic() >= until:
                raise
            continue
        try:
            if isinstance(note, Cancelled):
                raise note
            return note
        finally:
            del note  # its traceback holds this frame, which must not hold it in a circle


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
