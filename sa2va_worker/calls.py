"""One call inside the worker: what was asked, the frames that stream in, the generator that answers.

A `Work` is made by the server's thread, advanced by the engine's, and cancelled by the former through
`Scheduler.cancel`. `FrameStream` is the one object that both touch; it has a lock of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from sa2va_host.protocol.wire import Failed

from .steps import Picture, Request, Step


class FrameStream:
    """The frames of a tracked call: the client pushes, the engine takes, credit flows back (`FrameSource`).

    Holds at most ``window`` frames. ``take`` is told of each frame the engine takes.
    """

    def __init__(self, window: int, taken: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._frames: deque[Picture] = deque()
        self._taken = taken
        self._credit = window
        self._next = 0
        self._ended = False
        self.image_size = 0

    @property
    def finished(self) -> bool:
        with self._lock:
            return self._ended and not self._frames

    @property
    def has_news(self) -> bool:
        """True when asking again makes sense: a frame is here, or the end."""
        with self._lock:
            return self._ended or bool(self._frames)

    def get(self) -> Picture | None:
        with self._lock:
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._credit += 1
        self._taken()
        return frame

    def push(self, start: int, frames: Picture) -> str:
        """Add frames uint8 ``[n, size, size, 3]``. Says what is wrong with them, or nothing."""
        size = self.image_size
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (size, size, 3):
            return f"frames are uint8 [n, {size}, {size}, 3], not {frames.dtype} {list(frames.shape)}"
        with self._lock:
            if self._ended or start != self._next:
                return f"frame {self._next} was due, frame {start} came"
            if len(frames) > self._credit:
                return f"{len(frames)} frames came, {self._credit} were granted"
            self._credit -= len(frames)
            self._next += len(frames)
            self._frames.extend(frames)
        return ""

    def end(self) -> None:
        with self._lock:
            self._ended = True

    def drop(self) -> None:
        """Free the frames; the call is over."""
        with self._lock:
            self._ended = True
            self._frames.clear()


class OnePicture:
    """The frame source of an image: that picture, resized when it is asked for (`FrameSource`)."""

    def __init__(self, picture: Picture) -> None:
        self._picture: Picture | None = picture
        self.image_size = 0

    @property
    def finished(self) -> bool:
        return self._picture is None

    @property
    def has_news(self) -> bool:
        return True

    def get(self) -> Picture | None:
        if self._picture is None:
            return None
        from PIL import Image

        size = (self.image_size, self.image_size)
        resized = Image.fromarray(self._picture).resize(size, Image.Resampling.BICUBIC)
        self._picture = None
        return np.asarray(resized)

    def end(self) -> None:
        """Nothing: a picture ends by itself."""

    def drop(self) -> None:
        self._picture = None


@dataclass(eq=False, slots=True)
class Work:
    """One queued or active call."""

    route: bytes
    call: int
    asked: float
    request: Request
    frames: FrameStream | OnePicture | None = None
    size: int = 0
    """Bytes that its pictures hold while it waits."""
    steps: Iterator[Step] | None = None
    """The engine's generator, once it has begun."""
    waiting: bool = False
    cancelled: Failed | None = None
    """Set once, by the server's thread: how the call is to fail at the next step."""
    cancelled_at: float = 0.0
    phase: str = "queued"
    done: int = 0
    total: int | None = None
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.request.kind

    @property
    def can_go_on(self) -> bool:
        """False while it waits for frames that are not here."""
        return (
            not self.waiting
            or self.cancelled is not None
            or (self.frames is not None and self.frames.has_news)
        )
