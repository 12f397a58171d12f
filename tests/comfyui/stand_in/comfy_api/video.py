"""A VIDEO from a file. Its frames as an IMAGE, which a long one has no memory for, are not to be had."""

from __future__ import annotations

from pathlib import Path

import av


class VideoFromFile:
    def __init__(self, file: str | Path) -> None:
        self._file = str(file)

    def get_stream_source(self) -> str:
        return self._file

    def get_dimensions(self) -> tuple[int, int]:
        with av.open(self._file) as container:
            stream = container.streams.video[0]
            return stream.width, stream.height

    def get_duration(self) -> float:
        with av.open(self._file) as container:
            return (container.duration or 0) / av.time_base


class Trimmed(VideoFromFile):
    """As later versions of ComfyUI tell it."""

    def __init__(self, file: Path, start: float, duration: float) -> None:
        super().__init__(file)
        self._window = (start, duration)

    def get_active_trim_window(self) -> tuple[float, float]:
        return self._window

    def get_duration(self) -> float:
        return self._window[1] or super().get_duration() - self._window[0]


Trimmed.__name__ = "VideoFromFile"
