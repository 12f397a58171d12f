"""Whose step is next: the engine's thread, and the queues it takes from.

Calls of one client run in their order; clients take turns, one step each. A call that waits for frames
lets the next one of its client begin, and a video lets some steps of pictures and chats pass for each of
its own. Only the engine's thread touches generators; the server's thread adds, cancels and looks. Knows no
sockets: it speaks through the outbox.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator

from sa2va_host.machine.processes import peak_memory
from sa2va_host.protocol import arrays, wire
from sa2va_host.protocol.limits import FRAME_WINDOW, MAX_OBJECTS
from sa2va_host.timings import DEVICE_PEAK_BYTES, LOAD, PROCESS_PEAK_BYTES

from .calls import FrameStream, Work
from .failures import to_message
from .outbox import Broken, Finished, LoadDone, LoadFailed, LoadProgress, Outbox, Reply
from .steps import (
    Answer,
    ChatRequest,
    EngineBroken,
    EngineFactory,
    Masks,
    MemoryUse,
    Processed,
    ProcessingEngine,
    ProcessRequest,
    Progress,
    Said,
    Step,
    Token,
)

_log = logging.getLogger("sa2va_worker")
_MEMORY_EVERY = 0.5
_STEPS_A_FRAME = 16
"""How many steps (tokens) of other clients' pictures and chats go before a step of a video: a picture's answer has one
or two times as many, so that it waits for two frames at most, and beside a long chat the video still goes on.
"""


class Scheduler:
    """The queues of all clients, and the loop that works on them. ``max_active`` calls are worked on in
    turns.
    """

    def __init__(
        self, outbox: Outbox, *, max_active: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._max_active = max_active
        self._changed = threading.Condition()
        self._queues: OrderedDict[bytes, deque[Work]] = OrderedDict()
        self._held = False
        self._passed = 0
        """Steps since a video had one."""
        self._current: Work | None = None
        self._last_step = clock()
        self._memory_at = 0.0
        self._load_seconds = 0.0
        self.memory = MemoryUse()

    def add(self, work: Work) -> None:
        with self._changed:
            self._queues.setdefault(work.route, deque()).append(work)
            self._changed.notify()

    def find(self, route: bytes, call: int) -> Work | None:
        with self._changed:
            return next((work for work in self._queues.get(route, ()) if work.call == call), None)

    def wake(self) -> None:
        """Something a waiting call may have waited for is here."""
        with self._changed:
            self._changed.notify()

    def cancel(self, work: Work, failure: wire.Failed) -> bool:
        """End a call with ``failure``. True when it had not begun (it is gone now); else it ends after its
        step.
        """
        with self._changed:
            queue = self._queues.get(work.route, deque())
            if work not in queue:
                return False
            if work.steps is None and work is not self._current:
                self._remove(work)
                return True
            if work.cancelled is None:
                work.cancelled = failure
                work.cancelled_at = self._clock()
            self._changed.notify()
            return False

    def hold(self, held: bool) -> None:
        """While held, nothing new begins; what has begun goes on."""
        with self._changed:
            self._held = held
            self._changed.notify()

    def works(self) -> list[Work]:
        """Every call, queued or active, by client and order."""
        with self._changed:
            return [work for queue in self._queues.values() for work in queue]

    def is_begun(self, work: Work) -> bool:
        return work.steps is not None or work is self._current

    def silent(self) -> float:
        """Seconds since the engine last finished a step, 0 while it has nothing to do."""
        return self._clock() - self._last_step if self._current is not None else 0.0

    def stuck(self, grace: float) -> Work | None:
        """The call whose step goes on although it was cancelled more than ``grace`` seconds ago."""
        work = self._current
        if work is None or work.cancelled is None:
            return None
        since = max(work.cancelled_at, self._last_step)
        return work if self._clock() - since > grace else None

    def run(
        self,
        factory: EngineFactory,
        load: Callable[[ProcessingEngine], Iterator[Step]],
        loaded: Callable[[], None],
    ) -> None:
        """The engine's thread: make the engine, load, then work for ever. Never raises; says how it ended.

        ``loaded`` is called here, before the first call can begin (and perhaps end the process).
        """
        begun = self._clock()
        try:
            engine = factory()
            for step in load(engine):
                if isinstance(step, Progress):
                    self._outbox.put(LoadProgress(step.done, step.total, step.unit))
            self.memory = engine.memory()
            info = engine.info
            self._load_seconds = self._clock() - begun
            loaded()
        except BaseException as error:  # noqa: BLE001 - whatever it was, clients must hear of it
            _log.exception("loading failed")
            self._outbox.put(LoadFailed(error))
            return
        self._outbox.put(LoadDone(info))
        try:
            while True:
                self._advance(engine, self._take(), info.image_size)
        except EngineBroken as error:
            _log.exception("the engine is broken")
            self._outbox.put(Broken(str(error) or "the engine gave up"))
        except BaseException as error:  # noqa: BLE001 - a mistake of ours; a silent end would hang every client
            _log.exception("the engine's thread failed")
            self._outbox.put(Broken(f"{type(error).__name__}: {error}"))

    def _take(self) -> Work:
        """Wait for a call that can go on, and give its client's turn away."""
        with self._changed:
            self._current = None
            while True:
                work = self._next()
                if work is not None:
                    self._queues.move_to_end(work.route)
                    self._passed = 0 if _is_video(work) else self._passed + 1
                    self._current = work
                    self._last_step = self._clock()
                    return work
                self._changed.wait()

    def _next(self) -> Work | None:
        begun = [work for queue in self._queues.values() for work in queue if work.steps is not None]
        running = sum(work.can_go_on for work in begun)
        room = not self._held and running < self._max_active
        # Videos that wait for frames hold memory: there may be more of them, but not any number. Others pass them.
        room_for_videos = room and len(begun) < 4 * self._max_active
        ready = [
            work
            for queue in self._queues.values()
            if (work := _first(queue, room, room_for_videos)) is not None
        ]
        ended = next((work for work in ready if work.cancelled is not None), None)
        video = next((work for work in ready if _is_video(work)), None)
        other = next((work for work in ready if not _is_video(work)), None)
        late = self._passed >= _STEPS_A_FRAME
        return ended or (video or other if late else other or video)

    def _advance(self, engine: ProcessingEngine, work: Work, image_size: int) -> None:
        """One step of one call."""
        if work.cancelled is not None:
            self._finish(work, work.cancelled)
            return
        try:
            if work.steps is None:
                work.steps = self._begin(engine, work, image_size)
            step = next(work.steps, None)
        except EngineBroken as error:
            self._finish(work, to_message(work.call, error))
            raise
        except Exception as error:  # noqa: BLE001 - it fails this call, not the worker
            _log.warning("call %d failed", work.call, exc_info=error)
            self._finish(work, to_message(work.call, error))
            return
        self._last_step = now = self._clock()
        if isinstance(step, Answer) or now - self._memory_at > _MEMORY_EVERY:
            self._memory_at = now
            with contextlib.suppress(RuntimeError):  # a number for people; not worth a call
                self.memory = engine.memory()
        work.waiting = False
        if step is None:
            unanswered = RuntimeError("the engine ended a call without an answer")
            self._finish(work, to_message(work.call, unanswered))
        else:
            try:
                self._tell(work, step)
            except wire.BadMessage as error:  # an engine's step that cannot travel
                self._finish(work, to_message(work.call, error))

    def _begin(self, engine: ProcessingEngine, work: Work, image_size: int) -> Iterator[Step]:
        self._reply(work, wire.Started(call=work.call, image_size=image_size))
        work.phase = "encoding"
        if isinstance(work.request, ChatRequest):
            return engine.chat(work.request)
        if isinstance(work.request, ProcessRequest):
            work.phase = "processing"
            return engine.process(work.request)
        assert work.frames is not None
        work.frames.image_size = image_size
        # What the engine refuses at once is refused before a frame is asked for.
        steps = engine.segment(work.request, work.frames)
        if isinstance(work.frames, FrameStream):
            self._reply(work, wire.Credit(call=work.call, frames=FRAME_WINDOW))
        return steps

    def _tell(self, work: Work, step: Step) -> None:
        """Send a step on to the client."""
        if isinstance(step, Progress):
            work.phase, work.done, work.total = step.phase, step.done, step.total
            unit = step.unit or ("tokens" if step.phase == "generating" else "frames")
            message = wire.Progress(
                call=work.call, phase=step.phase, done=step.done, total=step.total, unit=unit
            )
            self._reply(work, message)
        elif isinstance(step, Token):
            self._reply(work, wire.Token(call=work.call, text=step.text))
        elif isinstance(step, Said):
            self._reply(work, wire.Said(call=work.call, text=step.text, objects=step.objects))
        elif isinstance(step, Masks):
            if len(step.logits) > MAX_OBJECTS:
                raise wire.BadMessage(
                    f"{len(step.logits)} objects are found, and at most {MAX_OBJECTS} travel"
                )
            # The copy in pack makes the engine free to reuse its buffer at once.
            headers, buffers = arrays.pack([step.logits])
            presence = [] if step.presence is None else step.presence.tolist()
            masks = wire.Masks(call=work.call, frame=step.frame, logits=headers[0], presence=presence)
            self._outbox.put(Reply(work.route, masks, tuple(buffers)))
        elif isinstance(step, Processed):
            headers, buffers = arrays.pack([step.probability])
            processed = wire.Processed(call=work.call, index=step.index, probability=headers[0])
            self._outbox.put(Reply(work.route, processed, tuple(buffers)))
        elif isinstance(step, Answer):
            timings = {**step.timings, **self._measured()}
            answer = wire.Answer(
                call=work.call,
                text=step.text,
                objects=step.objects,
                timings=timings,
                notes=list(step.notes),
            )
            self._finish(work, answer)
        else:
            work.waiting = True

    def _measured(self) -> dict[str, float]:
        """What every answer's timings say of the worker itself."""
        return {
            LOAD: self._load_seconds,
            PROCESS_PEAK_BYTES: float(peak_memory()),
            DEVICE_PEAK_BYTES: float(self.memory.peak),
        }

    def _finish(self, work: Work, message: wire.Answer | wire.Failed) -> None:
        """Close the generator, free the frames, and only then tell the client."""
        steps, work.steps = work.steps, None
        try:
            if steps is not None and hasattr(steps, "close"):
                steps.close()
        except Exception as error:  # noqa: BLE001 - the call is over; its clean-up must not take others along
            _log.warning("closing call %d failed", work.call, exc_info=error)
        if work.frames is not None:
            work.frames.drop()
        with self._changed:
            # Counted first: who has the answer may ask how many there were.
            self._outbox.put(Finished(work))
            # In one: a worker that looks idle may end, and must not leave the answer behind.
            self._reply(work, message)
            self._remove(work)
            self._current = None

    def _remove(self, work: Work) -> None:
        queue = self._queues.get(work.route)
        if queue is not None and work in queue:
            queue.remove(work)
            if not queue:
                del self._queues[work.route]

    def _reply(self, work: Work, message: wire.WorkerMessage) -> None:
        self._outbox.put(Reply(work.route, message))


def _first(queue: Iterable[Work], room: bool, room_for_videos: bool) -> Work | None:
    """Which of a client's calls is to go on; with room for its kind one may begin."""
    for work in queue:
        if work.steps is None:
            return work if (room_for_videos if _is_video(work) else room) else None
        if work.can_go_on:
            return work
    return None


def _is_video(work: Work) -> bool:
    return isinstance(work.frames, FrameStream)
