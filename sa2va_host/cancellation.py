"""Cancelling a call from somewhere else: another thread, an event loop, a button, a signal handler."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from .errors import Cancelled


class Cancellation:
    """Give one to any number of calls; `cancel` ends them all with `Cancelled`, and those that come later too.

    Thread-safe, and safe in a signal handler: `cancel` takes no lock, so it may interrupt any line of this class on the
    same thread. It returns at once. The worker hears of it at once too, whatever the call's own thread is doing, and
    stops between two steps; the caller hears of it without waiting for that, and without waiting for the frames that it
    gave.
    """

    def __init__(self) -> None:
        # Each line that changes this is one step for other threads and for signal handlers.
        self._listeners: dict[object, Callable[[Cancelled], None]] = {}
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """End every call that has this; a second time does nothing."""
        # First the flag: a listener that is added after the last look below sees it.
        self._cancelled = True
        while self._listeners:
            try:
                _, listener = self._listeners.popitem()
            except KeyError:  # somebody else took the last one
                return
            listener(Cancelled("The call was cancelled."))

    def check(self) -> None:
        """Raise `Cancelled` if it is."""
        if self._cancelled:
            raise Cancelled("The call was cancelled.")

    @contextlib.contextmanager
    def heard_by(self, listener: Callable[[Cancelled], None]) -> Iterator[None]:
        """While inside, `cancel` calls ``listener`` once, on the thread that cancels. Raises `Cancelled` if it is
        cancelled on entry, perhaps after it called ``listener``. A listener that takes a lock is not safe in a signal
        handler.
        """
        place = object()
        self._listeners[place] = listener
        try:
            self.check()
            yield
        finally:
            self._listeners.pop(place, None)
