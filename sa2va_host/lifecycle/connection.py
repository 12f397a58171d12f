"""One client's connection with one worker process: its socket, its envelope, and the watch on its life.

Used by the link (for calls) and by `sa2va_host.lifecycle.control` (for single questions), each on one thread. Knows
what a message is and whom it is from; what it means is for others.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

from sa2va_host.errors import ProtocolMismatch, Sa2VAError, WorkerDied, WorkerError, from_wire
from sa2va_host.machine import processes
from sa2va_host.machine.commands import sa2va_command
from sa2va_host.protocol import envelope, transport, wire

from .rendezvous import ExitNote, Record, RunDirectory

if TYPE_CHECKING:
    from sa2va_host.protocol.shared_memory import Ledger

_NOTE_WITHIN = 0.3
"""How long after a death its reason may take to be written down."""


class Received(msgspec.Struct, frozen=True):
    """One decoded message and its buffers."""

    message: wire.WorkerReply
    buffers: list[memoryview]


class Connection:
    """Connected from the start; `close` when done. Says hello by itself. ``ledger``: what is lent to the worker. Raises
    `WorkerError` where this process cannot have another socket.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], record: Record, ledger: Ledger | None = None
    ) -> None:
        self.record = record
        self._ledger = ledger
        self._incarnation = bytes.fromhex(record.incarnation)
        self._token = bytes.fromhex(record.token)
        me = processes.current()
        self._envelope = envelope.Envelope(self._incarnation, self._token, me.pid, me.started).pack()
        with contextlib.ExitStack() as unmade:
            self.watch = processes.DeathWatch(record.process)
            unmade.callback(self.watch.close)
            try:
                self.socket = transport.connect(context, record.endpoint)
                unmade.callback(self.socket.close, 0)
                self._disconnection = transport.watch_disconnection(self.socket)
            except zmq.ZMQError as error:
                raise no_connection(error) from error
            unmade.pop_all()
        self.died_at = 0.0
        self._was_heard = False
        self.send(wire.Hello(program=_program(), arena=ledger.offer if ledger is not None else None))

    @property
    def pid(self) -> int:
        return self.record.process.pid

    @property
    def was_out_of_reach(self) -> bool:
        """Whether nothing that was sent can have arrived: it never answered us, and its socket was deleted."""
        path = self.record.endpoint.path
        return not self._was_heard and path is not None and not path.exists()

    def send(self, message: wire.Message, buffers: Sequence[memoryview] = ()) -> None:
        """Queue a message; buffers must not change afterwards. Raises `wire.BadMessage` when it is too
        large.
        """
        payload = wire.encode(message)
        lent = buffers if self._ledger is None else map(self._ledger.lend, buffers)
        transport.send(self.socket, [self._envelope, payload, *lent])

    def receive(self) -> Received | None:
        """The next message that is here. Raises `Sa2VAError` when the worker refuses us or talks nonsense."""
        try:
            while (incoming := transport.receive(self.socket, routed=False)) is not None:
                envelope.check(incoming.envelope, incarnation=self._incarnation, token=self._token)
                self._was_heard = True
                message = wire.decode_from_worker(incoming.payload)
                if self._ledger is not None and isinstance(message, wire.Ready):
                    self._ledger.is_open = message.shares
                if not isinstance(message, wire.Returned):
                    return Received(message, incoming.buffers)
                if self._ledger is not None:
                    self._ledger.take_back(message.lease)
            return None
        except envelope.Refusal as refusal:
            raise self._refused(refusal) from refusal
        except (wire.BadMessage, transport.TransportError) as error:
            raise WorkerError(f"The worker (pid {self.pid}) sent what is not a message: {error}.") from error

    def _refused(self, refusal: envelope.Refusal) -> Sa2VAError:
        if refusal.reason is envelope.Reason.VERSION:
            return ProtocolMismatch(
                f"The worker (pid {self.pid}) speaks protocol {refusal.version}, not {envelope.PROTOCOL} as we do.",
                advice=f"Stop that worker with `{sa2va_command('stop')}`, or bring both installations to one version.",
            )
        return WorkerError(
            f"The worker (pid {self.pid}) refused us: wrong {refusal}.",
            advice=f"Stop it with `{sa2va_command('stop')}`.",
        )

    def register(self, poller: zmq.Poller) -> None:
        """Have the poller wake up for messages and, where the system can, for the worker's death."""
        poller.register(self.socket, zmq.POLLIN)
        if self.watch.fileno() >= 0 and not self.died_at:
            poller.register(self.watch.fileno(), zmq.POLLIN)

    def poll_seconds(self) -> float | None:
        """How soon to look again although nothing wakes the poller; None for never."""
        if self.died_at:
            return 0.01
        return processes.DeathWatch.INTERVAL if self.watch.fileno() < 0 else None

    def is_dead(self) -> bool:
        if not self.died_at and self.watch.is_dead():
            self.died_at = time.monotonic()
        return self.died_at > 0

    def is_drained(self) -> bool:
        """Whether everything that a dead worker sent can be received now."""
        # The process can be gone before ZeroMQ has read to the end of what it left in the socket.
        if time.monotonic() - self.died_at > _NOTE_WITHIN:
            return True
        return self._disconnection.poll(0) != 0

    def exit_note(self, run: RunDirectory) -> tuple[bool, ExitNote | None]:
        """(whether there is nothing more to wait for, why the worker ended) once it is dead."""
        note = run.read_exit(self.record.incarnation)
        # Only its parent learns the exit code, and writes it down. Without a parent nobody will.
        late = time.monotonic() - self.died_at > _NOTE_WITHIN
        return note is not None or late or not processes.is_alive(self.record.launcher), note

    def close(self, linger: float = 0.0) -> None:
        """Let go of socket and watch; what is queued may still leave within ``linger`` seconds."""
        self._ledger = None  # a worker that lives on may read what it was lent; its answers reach nobody
        self.socket.disable_monitor()
        self._disconnection.close(linger=0)
        self.socket.close(linger=int(linger * 1000))
        self.watch.close()

    def say_goodbye(self) -> None:
        """Have the worker drop whatever we asked for."""
        with contextlib.suppress(zmq.ZMQError):
            self.send(wire.Bye())


def death(record: Record, note: ExitNote | None, phase: str, tail: Sequence[str]) -> Sa2VAError:
    """The error of a call that was open in ``phase`` when the worker ended."""
    if note is not None and note.code:
        return from_wire(note.code, note.message, note.advice, tail)
    pid = record.process.pid
    fatal = next((line for line in tail if "Fatal Python error" in line), "a signal, and left no word")
    reason = note.reason if note is not None else fatal
    hint = " The system kills so when memory runs out." if "SIGKILL" in reason else ""
    return WorkerDied(
        f"The worker (pid {pid}) ended ({reason}) while the call was in phase {phase!r}.{hint}",
        advice=f"The next call starts a new worker. Its log: {record.log}",
        log_tail=tail,
        reason=reason,
        pid=pid,
    )


def no_connection(error: Exception) -> WorkerError:
    """What to raise where this process cannot have another socket or thread."""
    return WorkerError(
        f"This process can open no connection to a worker: {error}.",
        advice="It may have too many files or threads open.",
    )


def _program() -> str:
    """What to call us when somebody asks who uses the worker."""
    name = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return name.encode("utf-8", "replace").decode()[:100]  # a file's name need not be text
