"""What clients ask, one method for each message. Runs on the server's thread and returns at once."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sa2va_host.errors import Cancelled, InvalidInput, UnloadRefused, WorkerBusy
from sa2va_host.lifecycle.rendezvous import ExitNote
from sa2va_host.protocol import wire
from sa2va_host.protocol.limits import FRAME_WINDOW
from sa2va_host.protocol.shared_memory import Borrowed
from sa2va_host.protocol.specification import ModelInfo, Specification

from .calls import FrameStream, OnePicture, Work
from .clients import Client
from .lifecycle import Phase
from .outbox import Reply
from .payloads import arrays_of, check_positions, pictures_of, probabilities_of, regions_of
from .report import make_report
from .steps import ChatRequest, ProcessRequest, SegmentRequest

if TYPE_CHECKING:
    from .server import Server

_log = logging.getLogger("sa2va_worker")
_QUEUED_BYTES = 4 << 30


class Requests:
    """The calls that are open here, and what to do about each message."""

    def __init__(self, server: Server, *, specification: Specification, queue_bound: int) -> None:
        self._server = server
        self._queue_bound = queue_bound
        self.specification = specification
        self.info: ModelInfo | None = None
        self.load_done = 0
        self.load_total: int | None = None
        self._load_step = time.monotonic()
        self._modules = 0
        self.finished = 0
        self._unloads: list[tuple[Client, wire.Unload, float]] = []
        """Who waits for the running calls, and until when."""

    def handle(self, client: Client, message: wire.ClientMessage, buffers: list[memoryview]) -> None:
        """Act on one message. Anything wrong with it fails its call and nothing else."""
        try:
            self._dispatch(client, message, buffers)
        except (wire.BadMessage, InvalidInput) as error:
            call = getattr(message, "call", 0)
            _log.warning("refused a %s of %s: %s", type(message).__name__, client.name, error)
            self._fail(
                client.route, call, InvalidInput.code, f"{type(message).__name__} was refused: {error}."
            )

    def _dispatch(self, client: Client, message: wire.ClientMessage, buffers: list[memoryview]) -> None:
        found = arrays_of(message, buffers, client.borrowed)
        if isinstance(message, wire.Hello):
            client.program = message.program
            self._borrow(client, message.arena)
            phase = self._server.lifecycle.phase.value
            ready = wire.Ready(phase=phase, info=self.info, shares=client.borrowed is not None)
            self._server.send(client.route, ready)
        elif isinstance(message, wire.Load):
            self._load(client, message)
        elif isinstance(message, wire.Segment):
            self._segment(client, message, found)
        elif isinstance(message, wire.Chat):
            pictures = pictures_of(found[: len(message.images)])
            request = ChatRequest(
                prompt=message.prompt,
                images=pictures,
                regions=regions_of(found[len(pictures) :], pictures),
                history=message.history,
                generation=message.generation,
            )
            self._admit(client, message, Work(client.route, message.call, 0.0, request))
        elif isinstance(message, wire.Process):
            masks = probabilities_of(found[1], found[0].shape[:2])
            asked = ProcessRequest(message.processor, message.options, pictures_of(found[:1])[0], masks)
            self._admit(client, message, Work(client.route, message.call, 0.0, asked))
        elif isinstance(message, wire.Frames):
            self._frames(client, message, found[0])
        elif isinstance(message, wire.EndOfFrames):
            work = self._server.scheduler.find(client.route, message.call)
            if work is not None and work.frames is not None:
                work.frames.end()
                self._server.scheduler.wake()
        elif isinstance(message, wire.Cancel):
            self._cancel(client, message)
        elif isinstance(message, wire.Status):
            report = make_report(self._server)
            self._server.send(client.route, wire.StatusReply(call=message.call, report=report))
        elif isinstance(message, wire.Unload):
            self._begin_unload(client, message)
        else:
            self._server.forget(client.route)

    def _borrow(self, client: Client, offer: wire.SharedArena | None) -> None:
        """Map what a client offers to share; without it, its arrays come as frames."""
        route, outbox = client.route, self._server.outbox
        client.borrowed = None
        if offer is not None:
            try:
                client.borrowed = Borrowed(
                    offer, client.pid, lambda lease: outbox.put(Reply(route, wire.Returned(lease=lease)))
                )
            except (OSError, wire.BadMessage) as error:
                _log.info("%s shares no memory with us: %s", client.name, error)

    def _load(self, client: Client, message: wire.Load) -> None:
        self._server.lifecycle.ask(message.keep_alive)
        if self.info is not None:
            self._server.send(client.route, wire.Loaded(call=message.call, info=self.info))
        else:
            client.loads.add(message.call)

    def _segment(self, client: Client, message: wire.Segment, found: list[NDArray[np.generic]]) -> None:
        pictures = pictures_of(found)
        if not pictures or (len(pictures) != 1 and not message.tracked):
            raise InvalidInput(
                f"{len(pictures)} pictures: an image has exactly one, a video one or more key frames"
            )
        if message.key_positions:
            check_positions(message.key_positions, len(pictures))
        request = SegmentRequest(
            prompts=message.prompts,
            key_frames=pictures,
            tracked=message.tracked,
            frame_count=message.frame_count,
            generation=message.generation,
            key_positions=message.key_positions,
            condition_on=message.condition_on,
        )
        work = Work(client.route, message.call, 0.0, request)
        if message.tracked:
            work.frames = FrameStream(FRAME_WINDOW, self._giver(client.route, message.call))
        else:
            work.frames = OnePicture(pictures[0])
        self._admit(client, message, work)

    def _giver(self, route: bytes, call: int) -> Callable[[], None]:
        """Gives one frame's credit; called by the engine's thread."""
        outbox = self._server.outbox
        return lambda: outbox.put(Reply(route, wire.Credit(call=call, frames=1)))

    def _admit(self, client: Client, message: wire.Segment | wire.Chat | wire.Process, work: Work) -> None:
        scheduler = self._server.scheduler
        if scheduler.find(client.route, work.call) is not None:
            raise InvalidInput(f"call {work.call} is open already")
        queued = [other for other in scheduler.works() if not scheduler.is_begun(other)]
        work.size = work.request.nbytes
        full = len(queued) >= self._queue_bound or sum(other.size for other in queued) > _QUEUED_BYTES
        if full:
            failed = wire.Failed(
                call=work.call,
                code=WorkerBusy.code,
                message=f"{len(queued)} calls wait in the worker already.",
                advice="Send fewer at once, or try again later.",
                retry_after=1.0,
            )
            self._server.send(client.route, failed)
            return
        self._server.lifecycle.ask(message.keep_alive)
        work.asked = time.monotonic()
        scheduler.add(work)

    def _frames(self, client: Client, message: wire.Frames, found: NDArray[np.generic]) -> None:
        work = self._server.scheduler.find(client.route, message.call)
        if work is None:
            return  # it ended while these were on the way
        if not isinstance(work.frames, FrameStream) or not work.frames.image_size:
            raise InvalidInput("frames came for a call that takes none yet")
        wrong = work.frames.push(message.start, found)  # type: ignore[arg-type]
        if wrong:
            failed = wire.Failed(
                call=work.call, code=InvalidInput.code, message=f"The video stopped: {wrong}."
            )
            self._end(work, failed)
        self._server.scheduler.wake()

    def _cancel(self, client: Client, message: wire.Cancel) -> None:
        work = self._server.scheduler.find(client.route, message.call)
        failed = wire.Failed(call=message.call, code=Cancelled.code, message="The call was cancelled.")
        if work is not None:
            self._end(work, failed)
        elif message.call in client.loads:
            client.loads.discard(message.call)
            self._server.send(client.route, failed)

    def _end(self, work: Work, failed: wire.Failed) -> None:
        """Cancel, and answer at once when the call had not begun; else the engine's thread will."""
        if self._server.scheduler.cancel(work, failed):
            self._server.send(work.route, failed)

    def _fail(self, route: bytes, call: int, code: str, message: str) -> None:
        """Fail a call that may be open here."""
        failed = wire.Failed(call=call, code=code, message=message[:2000])
        work = self._server.scheduler.find(route, call)
        if work is None:
            self._server.send(route, failed)
        else:
            self._end(work, failed)

    def is_idle(self) -> bool:
        return not self._server.scheduler.works() and not any(
            client.loads for client in self._server.clients.all()
        )

    def waiting_routes(self) -> set[bytes]:
        """Clients that have a call open here."""
        routes = {work.route for work in self._server.scheduler.works()}
        return routes | {client.route for client in self._server.clients.all() if client.loads}

    def drop(self, route: bytes, why: str) -> None:
        """End every call of a client that will not hear of it."""
        for work in self._server.scheduler.works():
            if work.route == route:
                failed = wire.Failed(call=work.call, code=Cancelled.code, message=f"Dropped: {why}.")
                self._server.scheduler.cancel(work, failed)

    def fail_all(self, code: str, message: str, advice: str = "", log_tail: Sequence[str] = ()) -> None:
        """Tell every open call how it ended; the process is about to end."""
        for route, call in self._open():
            self._server.send(
                route,
                wire.Failed(call=call, code=code, message=message, advice=advice, log_tail=list(log_tail)),
            )
        for work in self._server.scheduler.works():
            self._server.scheduler.cancel(work, wire.Failed(call=work.call, code=code, message=message))
        for client in self._server.clients.all():
            client.loads.clear()

    def fail_begun(self, code: str, message: str, advice: str) -> None:
        """The same for calls that have begun; the others may go to the next worker."""
        for work in self._server.scheduler.works():
            if self._server.scheduler.is_begun(work):
                failed = wire.Failed(call=work.call, code=code, message=message, advice=advice)
                self._server.send(work.route, failed)

    def send_away(self) -> None:
        """Have the calls that have not begun go to the next worker; none begins here any more."""
        scheduler = self._server.scheduler
        scheduler.hold(True)
        for work in scheduler.works():
            ending = wire.Failed(call=work.call, code=Cancelled.code, message="The worker ends.")
            if not scheduler.is_begun(work) and scheduler.cancel(work, ending):
                self._server.send(work.route, wire.Ending(call=work.call))
        for client in self._server.clients.all():
            for call in client.loads:
                self._server.send(client.route, wire.Ending(call=call))
            client.loads.clear()

    def _open(self) -> list[tuple[bytes, int]]:
        works = [(work.route, work.call) for work in self._server.scheduler.works()]
        return works + [
            (client.route, call) for client in self._server.clients.all() for call in client.loads
        ]

    def loading(self, done: int, total: int | None, unit: str) -> None:
        """Tell everybody who waits how far it is."""
        self.load_done, self.load_total = done, total
        self._load_step = time.monotonic()
        for route, call in self._open():
            progress = wire.Progress(call=call, phase="loading", done=done, total=total, unit=unit or "bytes")
            self._server.send(route, progress)

    def load_silent(self) -> float:
        """Seconds since loading last made progress; while libraries are imported each module is some."""
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            self._load_step = time.monotonic()
        return time.monotonic() - self._load_step

    def loaded(self, info: ModelInfo) -> None:
        self.info = info
        for client in self._server.clients.all():
            for call in client.loads:
                self._server.send(client.route, wire.Loaded(call=call, info=info))
            client.loads.clear()
        if self._server.lifecycle.phase in (Phase.STARTING, Phase.LOADING):
            self._server.lifecycle.move(Phase.READY)

    def _begin_unload(self, client: Client, message: wire.Unload) -> None:
        self._unloads.append((client, message, time.monotonic() + max(0.0, message.wait)))
        if message.force:
            self.fail_all(
                Cancelled.code,
                f"The worker was unloaded by {client.name} while the call was open.",
                "The next call loads the model again.",
            )
            self._finish_unload(client)
            return
        self._server.scheduler.hold(True)
        self._server.lifecycle.move(Phase.DRAINING)
        self.watch_unload()

    def watch_unload(self) -> None:
        """End when the running calls are done; refuse each unload for which they take longer than it granted."""
        if not self._unloads:
            return
        scheduler = self._server.scheduler
        running = [work for work in scheduler.works() if scheduler.is_begun(work)]
        if not running:
            self._finish_unload(self._unloads[0][0])
            return
        for waiting in list(self._unloads):
            client, message, deadline = waiting
            if time.monotonic() >= deadline or self._server.clients.get(client.route) is None:
                self._unloads.remove(waiting)
                self._refuse(client, message, running)
        if not self._unloads:
            scheduler.hold(False)
            self._server.lifecycle.move(Phase.LOADING if self.info is None else Phase.BUSY)

    def _finish_unload(self, by: Client) -> None:
        """End, as everybody hears who waits for it."""
        for client, message, _ in self._unloads:
            self._server.send(client.route, wire.Unloading(call=message.call))
        self._server.end(0, ExitNote(reason=f"was unloaded by {by.name}", orderly=True))

    def _refuse(self, client: Client, message: wire.Unload, running: list[Work]) -> None:
        holders = sorted({self._name(work.route) for work in running})
        failed = wire.Failed(
            call=message.call,
            code=UnloadRefused.code,
            message=f"The worker was not unloaded: {len(running)} calls are running, of {', '.join(holders)}.",
            advice="Wait for them, or unload with force.",
            holders=holders,
        )
        self._server.send(client.route, failed)

    def _name(self, route: bytes) -> str:
        client = self._server.clients.get(route)
        return client.name if client is not None else "a client that is gone"
