"""The worker's life as states and one clock: pure, so that tests turn the clock.

Used by the server's thread only. Knows no sockets and no engine; it is told what happens and asked what is
due.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable

_log = logging.getLogger("sa2va_worker")


class Phase(enum.Enum):
    """Where the process is in its life."""

    STARTING = "starting"  # the socket answers; the engine's libraries are being imported
    LOADING = "loading"  # weights come into memory
    READY = "ready"  # loaded and idle; the keep-alive runs
    BUSY = "busy"  # calls are queued or running
    DRAINING = "draining"  # somebody asked for unload: running calls may finish, queued ones wait
    ENDING = "ending"  # no way back; whatever arrives is sent to the next worker


_NEXT = {
    Phase.STARTING: {Phase.LOADING, Phase.READY, Phase.DRAINING, Phase.ENDING},
    Phase.LOADING: {Phase.READY, Phase.BUSY, Phase.DRAINING, Phase.ENDING},
    Phase.READY: {Phase.BUSY, Phase.DRAINING, Phase.ENDING},
    Phase.BUSY: {Phase.READY, Phase.DRAINING, Phase.ENDING},
    Phase.DRAINING: {Phase.STARTING, Phase.LOADING, Phase.READY, Phase.BUSY, Phase.ENDING},
    Phase.ENDING: set(),
}


class Lifecycle:
    """Phase and keep-alive. Times are seconds of ``clock``, which must not jump."""

    def __init__(
        self, *, keep_alive: float, lease_grace: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._lease_grace = lease_grace
        self.keep_alive = keep_alive
        self.phase = Phase.STARTING
        self.born = self.since = clock()
        self._idle_since: float | None = None
        self._asked = False

    def move(self, phase: Phase) -> None:
        """Go to another phase; to the same one is nothing. A step that is not allowed is a mistake of
        ours.
        """
        if phase is self.phase:
            return
        if phase not in _NEXT[self.phase]:
            raise RuntimeError(f"no way from {self.phase.value} to {phase.value}")
        # Ready and busy alternate with every call; that is for those who debug.
        often = {self.phase, phase} == {Phase.READY, Phase.BUSY}
        _log.log(
            logging.DEBUG if often else logging.INFO, "lifecycle: %s -> %s", self.phase.value, phase.value
        )
        self.phase = phase
        self.since = self._clock()

    def ask(self, keep_alive: float) -> None:
        """A call came: its keep_alive is the one that counts from now on."""
        self._asked = True
        self.keep_alive = keep_alive

    def rest(self, idle: bool) -> None:
        """Say whether the model is loaded and nothing is queued or running; the keep-alive counts from
        then.
        """
        if not idle:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = self._clock()

    def left(self) -> float | None:
        """Seconds until the keep-alive is over; None while busy or when it never is."""
        if self._idle_since is None or self.keep_alive < 0:
            return None
        # Whoever had us started is still on the way with the first call; 0 must not mean "before it is here".
        span = self.keep_alive if self._asked else max(self.keep_alive, self._lease_grace)
        return max(0.0, self._idle_since + span - self._clock())

    def is_over(self) -> bool:
        return self.left() == 0.0

    def phase_seconds(self) -> float:
        return self._clock() - self.since

    def uptime(self) -> float:
        return self._clock() - self.born
