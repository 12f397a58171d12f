"""One call on the client's side, from its first message to its result. Future-based, so that callers may
wait as they like: a thread (`sa2va_host.client`) or, later, an event loop.

The link (`sa2va_host.calls.link`) sends a call's messages and feeds it what comes back, on its own thread. A
call knows no socket and no process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec

from sa2va_host.errors import DeadlineExceeded, WorkerDied
from sa2va_host.events import Event, LogLine, Progress, TextPiece
from sa2va_host.machine.commands import sa2va_command
from sa2va_host.protocol import arrays, wire
from sa2va_host.timings import TOTAL

from .pace import Pace, WholePace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sa2va_host.masks.masks import Logits
    from sa2va_host.protocol.specification import ModelInfo

_MAX_TRIES = 3
"""How many workers may die before they began a call; and how often it may be put off at least."""


class Started(msgspec.Struct, frozen=True):
    """The worker begins; frames are wanted at this size."""

    image_size: int


class Credit(msgspec.Struct, frozen=True):
    """This many more frames may be sent."""

    frames: int


class FrameMasks(msgspec.Struct, frozen=True):
    """What was found in one frame of a call that streams."""

    frame: int
    logits: Logits
    """float32 ``[objects, h, w]``"""
    presence: NDArray[np.float32] | None
    """float32 ``[objects]``, logits; None where the model has no such score."""


class Said(msgspec.Struct, frozen=True):
    """What was said to one prompt of a call, and how many of its objects that describes."""

    text: str
    objects: int


class Done(msgspec.Struct, frozen=True):
    """The future is resolved; nothing follows."""


class FrameRead(msgspec.Struct, frozen=True):
    """A frame of the caller's video was read, or could not be: not the call says so, but whoever reads for it."""


Note = Event | Started | Credit | Said | FrameMasks | FrameRead | Done
"""What a call tells its listener, on the link's thread."""


class Outcome(msgspec.Struct):
    """What a finished call brought. ``masks`` are float32 ``[objects, h, w]`` by frame."""

    text: str = ""
    objects: int = 0
    image_size: int = 0
    info: ModelInfo | None = None
    timings: dict[str, float] = {}
    notes: list[str] = []
    said: list[tuple[str, int]] = []
    """For each prompt the answer and how many of the objects are its own; empty where the engine does not tell."""
    masks: dict[int, NDArray[np.float32]] = {}
    arrays: list[wire.ArrayHeader] = []
    """What was sent along with it."""
    pid: int = 0
    created: float = 0.0


def late(timeout: float, where: str, advice: str) -> DeadlineExceeded:
    """The error of a call whose deadline has passed."""
    return DeadlineExceeded(
        f"The call took longer than its timeout of {timeout:g} s, {where}.", advice=advice
    )


class Call:
    """One call. ``opening`` makes its first message for the id that the link gives it; where it ``streams``, the
    listener gets the masks and the outcome has none. ``pace`` is given where it is part of something longer, ``asked``
    where it was asked for before now (monotonic clock): its timeout counts from then.
    """

    def __init__(
        self,
        opening: Callable[[int], wire.Message],
        buffers: Sequence[memoryview] = (),
        *,
        timeout: float | None = None,
        listener: Callable[[Note], None] = lambda _: None,
        streams: bool = False,
        pace: Pace | WholePace | None = None,
        asked: float | None = None,
    ) -> None:
        self.future: Future[Outcome] = Future()
        self.future.set_running_or_notify_cancel()  # cancelled through the link, not behind its back
        self.id = 0
        self.begun = False
        self._deaths = 0
        self._put_offs: list[float] = []
        self.sent_at = 0.0
        self.asked = time.monotonic() if asked is None else asked
        self.timeout = timeout
        self.deadline = None if timeout is None else self.asked + timeout
        self.phase = "waiting"
        self._opening = opening
        self._buffers: Sequence[memoryview] = buffers
        self._listener = listener
        self._streams = streams
        self._pace = pace or Pace()
        self._outcome = Outcome()

    @property
    def done(self) -> bool:
        return self.future.done()

    def open(self) -> tuple[wire.Message, Sequence[memoryview]]:
        """The first message, for sending (again)."""
        self.sent_at = time.monotonic()
        return self._opening(self.id), self._buffers

    def put_off(self, now: float, patience: float) -> float:
        """A worker left, or found no memory, before it began this call. Until when it may wait for another: for
        ``patience`` seconds since that happened first, and so long anew each of the first times.
        """
        self._put_offs.append(now)
        return self._put_offs[0 if len(self._put_offs) >= _MAX_TRIES else -1] + patience

    def worker_left(self, died: bool, patience: float) -> WorkerDied | None:
        """A worker died or was unloaded before it began this call. None while another one may take it: fewer than
        `_MAX_TRIES` died, and unloaded ones have not kept it waiting for ``patience`` seconds, as `put_off` counts.
        """
        self._deaths += died
        if self._deaths >= _MAX_TRIES:
            return WorkerDied(f"{self._deaths} workers died before they began the call.", reason="ending")
        now = time.monotonic()
        if not died and self.put_off(now, patience) < now:
            late = f"Workers were unloaded for {patience:g} s before they began the call."
            return WorkerDied(
                late, advice=f"See `{sa2va_command('ps')}` for who takes turns here.", reason="ending"
            )
        return None

    def late(self, *, sent: bool) -> DeadlineExceeded:
        """What to say when the deadline has passed."""
        assert self.timeout is not None
        return late(
            self.timeout,
            f"in phase {self.phase!r}" if sent else "while it waited for a worker",
            f"Raise timeout, or look at `{sa2va_command('ps')}`.",
        )

    def tell(self, note: Note) -> None:
        """Let the listener know; nothing comes after `Done`."""
        if not self.done:
            self._listener(note)

    def fail(self, error: BaseException) -> None:
        """Resolve with an error, unless it is resolved already."""
        if not self.done:
            self.future.set_exception(error)
            self._release()

    def _finish(self) -> None:
        if not self.done:
            self._outcome.timings[TOTAL] = time.monotonic() - self.asked
            self.future.set_result(self._outcome)
            self._release()

    def _release(self) -> None:
        self._buffers = ()
        self._listener(Done())

    def answered_by(self, pid: int, created: float) -> None:
        """Which process is working on it."""
        self._outcome.pid, self._outcome.created = pid, created

    def handle(self, message: wire.WorkerMessage, buffers: Sequence[memoryview]) -> None:
        """Take one message of the worker. Raises `wire.BadMessage` when its arrays are not what it says."""
        if isinstance(message, wire.Started):
            self.begun = True
            self._buffers = ()  # it will not be sent again: free the pictures
            self._outcome.image_size = message.image_size
            self.tell(Started(message.image_size))
        elif isinstance(message, wire.Credit):
            self.tell(Credit(message.frames))
        elif isinstance(message, wire.Progress):
            self.phase = message.phase
            self.tell(self._pace.of(Progress(message.phase, message.done, message.total, message.unit)))
        elif isinstance(message, wire.Token):
            self.tell(TextPiece(message.text))
        elif isinstance(message, wire.Said):
            self._outcome.said.append((message.text, message.objects))
            self.tell(Said(message.text, message.objects))
        elif isinstance(message, wire.Masks):
            self._take_masks(message, buffers)
        elif isinstance(message, wire.Processed):
            probability = arrays.unpack_all([message.probability], buffers)[0]
            if probability.dtype != "float32" or probability.ndim != 2:
                raise wire.BadMessage(f"a probability is float32 [height, width], not {probability.dtype}")
            self._outcome.masks[message.index] = probability.copy()
        elif isinstance(message, wire.Loaded):
            self._outcome.info = message.info
            self._finish()
        elif isinstance(message, wire.Answer):
            self._outcome.text = message.text
            self._outcome.objects = message.objects
            self._outcome.notes = message.notes
            self._outcome.timings.update(message.timings)
            self._finish()

    def _take_masks(self, message: wire.Masks, buffers: Sequence[memoryview]) -> None:
        masks: NDArray[Any] = arrays.unpack_all([message.logits], buffers)[0]
        if masks.dtype != "float32" or masks.ndim != 3:
            raise wire.BadMessage(
                f"masks are float32 [objects, height, width], not {masks.dtype} {masks.shape}"
            )
        if message.presence and len(message.presence) != len(masks):
            raise wire.BadMessage(f"{len(message.presence)} presence scores for {len(masks)} objects")
        # A copy: the view would keep the received message alive for as long as the result.
        logits = masks.copy()
        if self._streams:
            import numpy as np

            presence = np.array(message.presence, np.float32) if message.presence else None
            self.tell(FrameMasks(message.frame, logits, presence))
        else:
            self._outcome.masks[message.frame] = logits

    def log(self, message: wire.Log) -> None:
        self.tell(LogLine(message.level, message.text))
