"""What a command shows while it works: a moving line on a terminal, a plain line now and then elsewhere.

Everything goes to stderr, so that stdout holds the answer alone.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sa2va_host.events import Progress

from .streams import SpellingProxy, obeyed

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID
    from typing_extensions import Self

_QUIET_SECONDS = 0.3
"""A call that ends sooner shows nothing, and does not pay for importing rich."""
_LINE_SECONDS = 2.0
_ANNOUNCED = ("starting", "loading")


class Notes:
    """Sentences about inputs and answers, printed once each to stderr; where it is ``quiet``, not at all."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._said: set[str] = set()

    def say(self, sentences: Iterable[str]) -> None:
        """Print those that were not printed before."""
        for sentence in sentences:
            if not self._quiet and sentence not in self._said:
                self._said.add(sentence)
                print(f"sa2va: {sentence}", file=sys.stderr)


class Display:
    """Give `event` to the client as its callback; as a context manager it leaves the terminal clean.

    Of several `pictures` it shows how many are done (`count`) instead of what happens to each. `quiet` shows nothing.
    """

    def __init__(self, *, pictures: int = 1, quiet: bool = False, clock: Any = time.monotonic) -> None:
        self.started_worker = False
        self.quiet = quiet
        self._pictures = pictures
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = clock()
        self._last_line = self._begun
        self._announced: set[str] = set()
        self._terminal = sys.stderr.isatty()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def rest(self) -> None:
        """Leave the terminal to others until the next event."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._begun = self._clock()

    def event(self, event: Any) -> None:
        """Called by the client with each progress event, from whichever thread received it."""
        phase = getattr(event, "phase", "")
        if phase == "starting":
            self.started_worker = True
        if phase and (self._pictures == 1 or phase in _ANNOUNCED):
            with self._lock:
                self._show(phase, event)

    def count(self, done: int) -> None:
        """So many pictures are done."""
        if self._pictures > 1:
            with self._lock:
                self._show("segmenting", Progress("segmenting", done, self._pictures, "pictures"))

    def note(self, sentence: str) -> None:
        """Tell the user something beside the answer."""
        if not self.quiet:
            print(f"sa2va: {sentence}", file=sys.stderr)

    def _show(self, phase: str, event: Any) -> None:
        if self.quiet:
            return
        now = self._clock()
        if self._terminal:
            if now - self._begun >= _QUIET_SECONDS:
                self._move(phase, event)
        elif (phase in _ANNOUNCED and phase not in self._announced) or now - self._last_line >= _LINE_SECONDS:
            self._announced.add(phase)
            self._last_line = now
            print(f"{phase}{_amount(event)} ...", file=sys.stderr, flush=True)

    def _move(self, phase: str, event: Any) -> None:
        if self._bar is None or self._task is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[amount]}"),
                TimeElapsedColumn(),
                console=Console(file=obeyed(sys.stderr)),
                transient=True,
                # Else rich would show on the terminal what a pipe is waiting for.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._task = self._bar.add_task(phase, total=None, amount="")
            self._bar.start()
            if sys.stdout.isatty():  # rich has put its own stream in the place of ours, until it stops
                sys.stdout = SpellingProxy(sys.stdout)
        total = getattr(event, "total", None)
        done = getattr(event, "done", 0)
        self._bar.update(
            self._task, description=phase, completed=done, total=total, amount=_amount(event).strip()
        )


def _amount(event: Any) -> str:
    """` 12 of 30 frames, 8.5/s, 2 s left`, ` 3.1 of 15.0 MB`, or nothing where nothing is known."""
    done, total, unit = (getattr(event, name, None) for name in ("done", "total", "unit"))
    if not isinstance(done, int) or (not done and not total):
        return ""
    if unit == "bytes":
        rest = f" of {total / 1e6:.1f}" if total else ""
        return f" {done / 1e6:.1f}{rest} MB"
    if total in (None, 1) and done <= 1:  # nothing to watch
        return ""
    amount = f" {done}{f' of {total}' if total else ''} {unit or ''}".rstrip()
    if unit == "frames" and getattr(event, "rate", None):
        amount += f", {event.rate:.1f}/s"
        if event.seconds_left:
            amount += f", {_span(event.seconds_left)} left"
    return amount


def _span(seconds: float) -> str:
    """`42 s`, `7 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
