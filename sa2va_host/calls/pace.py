"""How fast a call goes on and how long it still takes: pure, takes a clock."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from sa2va_host.events import Progress

_WINDOW = 10.0
"""Seconds that a rate is the mean of: long enough to be steady, short enough to notice that a GPU is shared."""


class Pace:
    """Watches the progress of one call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase = ""
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, progress: Progress) -> Progress:
        """The same with its ``rate`` and ``seconds_left``, as far as they can be known; a phase begins anew."""
        if progress.phase != self._phase:
            self._phase = progress.phase
            self._seen.clear()
        now = self._clock()
        while len(self._seen) > 1 and now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        self._seen.append((now, progress.done))
        begun, before = self._seen[0]
        if progress.done <= before or now <= begun:
            return progress
        rate = (progress.done - before) / (now - begun)
        left = None if progress.total is None else max(0, progress.total - progress.done) / rate
        return replace(progress, rate=rate, seconds_left=left)
