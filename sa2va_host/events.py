"""What happens while a call runs, as `on_event` receives it: on the thread that made the call."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the call is.

    ``phase`` is starting (a worker process is being started), loading, encoding, generating or tracking;
    ``unit`` says what ``done`` and ``total`` count (bytes, tokens, frames). ``total`` is None where it is
    unknown.
    """

    phase: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    rate: float | None = field(default=None, compare=False)
    """How many of them in a second, of late (`sa2va_host.calls.pace`); None until that is known."""
    seconds_left: float | None = field(default=None, compare=False)
    """How long the rest takes at that rate; None where the total is unknown."""


class LogLine(msgspec.Struct, frozen=True):
    """A line of the worker's log."""

    level: str
    text: str


class TextPiece(msgspec.Struct, frozen=True):
    """A piece of the answer, while it is being generated."""

    text: str


Event = Progress | LogLine | TextPiece
