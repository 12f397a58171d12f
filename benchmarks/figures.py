"""What a measurement is, and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Seconds of one thing, measured several times. `aim` is what the project promises, where it promises."""

    name: str
    seconds: tuple[float, ...]
    aim: float | None = None

    @property
    def median(self) -> float:
        """The middle one, in seconds."""
        return statistics.median(self.seconds)


def table(figures: Sequence[Figure]) -> str:
    """The figures as lines of a Markdown table, in milliseconds."""
    lines = ["| what | median | fastest | slowest | aim |", "|---|---:|---:|---:|---:|"]
    for figure in figures:
        times = (figure.median, min(figure.seconds), max(figure.seconds))
        shown = " | ".join(f"{value * 1000:.1f} ms" for value in times)
        aim = "" if figure.aim is None else f"{figure.aim * 1000:.0f} ms"
        lines.append(f"| {figure.name} | {shown} | {aim} |")
    return "\n".join(lines)
