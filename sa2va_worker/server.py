"""The thread that talks: it owns the socket, answers at once, and does no work of its own.

Runs on the main thread, beside the engine's thread (`sa2va_worker.scheduler`). What a client may ask is
handled in `requests.py`; this file receives, checks the envelope, sends, and watches the clock:
keep-alive, dead clients, steps that never end, unloads that wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec
import zmq

from sa2va_host.errors import Cancelled, ModelLoadFailed, Sa2VAError, WorkerDied, WorkerError
from sa2va_host.lifecycle.rendezvous import ExitNote, Record, RunDirectory
from sa2va_host.protocol import envelope, transport, wire
from sa2va_host.protocol.boot import EXIT_BROKEN, EXIT_LOAD

from .clients import Clients
from .failures import to_message
from .lifecycle import Lifecycle, Phase
from .outbox import Broken, Finished, LoadDone, LoadFailed, LoadProgress, Outbox, Reply
from .requests import Requests
from .scheduler import Scheduler
from .steps import EngineFactory

_log = logging.getLogger("sa2va_worker")
_TICK_MS = 100
_RECORD_EVERY = 1.0
"""How often the worker looks whether it can still be found, in seconds."""
_BURST = 64
"""Messages received before replies go out again."""


class Server:
    """One worker process: socket, clients, engine. ``run`` returns the exit code.

    ``make_room`` lets another worker for this specification start.
    """

    def __init__(
        self,
        *,
        socket: zmq.Socket[bytes],
        waker: transport.Waker,
        record: Record,
        run: RunDirectory,
        lifecycle: Lifecycle,
        queue_bound: int,
        max_active: int,
        cancel_grace: float,
        make_room: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._waker = waker
        self._record = record
        self._run = run
        self._cancel_grace = cancel_grace
        self._make_room = make_room
        self._incarnation = bytes.fromhex(record.incarnation)
        self._token = bytes.fromhex(record.token)
        mine = envelope.Envelope(self._incarnation, self._token, record.process.pid, record.process.started)
        self._envelope = mine.pack()
        self.pid = record.process.pid
        self.lifecycle = lifecycle
        self.clients = Clients()
        self.outbox = Outbox(waker.wake)
        self.scheduler = Scheduler(self.outbox, max_active=max_active)
        self.requests = Requests(self, specification=record.specification, queue_bound=queue_bound)
        self._exit: tuple[int, ExitNote] | None = None
        self._terminated = False
        self._record_seen = time.monotonic()
        self._lost = False

    def terminate(self) -> None:
        """SIGTERM came; safe inside a signal handler."""
        self._terminated = True
        self._waker.wake()

    def send(self, route: bytes, message: wire.WorkerMessage, buffers: tuple[memoryview, ...] = ()) -> None:
        """Queue a message for one client; one that is gone is forgotten."""
        try:
            payload = wire.encode(message)
        except wire.BadMessage as error:
            _log.error("a reply is too large: %s", error)
            call = getattr(message, "call", 0)
            payload = wire.encode(to_message(call, error))
            buffers = ()
        if not transport.send(self._socket, [self._envelope, payload, *buffers], route):
            self.forget(route)

    def forget(self, route: bytes) -> None:
        """Drop a client and everything it asked for."""
        client = self.clients.get(route)
        if client is None:
            return
        self.clients.remove(route)
        self.requests.drop(route, f"its client {client.name} is gone")

    def end(self, code: int, note: ExitNote) -> None:
        """The end begins: nothing is accepted from here on; `run` returns after replies are out."""
        if self._exit is None:
            _log.info("ending: %s", note.reason)
            self._exit = (code, note)
            self.lifecycle.move(Phase.ENDING)

    def run(self, factory: EngineFactory) -> int:
        """Serve until the end. Leaves the exit note written, the record removed and the socket closed."""
        specification = self._record.specification
        engine = threading.Thread(
            target=self.scheduler.run,
            args=(
                factory,
                lambda engine: engine.load(specification),
                lambda: self._note(lambda: self._run.mark_ready(self._record.incarnation)),
            ),
            name="sa2va-engine",
            daemon=True,
        )
        engine.start()
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._waker.fileno(), zmq.POLLIN)
        while self._exit is None:
            poller.poll(_TICK_MS)
            self._waker.clear()
            self._receive()
            self._drain()
            self._watch()
        return self._leave(*self._exit)

    def _receive(self) -> None:
        for _ in range(_BURST):
            try:
                incoming = transport.receive(self._socket, routed=True)
            except transport.TransportError as error:
                _log.warning("dropped a message: %s", error)
                continue
            if incoming is None:
                return
            self._handle(incoming)

    def _handle(self, incoming: transport.Incoming) -> None:
        try:
            sender = envelope.check(incoming.envelope, incarnation=self._incarnation, token=self._token)
        except envelope.Refusal as refusal:
            _log.warning("refused a message: wrong %s", refusal)
            transport.send(self._socket, [envelope.refusal(refusal.reason)], incoming.route)
            return
        try:
            message = wire.decode_from_client(incoming.payload)
        except wire.BadMessage as error:
            _log.warning("refused a payload from pid %d: %s", sender.pid, error)
            failed = wire.Failed(call=0, code="invalid_input", message=f"Not a message: {error}.")
            self.send(incoming.route, failed)
            return
        if self._exit is not None:
            call = getattr(message, "call", None)
            if call is not None:
                self.send(incoming.route, wire.Ending(call=call))
            return
        client = self.clients.seen(incoming.route, sender)
        if client is None:
            failed = wire.Failed(
                call=getattr(message, "call", 0), code="worker_busy", message="Too many clients."
            )
            transport.send(self._socket, [self._envelope, wire.encode(failed)], incoming.route)
            return
        self.requests.handle(client, message, incoming.buffers)

    def _drain(self) -> None:
        """Pass on what the engine's thread said."""
        for event in self.outbox.drain():
            if isinstance(event, Reply):
                if self.clients.get(event.route) is not None:
                    self.send(event.route, event.message, event.buffers)
            elif isinstance(event, wire.Log):
                for route in self.requests.waiting_routes():
                    self.send(route, event)
            elif isinstance(event, LoadProgress):
                if self.lifecycle.phase is Phase.STARTING:
                    self.lifecycle.move(Phase.LOADING)
                self.requests.loading(event.done, event.total, event.unit)
            elif isinstance(event, LoadDone):
                self._record = msgspec.structs.replace(self._record, info=event.info)
                self._note(lambda: self._run.write(self._record))
                self._note(lambda: self._run.forget_deaths(self._record.specification))
                self.requests.loaded(event.info)
            elif isinstance(event, LoadFailed):
                self._fail_load(event.error)
            elif isinstance(event, Finished):
                self.requests.finished += 1
            else:
                self._break(event)
        if (
            self.lifecycle.phase in (Phase.LOADING, Phase.READY, Phase.BUSY)
            and self.requests.info is not None
        ):
            self.lifecycle.move(Phase.READY if self.requests.is_idle() else Phase.BUSY)

    def _watch(self) -> None:
        """Everything that is due by the clock."""
        for client in self.clients.dead():
            _log.info("client %s is gone", client.name)
            self.forget(client.route)
        if self._terminated:
            self.requests.fail_all(Cancelled.code, "The worker was asked to end (SIGTERM).")
            self.end(0, ExitNote(reason="was asked to end (SIGTERM)", orderly=True))
        if self._exit is not None:
            return
        self.requests.watch_unload()
        stuck = self.scheduler.stuck(self._cancel_grace)
        if stuck is not None:
            self._break(Broken(f"a step went on for {self._cancel_grace:g} s after its call was cancelled"))
        idle = self.requests.info is not None and self.requests.is_idle()
        self.lifecycle.rest(idle)
        self._stay_known()
        if self._lost:
            self.requests.send_away()
        if self._lost and not self.scheduler.works():
            self.end(0, ExitNote(reason="could not be found any more: its files were deleted", orderly=True))
        elif self.lifecycle.is_over():
            self.end(
                0,
                ExitNote(
                    reason=f"was idle for its keep_alive of {self.lifecycle.keep_alive:g} s", orderly=True
                ),
            )

    def _stay_known(self) -> None:
        """Write the record again if it was lost. Without a socket, or where another worker stands in its place, nobody
        can find this one any more: it answers the calls that have begun, and leaves its place to another.
        """
        now = time.monotonic()
        if self._lost or now - self._record_seen < _RECORD_EVERY:
            return
        self._record_seen = now
        try:
            found = self._run.place_of(self._record)
        except WorkerError as error:
            _log.warning("whether this worker can still be found is unknown: %s", error)
            return
        socket = self._record.endpoint.path
        if (socket is not None and not socket.exists()) or (
            found is not None and found.incarnation != self._record.incarnation
        ):
            _log.warning("this worker's files were deleted; it ends after the calls that have begun")
            self._lost = True
            self._note(lambda: self._run.remove(self._record))
            self._make_room()
        elif found is None or found.info != self._record.info:
            _log.warning("the connection record was lost, or is old; it is written again")
            self._note(lambda: self._run.write(self._record))

    def _note(self, write: Callable[[], None]) -> None:
        """Change the run directory. Where that fails (it is full, it was deleted) it costs nobody an answer."""
        try:
            write()
        except (OSError, WorkerError) as error:
            _log.warning("the run directory cannot be changed: %s", error)

    def _fail_load(self, error: BaseException) -> None:
        """Answer everybody with the reason the model cannot be loaded, and end."""
        if not isinstance(error, Sa2VAError):
            failed = to_message(0, error)
            if failed.code != "out_of_memory":
                message = f"The model could not be loaded: {type(error).__name__}: {error}."
                advice = "The worker's log has the details."
                error = ModelLoadFailed(message, advice=advice, log_tail=failed.log_tail)
        failed = to_message(0, error)
        self.requests.fail_all(failed.code, failed.message, failed.advice, failed.log_tail)
        note = ExitNote(
            reason=f"the model could not be loaded: {failed.message}"[:2000],
            code=failed.code,
            message=failed.message,
            advice=failed.advice,
        )
        self.end(EXIT_LOAD, note)

    def _break(self, event: Broken) -> None:
        """The process is lost: whoever has not begun goes to the next worker, the others hear why."""
        reason = f"The worker ended itself: {event.reason}."
        self.requests.fail_begun(WorkerDied.code, reason, "The next call starts a new worker.")
        self.end(EXIT_BROKEN, ExitNote(reason=event.reason, resend=True))

    def _leave(self, code: int, note: ExitNote) -> int:
        self._note(lambda: self._run.write_exit(self._record.incarnation, note))
        self._note(lambda: self._run.remove(self._record))
        self._drain_replies()
        self._receive()  # what is here already learns that it must go elsewhere
        self.requests.send_away()
        self._socket.close(linger=300)
        return code

    def _drain_replies(self) -> None:
        for event in self.outbox.drain():
            if isinstance(event, Reply):
                self.send(event.route, event.message, event.buffers)
