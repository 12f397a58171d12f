"""The progress bar."""

from __future__ import annotations

from typing import Any

bars: list[tuple[float, float]] = []
previews: list[tuple[str, Any, int]] = []
"""Format, Pillow image and longest side of each picture that a bar was shown with."""


class ProgressBar:
    def __init__(self, total: float) -> None:
        self.total = total

    def update_absolute(
        self, value: float, total: float | None = None, preview: tuple[str, Any, int] | None = None
    ) -> None:
        self.total = self.total if total is None else total
        if preview is not None:
            previews.append(preview)
        bars.append((value, self.total))
