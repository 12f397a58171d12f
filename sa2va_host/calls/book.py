"""Which calls are open: those sent to the worker, and those that wait for one. And how many there may be.

Room is counted from any thread; everything else belongs to the link's thread.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sa2va_host.errors import Sa2VAError, WorkerBusy
from sa2va_host.protocol import arrays

from .call import Call, Note

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from sa2va_host.protocol.wire import ArrayHeader

    from .link import Link


class CallBook:
    """The open calls of one link, at most ``bound``."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._count = 0
        self._lock = threading.Lock()
        self._ids = itertools.count(1)  # 0 is the link's own
        self.sent: dict[int, Call] = {}
        self.waiting: deque[Call] = deque()

    def reserve(self) -> None:
        """Count one call more. Raises `WorkerBusy` when there is no room."""
        with self._lock:
            if self._count >= self._bound:
                raise WorkerBusy(
                    f"{self._count} calls are open already.",
                    advice="Wait for some of them first.",
                    retry_after=0.5,
                )
            self._count += 1

    @property
    def is_empty(self) -> bool:
        """Whether nobody holds room."""
        return self._count == 0

    def release(self) -> None:
        with self._lock:
            self._count -= 1

    def enter(self, call: Call) -> None:
        """Give a call its id; its room is free again when it is resolved."""
        call.id = next(self._ids)
        call.future.add_done_callback(lambda _: self.release())

    def open_calls(self) -> list[Call]:
        return [*self.sent.values(), *self.waiting]

    def tell_waiting(self, note: Note) -> None:
        for call in self.waiting:
            call.tell(note)

    def deadlines(self) -> list[float]:
        return [call.deadline for call in self.open_calls() if call.deadline is not None]

    def overdue(self, now: float) -> list[Call]:
        """Calls whose deadline has passed."""
        return [call for call in self.open_calls() if call.deadline is not None and now >= call.deadline]

    def remove(self, call: Call) -> bool:
        """Forget a call. True when the worker knows of it."""
        if call in self.waiting:
            self.waiting.remove(call)
        return self.sent.pop(call.id, None) is not None

    def take_sent(self) -> list[Call]:
        """Empty the list of sent calls."""
        calls = list(self.sent.values())
        self.sent.clear()
        return calls

    def take_waiting(self) -> list[Call]:
        """Empty the list of waiting calls."""
        calls = list(self.waiting)
        self.waiting.clear()
        return calls


def fail_each(calls: list[Call], error: BaseException) -> None:
    """End calls with one error, each with an instance of its own (tracebacks are written into it)."""
    for call in calls:
        call.fail(copy.copy(error) if isinstance(error, Sa2VAError) else error)


class Room:
    """Room for one call, as a context manager: given back at its end unless the call was submitted."""

    def __init__(self, link: Link, book: CallBook) -> None:
        self.link = link
        self._book = book
        self._used = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not self._used:
            self._book.release()

    def pack(self, images: Sequence[NDArray[Any] | memoryview]) -> tuple[list[ArrayHeader], list[memoryview]]:
        """Headers and private copies of a call's arrays, where the worker can see them if there is room."""
        return arrays.pack(images, place=self.link.arena.take)

    def submit(self, call: Call) -> None:
        """Begin the call; its room is free again when it is resolved."""
        self._used = True
        self.link.submit(call)
