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
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from . import envelope, processes, transport, wire
from .calls import MAX_SENDS, Call
from .errors import (
    Cancelled,
    DeadlineExceeded,
    ProtocolMismatch,
    Sa2VAError,
    WorkerBusy,
    WorkerDied,
    WorkerError,
    from_wire,
)
from .events import Progress
from .rendezvous import ExitNote, Record, RunDirectory

_PING = 0
"""The call id of our own status questions; real calls count from 1."""
_PING_EVERY = 1.0
_NOTE_WITHIN = 0.3
"""How long after a death its reason may take to be written down."""

Connect = Callable[[Callable[[], bool], Callable[[], None]], tuple[Record, RunDirectory]]
"""Finds or starts the worker: given ``cancelled`` and ``starting`` as `launcher.ensure_worker` wants them."""


@dataclass(slots=True)
class _Worker:
    """The worker process we are connected to."""

    record: Record
    run: RunDirectory
    socket: zmq.Socket[bytes]
    watch: processes.DeathWatch
    incarnation: bytes
    token: bytes
    envelope: bytes
    heard: float
    pinged: float = 0.0
    loaded: bool = False
    died: float = 0.0


class Link:
    """Connects calls with one worker specification. ``close`` ends its thread and every open call."""

    def __init__(self, connect: Connect, *, max_open: int, stall_limit: float) -> None:
        self._connect = connect
        self._max_open = max_open
        self._stall_limit = stall_limit
        self._waker = transport.Waker()
        self._context = transport.make_context()
        self._commands: deque[Callable[[], None]] = deque()
        self._ids = itertools.count(1)
        self._calls: dict[int, Call] = {}  # sent to the worker
        self._waiting: deque[Call] = deque()  # to be sent when there is a worker
        self._worker: _Worker | None = None
        self._connecting = False
        self._closed = False
        self._count = 0
        self._lock = threading.Lock()
        me = processes.current()
        self._me = (me.pid, me.started)
        self._thread = threading.Thread(target=self._run, name="sa2va-link", daemon=True)
        self._thread.start()

    # --- any thread ---

    def submit(self, call: Call) -> None:
        """Begin a call. Raises `WorkerBusy` when too many are open already; the call is then untouched."""
        with self._lock:
            if self._closed:
                raise Cancelled("This Sa2VA object is closed.", advice="Make a new one.")
            if self._count >= self._max_open:
                raise WorkerBusy(
                    f"{self._count} calls are open already.",
                    advice="Wait for some of them first.",
                    retry_after=0.5,
                )
            self._count += 1
        call.id = next(self._ids)
        call.future.add_done_callback(self._resolved)
        self._tell(lambda: self._begin(call))

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

    def _resolved(self, _: object) -> None:
        with self._lock:
            self._count -= 1

    # --- the link's thread: the loop ---

    def _run(self) -> None:
        try:
            while not self._closed:
                self._poll()
                while self._commands:
                    self._commands.popleft()()
                self._receive()
                self._watch()
        except BaseException as error:  # noqa: BLE001 - our own mistake must not leave callers waiting for ever
            self._closed = True
            self._fail_all(
                WorkerError(f"The connection to the worker failed: {type(error).__name__}: {error}.")
            )
            raise
        finally:
            self._fail_all(Cancelled("The Sa2VA object was closed while the call was open."))
            self._goodbye()
            self._disconnect()
            self._context.term()
            self._waker.close()

    def _poll(self) -> None:
        poller = zmq.Poller()
        poller.register(self._waker.fileno(), zmq.POLLIN)
        worker = self._worker
        if worker is not None:
            poller.register(worker.socket, zmq.POLLIN)
            if worker.watch.fileno() >= 0 and not worker.died:
                poller.register(worker.watch.fileno(), zmq.POLLIN)
        poller.poll(self._poll_milliseconds())
        self._waker.clear()

    def _poll_milliseconds(self) -> float | None:
        now = time.monotonic()
        dues = [
            call.deadline for call in (*self._calls.values(), *self._waiting) if call.deadline is not None
        ]
        worker = self._worker
        if worker is not None:
            if self._calls:
                dues.append(now + _PING_EVERY / 2)
            if worker.died:
                dues.append(now + 0.01)
            elif worker.watch.fileno() < 0:
                dues.append(now + processes.DeathWatch.INTERVAL)
        return max(0.0, min(dues) - now) * 1000 + 1 if dues else None

    def _receive(self) -> None:
        worker = self._worker
        while worker is not None and worker is self._worker:
            try:
                incoming = transport.receive(worker.socket, routed=False)
            except transport.TransportError:
                continue
            if incoming is None:
                return
            try:
                envelope.check(incoming.envelope, incarnation=worker.incarnation, token=worker.token)
                message = wire.decode_from_worker(incoming.payload)
            except envelope.Refusal as refusal:
                self._refused(worker, refusal)
                return
            except wire.BadMessage as error:
                self._fail_all(WorkerError(f"The worker sent what is not a message: {error}."), waiting=False)
                self._disconnect()
                return
            worker.heard = time.monotonic()
            self._handle(worker, message, incoming.buffers)

    def _handle(self, worker: _Worker, message: wire.WorkerMessage, buffers: Sequence[memoryview]) -> None:
        if isinstance(message, wire.Log):
            for call in self._calls.values():
                call.log(message)
            return
        if isinstance(message, wire.Ready):
            worker.loaded = message.info is not None
            return
        if isinstance(message, wire.StatusReply):
            worker.loaded = message.report.info is not None
            # The worker answers: what counts is whether its engine moves.
            worker.heard -= message.report.silent
            return
        call = self._calls.get(message.call)
        if call is None:
            return  # cancelled or timed out; its result reaches nobody
        if isinstance(message, wire.Ending):
            del self._calls[call.id]
            self._send_again(call)
            return
        worker.loaded = worker.loaded or isinstance(message, (wire.Started, wire.Loaded))
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
                    "while it waited for a worker"
                    if call.id not in self._calls
                    else f"in phase {call.phase!r}"
                )
                late = f"The call took longer than its timeout of {call.timeout:g} s, {where}."
                self._abandon(call, DeadlineExceeded(late, advice="Raise timeout, or look at `sa2va ps`."))
        worker = self._worker
        if worker is None:
            if self._waiting and not self._connecting:
                self._start_connecting()
            return
        if worker.died or worker.watch.is_dead():
            self._bury(worker)
        elif self._calls:
            if now - worker.pinged > _PING_EVERY:
                worker.pinged = now
                self._send(worker, wire.Status(call=_PING))
            if now - worker.heard > self._stall_limit:
                self._end_stalled(worker)
        else:
            worker.heard = now

    # --- calls ---

    def _begin(self, call: Call) -> None:
        if call.done:
            return
        if self._worker is not None and not self._worker.died:
            self._send_call(self._worker, call)
        else:
            self._waiting.append(call)

    def _send_call(self, worker: _Worker, call: Call) -> None:
        if not self._calls:
            worker.heard = time.monotonic()
        message, buffers = call.open()
        call.answered_by(worker.record.process.pid, worker.record.created)
        call.phase = "queued"
        self._calls[call.id] = call
        try:
            self._send(worker, message, buffers)
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
            self._send(self._worker, message, buffers)

    def _abandon(self, call: Call, error: Sa2VAError) -> None:
        call.fail(error)
        if self._calls.pop(call.id, None) is not None and self._worker is not None:
            self._send(self._worker, wire.Cancel(call=call.id))
        with contextlib.suppress(ValueError):
            self._waiting.remove(call)

    def _send(self, worker: _Worker, message: wire.Message, buffers: Sequence[memoryview] = ()) -> None:
        transport.send(worker.socket, [worker.envelope, wire.encode(message), *buffers])

    def _fail_all(self, error: Sa2VAError, *, waiting: bool = True) -> None:
        for call in [*self._calls.values(), *(self._waiting if waiting else ())]:
            call.fail(error)
        self._calls.clear()
        if waiting:
            self._waiting.clear()

    # --- the worker ---

    def _start_connecting(self) -> None:
        self._connecting = True

        def starting() -> None:
            self._tell(lambda: [call.tell(Progress("starting")) for call in self._waiting] and None)

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
        pid, started = self._me
        incarnation, token = bytes.fromhex(record.incarnation), bytes.fromhex(record.token)
        self._worker = _Worker(
            record=record,
            run=run,
            socket=transport.connect(self._context, record.endpoint),
            watch=processes.DeathWatch(record.process),
            incarnation=incarnation,
            token=token,
            envelope=envelope.Envelope(incarnation, token, pid, started).pack(),
            heard=time.monotonic(),
            loaded=record.info is not None,
        )
        self._send(self._worker, wire.Hello(program=_program()))
        while self._waiting:
            self._send_call(self._worker, self._waiting.popleft())

    def _refused(self, worker: _Worker, refusal: envelope.Refusal) -> None:
        pid = worker.record.process.pid
        if refusal.reason is envelope.Reason.VERSION:
            error: Sa2VAError = ProtocolMismatch(
                f"The worker (pid {pid}) speaks protocol {refusal.version}, this program {envelope.PROTOCOL}.",
                advice="Stop that worker with `sa2va stop`, or bring both installations to one version.",
            )
        else:
            error = WorkerError(
                f"The worker (pid {pid}) refused us: wrong {refusal}.", advice="Stop it and try again."
            )
        self._fail_all(error, waiting=False)
        self._disconnect()

    def _end_stalled(self, worker: _Worker) -> None:
        message = (
            f"The worker (pid {worker.record.process.pid}) made no progress for {self._stall_limit:g} s."
        )
        note = ExitNote(
            reason=f"was ended after {self._stall_limit:g} s without progress",
            # While it loads, the next worker would hang in the same place.
            resend=worker.loaded,
            code="worker_stalled",
            message=message,
            advice="It was ended; the next call starts a new one. Raise stall_limit for very slow machines.",
        )
        with contextlib.suppress(OSError):
            worker.run.write_exit(worker.record.incarnation, note, unless_known=True)
        processes.signal_group(worker.record.process, kill=True)
        worker.heard = time.monotonic()

    def _bury(self, worker: _Worker) -> None:
        """The worker's process is gone: find out why, and tell every call."""
        now = time.monotonic()
        worker.died = worker.died or now
        note = worker.run.read_exit(worker.record.incarnation)
        if note is None and now - worker.died < _NOTE_WITHIN and processes.is_alive(worker.record.launcher):
            return  # its parent is about to write it
        self._receive()  # answers that were on the way when it died
        calls = list(self._calls.values())
        self._calls.clear()
        self._disconnect()
        tail = worker.run.log_tail(worker.record.incarnation)
        for call in calls:
            if note is not None and (note.orderly or note.resend) and not call.begun:
                self._send_again(call)
            else:
                call.fail(_death(worker.record, note, call.phase, tail))

    def _disconnect(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.socket.close(linger=0)
            worker.watch.close()

    def _goodbye(self) -> None:
        """Let the worker drop what we asked, and give the message a moment to leave."""
        if self._worker is not None and not self._worker.died:
            self._send(self._worker, wire.Bye())
            self._worker.socket.close(linger=200)


def _death(record: Record, note: ExitNote | None, phase: str, tail: Sequence[str]) -> Sa2VAError:
    """The error of a call that was open when the worker ended."""
    if note is not None and note.code:
        return from_wire(note.code, note.message, note.advice, tail)
    pid = record.process.pid
    if note is not None:
        reason = note.reason
    elif any("Fatal Python error" in line for line in tail):
        reason = next(line for line in tail if "Fatal Python error" in line)
    else:
        reason = "a signal, it left no word"
    hint = " The system kills so when memory runs out." if "SIGKILL" in reason else ""
    return WorkerDied(
        f"The worker (pid {pid}) ended by {reason} while the call was in phase {phase!r}.{hint}",
        advice=f"The next call starts a new worker. Its log: {Path(record.log)}",
        log_tail=tail,
        reason=reason,
        pid=pid,
    )


def _program() -> str:
    """What to call us when somebody asks who uses the worker."""
    return (Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python")[:100] or f"pid {os.getpid()}"
