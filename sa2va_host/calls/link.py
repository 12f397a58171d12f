"""The thread between calls and the worker: it owns the socket, and it is the first to know when the worker dies.

Any thread may submit calls. The link finds or starts a worker when there is a call to send (on a third thread, since
that waits), watches deadlines and the worker's process, and resolves every call: with an answer, with the worker's
error, or with why the worker is gone. One link serves one specification; it never restarts anything unasked.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import wait

import zmq

from sa2va_host.errors import Cancelled, InvalidInput, OutOfMemory, Sa2VAError, WorkerError
from sa2va_host.events import Progress
from sa2va_host.lifecycle.connection import Connection, death, no_connection
from sa2va_host.lifecycle.rendezvous import Record, RunDirectory
from sa2va_host.lifecycle.watchdog import PING_EVERY, Watchdog
from sa2va_host.protocol import transport, wire
from sa2va_host.protocol.shared_memory import Arena, Ledger
from sa2va_host.protocol.wire import to_error

from .book import CallBook, Room, fail_each
from .call import Call
from .peer import Peer
from .search import Connect, Search

_PING = 0
"""The call id of our own status questions; real calls count from 1."""
_TOO_LATE = 0.1
"""A call sent within so many seconds of the worker's death counts as made after it."""
_CANCELLING = 1.0
"""The longest that a caller waits for its cancelled call to be let go, which takes a millisecond."""
_LONGEST_POLL = 3600.0
_TRIM_AFTER = 5.0
"""Seconds without a call after which shared memory is given back."""


class Link:
    """Connects calls with one worker specification. ``close`` ends its thread and every open call."""

    def __init__(
        self, connect: Connect, *, max_open: int, stall_limit: float, cancel_grace: float, unload_wait: float
    ) -> None:
        self._stall_limit = stall_limit
        self._cancel_grace = cancel_grace
        self._unload_wait = unload_wait
        try:
            self._waker = transport.Waker()
        except OSError as error:
            raise no_connection(error) from error
        try:
            self._context = transport.make_context()
        except (OSError, zmq.ZMQError) as error:
            self._waker.close()
            raise no_connection(error) from error
        self.arena = Arena()
        """Where the arrays of calls are put, so that the worker sees them without their being sent."""
        self._trim_at: float | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._book = CallBook(max_open)
        self._worker: Peer | None = None
        self._searching = Search(connect, self._tell)
        self._closed = False
        self.failure: WorkerError | None = None
        """Why it ended by itself, for want of descriptors perhaps; another one may do better."""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="sa2va-link", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._shut(Cancelled("The connection never began."))
            raise no_connection(error) from error

    def attach(self, found: tuple[Record, RunDirectory]) -> None:
        """Connect to a worker before there is a call for it, unless there is one by then."""
        self._tell(lambda: self._attach(found))

    def reserve(self) -> Room:
        """Take room for one call, before anything is copied for it. Raises `WorkerBusy` when there is none."""
        self._book.reserve()
        return Room(self, self._book)

    @property
    def is_idle(self) -> bool:
        """Whether no call is open, and none has room."""
        return self._book.is_empty

    def submit(self, call: Call) -> None:
        """Begin a call; through `Room`, which counted it."""
        self._book.enter(call)
        with self._lock:
            # Under the lock: once closed, nobody would look at the command.
            if not self._closed:
                self._tell(lambda: self._begin(call))
                return
        fail_each([call], self.failure or Cancelled("This Sa2VA object is closed.", advice="Make a new one."))

    def post(self, call: Call, message: wire.Message, buffers: Sequence[memoryview] = ()) -> None:
        """Send a further message of a call that has begun. Nothing happens when it is over."""
        self._tell(lambda: self._continue(call, message, buffers))

    def cancel(self, call: Call, error: Sa2VAError) -> None:
        """Resolve the call with ``error``, and tell the worker to stop working on it. Its room is free on return."""
        self.drop(call, error)
        if self._thread.is_alive() and self._thread is not threading.current_thread():  # not so after a fork
            wait([call.future], _CANCELLING)

    def drop(self, call: Call, error: Sa2VAError) -> None:
        """The same without waiting for it. Takes no lock, so that a signal handler may do it."""
        self._tell(lambda: self._abandon(call, error))

    def close(self) -> None:
        """End everything; idempotent. The worker stays, as its keep_alive says."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._waker.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _tell(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._waker.wake()

    def _run(self) -> None:
        try:
            while not self._closed:
                self._poll()
                while self._commands:
                    self._commands.popleft()()
                self._receive()
                self._watch()
        except BaseException as error:  # our own mistake must not leave callers waiting for ever
            self.failure = WorkerError(
                f"The connection to the worker failed: {type(error).__name__}: {error}."
            )
            self._shut(self.failure)
            raise
        else:
            self._shut(Cancelled("The Sa2VA object was closed while the call was open."))

    def _shut(self, error: Sa2VAError) -> None:
        with self._lock:
            self._closed = True
        while self._commands:
            with contextlib.suppress(Exception):  # what ended the thread may be in their way too
                self._commands.popleft()()
        fail_each(self._book.take_sent() + self._book.take_waiting(), error)
        worker, self._worker = self._worker, None
        if worker is not None:  # have it drop what we asked, and give the message a moment to leave
            worker.connection.say_goodbye()
            worker.connection.close(linger=0.0 if worker.connection.is_dead() else 0.2)
        self._context.term()
        self._waker.close()
        self.arena.close()

    def _poll(self) -> None:
        poller = zmq.Poller()
        poller.register(self._waker.fileno(), zmq.POLLIN)
        if self._worker is not None:
            self._worker.connection.register(poller)
        poller.poll(self._poll_milliseconds())
        self._waker.clear()

    def _poll_milliseconds(self) -> int | None:
        now = time.monotonic()
        if self._worker is None and self._book.waiting and not self._searching.runs:
            return 0
        dues = self._book.deadlines()
        if self._trim_at is not None and not self._book.sent:
            dues.append(self._trim_at)
        if self._worker is not None:
            if self._book.sent or self._worker.watchdog.has_reason:
                dues.append(now + PING_EVERY / 2)
            seconds = self._worker.connection.poll_seconds()
            if seconds is not None:
                dues.append(now + seconds)
        return int(min(max(0.0, min(dues) - now), _LONGEST_POLL) * 1000) + 1 if dues else None

    def _receive(self) -> None:
        while self._worker is not None:
            try:
                received = self._worker.connection.receive()
            except Sa2VAError as error:
                fail_each(self._book.take_sent(), error)
                self._disconnect()
                return
            if received is None:
                return
            self._handle(self._worker.watchdog, received.message, received.buffers)

    def _handle(self, watchdog: Watchdog, message: wire.WorkerReply, buffers: Sequence[memoryview]) -> None:
        if isinstance(message, wire.StatusReply):
            # That it answers is not enough: what counts is whether its engine moves.
            watchdog.heard(message.report.silent)
            watchdog.loaded = message.report.info is not None
            return
        watchdog.heard()
        if isinstance(message, wire.Log):
            for call in self._book.sent.values():
                call.log(message)
        elif isinstance(message, wire.Ready):
            watchdog.loaded = message.info is not None
        elif isinstance(message, wire.Failed) and message.call == _PING:
            # A payload that it could not read, and so did not know whose it was.
            fail_each(self._book.take_sent(), to_error(message))
        elif message.call not in self._book.sent:
            # Cancelled or timed out; its result reaches nobody.
            if isinstance(message, (wire.Failed, wire.Answer, wire.Ending)):
                watchdog.ended(message.call)
        elif isinstance(message, wire.Ending):
            self._send_again(self._book.sent.pop(message.call))
            if not self._book.sent:
                self._disconnect()  # it may go on for others for long; the next worker need not wait for it
        elif isinstance(message, wire.Failed):
            self._fail(self._book.sent.pop(message.call), to_error(message))
        else:
            watchdog.loaded = watchdog.loaded or isinstance(message, (wire.Started, wire.Loaded))
            call = self._book.sent[message.call]
            try:
                call.handle(message, buffers)
            except wire.BadMessage as error:
                call.fail(WorkerError(f"The worker's answer cannot be read: {error}."))
            if call.done:
                self._book.remove(call)

    def _watch(self) -> None:
        """Everything that is due by the clock, and the worker's death."""
        for call in self._book.overdue(time.monotonic()):
            self._abandon(call, call.late(sent=call.id in self._book.sent))
        worker = self._worker
        if worker is None:
            if self._book.waiting and not self._searching.runs:
                self._search()
            return
        if worker.connection.is_dead():
            self._bury(worker)
            return
        busy = bool(self._book.sent)
        if busy:
            self._trim_at = time.monotonic() + _TRIM_AFTER
        elif self._trim_at is not None and time.monotonic() >= self._trim_at:
            self.arena.trim()
            self._trim_at = None
        if not busy:
            worker.watchdog.rest()
        elif worker.watchdog.ping_is_due():
            worker.connection.send(wire.Status(call=_PING))
        verdict = worker.watchdog.verdict(calls_open=busy)
        if verdict is not None:
            worker.end(verdict)

    def _begin(self, call: Call) -> None:
        if call.done:
            return
        if self._worker is not None and not self._worker.connection.is_dead():
            self._send_call(self._worker, call)
        else:
            self._book.waiting.append(call)

    def _send_call(self, worker: Peer, call: Call) -> None:
        if not self._book.sent:
            worker.watchdog.rest()
        self._book.sent[call.id] = call
        message, buffers = call.open()
        call.answered_by(worker.connection.pid, worker.connection.record.created)
        call.phase = "queued"
        try:
            worker.connection.send(message, buffers)
        except wire.BadMessage as error:
            self._book.remove(call)
            call.fail(InvalidInput(f"The call cannot be sent: {error}."))

    def _send_again(self, call: Call, *, died: bool = False) -> None:
        """The worker left without beginning this call: it goes to the next one, for a while."""
        if error := call.worker_left(died, self._unload_wait):
            call.fail(error)
        else:
            self._book.waiting.append(call)

    def _fail(self, call: Call, error: Sa2VAError) -> None:
        """The worker failed a call. Where it was the model that found no memory, others may make way for it."""
        if isinstance(error, OutOfMemory) and not call.begun:
            self._searching.full = error, call.put_off(time.monotonic(), self._unload_wait)
            self._book.waiting.append(call)
        else:
            call.fail(error)

    def _continue(self, call: Call, message: wire.Message, buffers: Sequence[memoryview]) -> None:
        if self._worker is not None and call.id in self._book.sent:
            self._worker.connection.send(message, buffers)

    def _abandon(self, call: Call, error: Sa2VAError) -> None:
        call.fail(error)
        was_sent = self._book.remove(call)
        if not self._book.waiting:
            self._searching.full = None  # nobody is left for whom others should make way
        if was_sent and self._worker is not None:
            # A call may have begun without our knowing: a step that locks the interpreter keeps its Started back.
            if call.begun or self._worker.watchdog.loaded:
                self._worker.watchdog.gave_up(call.id)
            self._worker.connection.send(wire.Cancel(call=call.id))

    def _search(self) -> None:
        self._searching.begin(
            given_up=lambda: self._closed or not self._book.waiting,
            starting=lambda: self._book.tell_waiting(Progress("starting")),
            found=self._connected,
            failed=self._search_failed,
        )

    def _attach(self, found: tuple[Record, RunDirectory]) -> None:
        if self._worker is None and not self._searching.runs:
            self._connected(found)

    def _search_failed(self, error: BaseException) -> None:
        # Where whoever it was for went away, and others came meanwhile, it is tried again.
        if not (isinstance(error, Cancelled) and not self._closed and self._book.waiting):
            fail_each(self._book.take_waiting(), error)

    def _connected(self, found: tuple[Record, RunDirectory] | OutOfMemory) -> None:
        if isinstance(found, OutOfMemory):
            for call in self._book.take_waiting():
                self._fail(call, found)
            return
        record, run = found
        watchdog = Watchdog(
            stall_limit=self._stall_limit, cancel_grace=self._cancel_grace, loaded=record.info is not None
        )
        try:
            self._worker = Peer(Connection(self._context, record, Ledger(self.arena)), run, watchdog)
        except Sa2VAError as error:  # no descriptor is left for the socket, say; the worker lives on
            fail_each(self._book.take_waiting(), error)
            return
        for call in self._book.take_waiting():
            self._send_call(self._worker, call)

    def _bury(self, worker: Peer) -> None:
        """The worker's process is gone: find out why, and tell every call."""
        connection = worker.connection
        known, note = connection.exit_note(worker.run)
        if not (known and connection.is_drained()):
            return
        self._receive()  # answers that were on the way when it died
        died_at, loaded, unreached = connection.died_at, worker.watchdog.loaded, connection.was_out_of_reach
        self._disconnect()
        tail = worker.run.log_tail(connection.record.incarnation)
        for call in self._book.take_sent():
            # Where the note says what failed, that is the call's error too, whether it arrived or not: to be out of
            # memory is answered by others making way, not by trying again.
            unheard = unreached and (note is None or not note.code)
            innocent = unheard or (note is not None and (note.orderly or note.resend))
            # To its caller a call to a worker that is as good as dead is a "next call", which must work.
            too_late = loaded and died_at - call.sent_at < _TOO_LATE
            if not call.begun and (innocent or too_late):
                self._send_again(call, died=note is None or not note.orderly)
            else:
                self._fail(call, death(connection.record, note, call.phase, tail))

    def _disconnect(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.connection.close()
            self.arena.trim()
