"""How fast a call, or a video in several calls, goes on and how long it still takes: pure, takes a clock."""

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


class WholePace:
    """Watches a video that is asked about in parts, each in a call of its own, as if it were one.

    What is done between them (asking) is part of the time that a frame takes.
    """

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """``total`` is the whole video's number of frames, where it is known."""
        self.before = 0
        """Frames of the parts that are done."""
        self._total = total
        self._pace = Pace(clock)

    def of(self, progress: Progress) -> Progress:
        """Of frames that are tracked the whole video's progress, as `Pace.of` has it; anything else as it is."""
        if progress.phase != "tracking":
            return progress
        return self._pace.of(replace(progress, done=self.before + progress.done, total=self._total))
