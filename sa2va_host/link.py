"""The thread between calls and the worker: it owns the socket, and it is the first to know when the worker
dies.

Any thread may submit calls. The link finds or starts a worker when there is a call to send (on a third
thread, since that waits), watches deadlines and the worker's process, and resolves every call: with an
answer, with the worker's error, or with why the worker is gone. One link serves one specification; it
never restarts anything unasked.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import zmq

from . import processes, transport, wire
from .calls import MAX_SENDS, Call
from .connection import Connection, death
from .errors import (
    Cancelled,
    DeadlineExceeded,
    Sa2VAError,
    WorkerBusy,
    WorkerDied,
    WorkerError,
    WorkerStalled,
)
from .events import Progress
from .rendezvous import ExitNote, Record, RunDirectory

if TYPE_CHECKING:
    from typing_extensions import Self

_PING = 0
"""The call id of our own status questions; real calls count from 1."""
_PING_EVERY = 1.0
_TOO_LATE = 0.1
_CANCEL_MARGIN = 2.0
"""How much longer than the worker itself we wait for a cancelled step; we act when it cannot."""

Connect = Callable[[Callable[[], bool], Callable[[], None]], tuple[Record, RunDirectory]]
"""Finds or starts the worker: given ``cancelled`` and ``starting`` as `launcher.ensure_worker` wants them."""


class Room:
    """Room for one call in a link. Given back at the end of the ``with`` block unless the call was
    submitted.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self._used = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not self._used:
            self.link.release()

    def submit(self, call: Call) -> None:
        """Begin the call; the room is free again when it is resolved."""
        self._used = True
        self.link.submit(call)


class Link:
    """Connects calls with one worker specification. ``close`` ends its thread and every open call."""

    def __init__(self, connect: Connect, *, max_open: int, stall_limit: float, cancel_grace: float) -> None:
        self._connect = connect
        self._cancel_grace = cancel_grace
        self._max_open = max_open
        self._stall_limit = stall_limit
        self._waker = transport.Waker()
        self._context = transport.make_context()
        self._commands: deque[Callable[[], None]] = deque()
        self._ids = itertools.count(1)
        self._calls: dict[int, Call] = {}  # sent to the worker
        self._waiting: deque[Call] = deque()  # to be sent when there is a worker
        self._worker: Connection | None = None
        self._run_directory: RunDirectory | None = None
        self._heard = 0.0  # when the engine last showed a sign of progress
        self._pinged = 0.0
        self._loaded = False
        self._given_up: dict[int, float] = {}  # begun calls that were cancelled, until the worker says so too
        self._connecting = False
        self._closed = False
        self._count = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="sa2va-link", daemon=True)
        self._thread.start()

    # --- any thread ---

    def reserve(self) -> Room:
        """Take room for one call, before anything is copied for it. Raises `WorkerBusy` when there is
        none.
        """
        with self._lock:
            if self._count >= self._max_open:
                raise WorkerBusy(
                    f"{self._count} calls are open already.",
                    advice="Wait for some of them first.",
                    retry_after=0.5,
                )
            self._count += 1
        return Room(self)

    def release(self) -> None:
        """One call fewer."""
        with self._lock:
            self._count -= 1

    def submit(self, call: Call) -> None:
        """Begin a call; through `Room`, which counted it."""
        call.id = next(self._ids)
        call.future.add_done_callback(lambda _: self.release())
        with self._lock:
            # Under the lock: once closed, nobody would look at the command.
            if not self._closed:
                self._tell(lambda: self._begin(call))
                return
        call.fail(Cancelled("This Sa2VA object is closed.", advice="Make a new one."))

    def post(self, call: Call, message: wire.Message, buffers: Sequence[memoryview] = ()) -> None:
        """Send a further message of a call that has begun. Nothing happens when it is over."""
        self._tell(lambda: self._continue(call, message, buffers))

    def cancel(self, call: Call, error: Sa2VAError) -> None:
        """Resolve the call with ``error`` now, and tell the worker to stop working on it."""
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

    def worker_record(self) -> Record | None:
        """The worker we are connected to."""
        worker = self._worker
        return worker.record if worker is not None else None

    def _tell(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._waker.wake()

    # --- the link's thread: the loop ---

    def _run(self) -> None:
        try:
            while not self._closed:
                self._poll()
                while self._commands:
                    self._commands.popleft()()
                self._receive()
                self._watch()
        except BaseException as error:  # our own mistake must not leave callers waiting for ever
            self._shut(WorkerError(f"The connection to the worker failed: {type(error).__name__}: {error}."))
            raise
        else:
            self._shut(Cancelled("The Sa2VA object was closed while the call was open."))

    def _shut(self, error: Sa2VAError) -> None:
        with self._lock:
            self._closed = True
        while self._commands:
            self._commands.popleft()()
        self._fail_all(error)
        self._goodbye()
        self._context.term()
        self._waker.close()

    def _poll(self) -> None:
        poller = zmq.Poller()
        poller.register(self._waker.fileno(), zmq.POLLIN)
        if self._worker is not None:
            self._worker.register(poller)
        poller.poll(self._poll_milliseconds())
        self._waker.clear()

    def _poll_milliseconds(self) -> int | None:
        now = time.monotonic()
        if self._worker is None and self._waiting and not self._connecting:
            return 0
        dues = [
            call.deadline for call in (*self._calls.values(), *self._waiting) if call.deadline is not None
        ]
        if self._worker is not None:
            if self._calls or self._given_up:
                dues.append(now + _PING_EVERY / 2)
            seconds = self._worker.poll_seconds()
            if seconds is not None:
                dues.append(now + seconds)
        return int(max(0.0, min(dues) - now) * 1000) + 1 if dues else None

    def _receive(self) -> None:
        while self._worker is not None:
            try:
                received = self._worker.receive()
            except Sa2VAError as error:
                self._fail_sent(error)
                self._disconnect()
                return
            if received is None:
                return
            self._heard = time.monotonic()
            self._handle(received.message, received.buffers)

    def _handle(self, message: wire.WorkerMessage, buffers: Sequence[memoryview]) -> None:
        if isinstance(message, wire.Log):
            for call in self._calls.values():
                call.log(message)
            return
        if isinstance(message, wire.Ready):
            self._loaded = message.info is not None
            return
        if isinstance(message, wire.StatusReply):
            self._loaded = message.report.info is not None
            # The worker answers: what counts is whether its engine moves.
            self._heard -= message.report.silent
            return
        if message.call not in self._calls:
            if isinstance(message, (wire.Failed, wire.Answer, wire.Ending)):
                self._given_up.pop(message.call, None)
            return  # cancelled or timed out; its result reaches nobody
        call = self._calls[message.call]
        if isinstance(message, wire.Ending):
            del self._calls[call.id]
            self._send_again(call)
            return
        self._loaded = self._loaded or isinstance(message, (wire.Started, wire.Loaded))
        try:
            call.handle(message, buffers)
        except wire.BadMessage as error:
            call.fail(WorkerError(f"The worker's answer cannot be read: {error}."))
        if call.done:
            del self._calls[call.id]

    def _watch(self) -> None:
        now = time.monotonic()
        for call in [*self._calls.values(), *self._waiting]:
            if call.deadline is not None and now >= call.deadline:
                where = (
                    f"in phase {call.phase!r}" if call.id in self._calls else "while it waited for a worker"
                )
                late = f"The call took longer than its timeout of {call.timeout:g} s, {where}."
                self._abandon(call, DeadlineExceeded(late, advice="Raise timeout, or look at `sa2va ps`."))
        worker = self._worker
        if worker is None:
            if self._waiting and not self._connecting:
                self._start_connecting()
        elif worker.is_dead():
            self._bury(worker)
        elif self._given_up and now - min(self._given_up.values()) > self._cancel_grace + _CANCEL_MARGIN:
            limit = self._cancel_grace
            self._end(worker, f"was ended, it went on with a call for {limit:g} s after it was cancelled")
        elif not self._calls:
            self._heard = now
        else:
            if now - self._pinged > _PING_EVERY:
                self._pinged = now
                worker.send(wire.Status(call=_PING))
            if now - self._heard > self._stall_limit:
                silent = f"made no progress for {self._stall_limit:g} s and was ended"
                self._end(worker, silent, code=WorkerStalled.code)

    # --- calls ---

    def _begin(self, call: Call) -> None:
        if call.done:
            return
        if self._worker is not None and not self._worker.is_dead():
            self._send_call(self._worker, call)
        else:
            self._waiting.append(call)

    def _send_call(self, worker: Connection, call: Call) -> None:
        if not self._calls:
            self._heard = time.monotonic()
        message, buffers = call.open()
        call.answered_by(worker.pid, worker.record.created)
        call.phase = "queued"
        self._calls[call.id] = call
        try:
            worker.send(message, buffers)
        except wire.BadMessage as error:
            del self._calls[call.id]
            call.fail(WorkerError(f"The call cannot be sent: {error}."))

    def _send_again(self, call: Call) -> None:
        """The worker left without beginning this call: it goes to the next one, a few times."""
        if call.sends < MAX_SENDS:
            self._waiting.append(call)
        else:
            call.fail(WorkerDied(f"{call.sends} workers ended before they began the call.", reason="ending"))

    def _continue(self, call: Call, message: wire.Message, buffers: Sequence[memoryview]) -> None:
        if self._worker is not None and call.id in self._calls:
            self._worker.send(message, buffers)

    def _abandon(self, call: Call, error: Sa2VAError) -> None:
        call.fail(error)
        if self._calls.pop(call.id, None) is not None and self._worker is not None:
            if call.begun:
                self._given_up[call.id] = time.monotonic()
            self._worker.send(wire.Cancel(call=call.id))
        with contextlib.suppress(ValueError):
            self._waiting.remove(call)

    def _fail_sent(self, error: Sa2VAError) -> None:
        for call in self._calls.values():
            call.fail(error)
        self._calls.clear()

    def _fail_all(self, error: Sa2VAError) -> None:
        self._fail_sent(error)
        for call in self._waiting:
            call.fail(error)
        self._waiting.clear()

    # --- the worker ---

    def _start_connecting(self) -> None:
        self._connecting = True

        def announce() -> None:
            for call in self._waiting:
                call.tell(Progress("starting"))

        def starting() -> None:
            self._tell(announce)

        def connect() -> None:
            try:
                record, run = self._connect(lambda: self._closed or not self._waiting, starting)
            except BaseException as error:  # noqa: BLE001 - it belongs to the callers
                failure = error
                self._tell(lambda: self._connect_failed(failure))
            else:
                self._tell(lambda: self._connected(record, run))

        threading.Thread(target=connect, name="sa2va-connect", daemon=True).start()

    def _connect_failed(self, error: BaseException) -> None:
        self._connecting = False
        if isinstance(error, Cancelled) and not self._closed and self._waiting:
            return  # whoever it was for went away, and others came meanwhile: try again
        for call in self._waiting:
            call.fail(error)
        self._waiting.clear()

    def _connected(self, record: Record, run: RunDirectory) -> None:
        self._connecting = False
        self._worker = Connection(self._context, record)
        self._run_directory = run
        self._loaded = record.info is not None
        while self._waiting:
            self._send_call(self._worker, self._waiting.popleft())

    def _end(self, worker: Connection, what: str, code: str = "") -> None:
        """Kill a worker that hangs; `_bury` tells the calls. ``what`` it did, as a reason and in a
        message.
        """
        note = ExitNote(
            reason=what,
            # While it loads, the next worker would hang in the same place.
            resend=self._loaded,
            code=code,
            message=f"The worker (pid {worker.pid}) {what}.",
            advice="The next call starts a new one. For very slow machines raise stall_limit and cancel_grace.",
        )
        if self._run_directory is not None:
            with contextlib.suppress(OSError):
                self._run_directory.write_exit(worker.record.incarnation, note, unless_known=True)
        processes.signal_group(worker.record.process, kill=True)
        self._heard = time.monotonic()
        self._given_up.clear()

    def _bury(self, worker: Connection) -> None:
        """The worker's process is gone: find out why, and tell every call."""
        run = self._run_directory
        assert run is not None
        known, note = worker.exit_note(run)
        if not known:
            return
        self._receive()  # answers that were on the way when it died
        calls = list(self._calls.values())
        self._calls.clear()
        self._disconnect()
        tail = run.log_tail(worker.record.incarnation)
        for call in calls:
            innocent = note is not None and (note.orderly or note.resend)
            # Sent to a worker that was as good as dead already: to its caller it is a "next call", which must work.
            too_late = self._loaded and worker.died_at - call.sent_at < _TOO_LATE
            if not call.begun and (innocent or too_late):
                self._send_again(call)
            else:
                call.fail(death(worker.record, note, call.phase, tail))

    def _disconnect(self) -> None:
        worker, self._worker = self._worker, None
        self._given_up.clear()
        if worker is not None:
            worker.close()

    def _goodbye(self) -> None:
        """Let the worker drop what we asked, and give the message a moment to leave."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.say_goodbye()
            worker.close(linger=0.0 if worker.is_dead() else 0.2)
