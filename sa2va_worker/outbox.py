"""What the engine's thread has to say to the server's: typed events through one queue that wakes the
poller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sa2va_host.protocol.specification import ModelInfo
from sa2va_host.protocol.wire import Log, WorkerMessage

from .calls import Work


@dataclass(frozen=True, slots=True)
class Reply:
    """A message for the client of one call, with its buffers."""

    route: bytes
    message: WorkerMessage
    buffers: tuple[memoryview, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The engine is loading: bytes done of total."""

    done: int
    total: int | None
    unit: str


@dataclass(frozen=True, slots=True)
class LoadDone:
    """The model is in memory."""

    info: ModelInfo


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model cannot be loaded; the worker ends."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Finished:
    """A call is over, whatever its end was; its last reply came before this."""

    work: Work


@dataclass(frozen=True, slots=True)
class Broken:
    """The process cannot go on."""

    reason: str


Event = Reply | LoadProgress | LoadDone | LoadFailed | Finished | Broken | Log


class Outbox:
    """Thread-safe, unbounded (what fills it is bounded by credit and by the number of active calls)."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._events: deque[Event] = deque()
        self._wake = wake

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._wake()

    def drain(self) -> Iterator[Event]:
        """Everything that is here now."""
        while self._events:
            yield self._events.popleft()
