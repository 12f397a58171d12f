"""Cancelling a call from somewhere else: another thread, an event loop, a button."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from .errors import Cancelled


class Cancellation:
    """Give one to any number of calls; `cancel` ends them all with `Cancelled`, and those that come later too.

    Thread-safe. Returns at once: a running call ends between two of the worker's steps, and its caller hears of
    it without waiting for that.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Cancelled], None]] = []
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """End every call that has this; a second time does nothing."""
        with self._lock:
            self._cancelled = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener(Cancelled("The call was cancelled."))

    def check(self) -> None:
        """Raise `Cancelled` if it is."""
        if self._cancelled:
            raise Cancelled("The call was cancelled.")

    @contextlib.contextmanager
    def heard_by(self, listener: Callable[[Cancelled], None]) -> Iterator[None]:
        """While inside, `cancel` calls ``listener`` once, on the thread that cancels. Raises `Cancelled` if it is."""
        with self._lock:
            self.check()
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)
