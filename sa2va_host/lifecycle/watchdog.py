"""When a worker that lives counts as hanging: pure policy with a clock, so that tests turn the clock.

The link feeds it what it hears and asks what is due. It never ends anything itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from sa2va_host.errors import WorkerStalled

PING_EVERY = 1.0
CANCEL_MARGIN = 1.0
"""How much longer than the worker itself we wait for a cancelled step to end; we act when it cannot."""


LOAD_SHARE = 0.3
"""The part of ``stall_limit`` for which a load may go without progress: reading weights shows some for each tensor,
while a step on a large image may be one long silence. Code that hangs while it loads, as a chat template or a plugin
can, holds everybody who waits for the model.
"""


class Verdict(msgspec.Struct, frozen=True):
    """End the worker: what it did, for people, and the error code that its calls get."""

    what: str
    code: str = ""


class Watchdog:
    """Watches one worker through its answers. ``loaded`` says whether its model ever was."""

    def __init__(
        self,
        *,
        stall_limit: float,
        cancel_grace: float,
        loaded: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stall_limit = stall_limit
        self._cancel_grace = cancel_grace
        self._clock = clock
        self._progress = clock()
        self._pinged = 0.0
        self._given_up: dict[int, float] = {}
        self.loaded = loaded

    @property
    def has_reason(self) -> bool:
        """True while it waits for the end of a cancelled call."""
        return bool(self._given_up)

    def rest(self) -> None:
        """Nothing is asked of the worker now, so nothing counts against it."""
        self._progress = self._clock()

    def heard(self, silent: float = 0.0) -> None:
        """The worker spoke; its engine last moved ``silent`` seconds ago."""
        self._progress = self._clock() - silent

    def gave_up(self, call: int) -> None:
        """A call was cancelled; the worker must say that it ended."""
        self._given_up[call] = self._clock()

    def ended(self, call: int) -> None:
        self._given_up.pop(call, None)

    def ping_is_due(self) -> bool:
        """True every `PING_EVERY` seconds."""
        now = self._clock()
        if now - self._pinged < PING_EVERY:
            return False
        self._pinged = now
        return True

    def verdict(self, *, calls_open: bool) -> Verdict | None:
        """Why the worker should be ended now, if it should."""
        now = self._clock()
        if self._given_up and now - min(self._given_up.values()) > self._cancel_grace + CANCEL_MARGIN:
            grace = self._cancel_grace
            return Verdict(f"was ended, it went on with a call for {grace:g} s after it was cancelled")
        limit = self._stall_limit * (1 if self.loaded else LOAD_SHARE)
        if calls_open and now - self._progress > limit:
            what = "" if self.loaded else " while it loaded"
            return Verdict(f"made no progress{what} for {limit:g} s and was ended", WorkerStalled.code)
        return None
