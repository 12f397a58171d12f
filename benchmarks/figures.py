"""What a measurement is: values of one thing, and what they are compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Unit: TypeAlias = Literal["s", "times", "calls", "bytes", "bytes/s", "tokens/s", "%"]

COLD_REPEATS = 3
"""How often a thing is measured that takes seconds."""


@dataclass(frozen=True)
class Plan:
    """What every part is told."""

    repeat: int = 30
    """How often a thing is measured that is cheap. What takes seconds is measured `COLD_REPEATS` times."""
    model: str = "sa2va-tiny"
    prompt: str = "the red circle"

    @property
    def few(self) -> int:
        """Repeats of what takes seconds."""
        return min(self.repeat, COLD_REPEATS)


@dataclass(frozen=True)
class Figure:
    """One thing, measured several times. `aim` is the most that the project promises, where it promises.

    Without values it was not measured, and `reason` says why.
    """

    name: str
    values: tuple[float, ...]
    aim: float | None = None
    unit: Unit = "s"
    reason: str = ""
    panel: str = ""
    """The picture of the part that it is drawn in; the empty one is drawn too."""

    @property
    def median(self) -> float:
        """The middle one, in `unit`. Raises `statistics.StatisticsError` where nothing was measured."""
        return statistics.median(self.values)

    @property
    def missed(self) -> bool:
        """Whether it was measured and is above its aim."""
        return bool(self.values) and self.aim is not None and self.median > self.aim


class NotMeasured(Exception):
    """This machine cannot measure it; the message is the reason, a sentence."""


def not_measured(name: str, reason: object) -> Figure:
    """A figure that says why it has no values."""
    return Figure(name, (), reason=" ".join(str(reason).split()))


def ratio(name: str, ours: Figure, theirs: Figure, aim: float | None = None) -> Figure:
    """Our median divided by a peer's of the same run; below 1 ours is the smaller one."""
    for figure in (ours, theirs):
        if not figure.values:
            return not_measured(name, figure.reason)
    return Figure(name, (ours.median / theirs.median,), aim, "times")


def times(repeat: int, *things: Callable[[], object]) -> list[tuple[float, ...]]:
    """Seconds of each of several things, in turns, so that all see the same weather; the first turn does not count."""
    seconds: list[list[float]] = [[] for _ in things]
    for turn in range(repeat + 1):
        for thing, taken in zip(things, seconds, strict=True):
            begun = time.perf_counter()
            thing()
            if turn:
                taken.append(time.perf_counter() - begun)
    return [tuple(taken) for taken in seconds]


def shown(value: float, unit: Unit) -> str:
    """`12.3 ms`, `4.20 s`, `1.25 times`, `340 MB/s`."""
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.2f} s"
    if unit in ("bytes", "bytes/s"):
        return f"{value / 1e6:,.4g} M{'B' if unit == 'bytes' else 'B/s'}"
    return f"{value:.4g} {unit}"


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| what | median | fastest | slowest | of | aim |", "|---|---:|---:|---:|---:|---:|"]
    return "\n".join([*lines, *map(_row, figures)])


def _row(figure: Figure) -> str:
    name = f"{figure.panel}: {figure.name}" if figure.panel else figure.name
    if not figure.values:
        return f"| {name} | not measured: {figure.reason} | | | | |"
    spread = (min(figure.values), max(figure.values)) if len(figure.values) > 1 else ()
    cells = [shown(value, figure.unit) for value in (figure.median, *spread)] + [""] * (2 - len(spread))
    kept = "missed" if figure.missed else "kept"
    aim = "" if figure.aim is None else f"{kept}: {shown(figure.aim, figure.unit)}"
    return f"| {name} | {' | '.join(cells)} | {len(figure.values)} | {aim} |"
