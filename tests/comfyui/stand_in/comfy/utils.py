"""The progress bar."""

from __future__ import annotations

bars: list[tuple[float, float]] = []


class ProgressBar:
    def __init__(self, total: float) -> None:
        self.total = total

    def update_absolute(self, value: float, total: float | None = None) -> None:
        self.total = self.total if total is None else total
        bars.append((value, self.total))
