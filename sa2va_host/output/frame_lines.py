"""Run lengths as JSON lines: one line for each frame, appended when the frame is done.

A writer of `sa2va_host.output.recording`. What a killed run leaves ends in a whole line or in a torn one, which is cut
off when the run is taken up again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa2va_host.masks import masks, regions

if TYPE_CHECKING:
    from sa2va_host.video.clip import Frame

    from .layers import Layer


class FrameLines:
    """FOLDER/rle.jsonl: `{"frame": 12, "time": 0.48, "objects": [...]}` with the form of `sa2va_host.masks.regions` in
    each object's `rle`.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.path = folder / "rle.jsonl"
        self._done, self._end = _whole_lines(self.path) if resume and self.path.exists() else (set(), 0)
        self._stream: FileIO | None = None

    def add(self, frame: Frame, layers: Sequence[Layer]) -> None:
        """Append the frame's line, unless it is there. Raises `OSError`, after which no torn line is left."""
        if frame.number in self._done:
            return
        described = [_described(number, layer) for number, layer in enumerate(layers, start=1)]
        line = {"frame": frame.number, "time": float(frame.time), "objects": described}
        if self._stream is None:
            self._stream = self._open()
        rest = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        end = self._end + len(rest)
        try:
            while rest:
                rest = rest[self._stream.write(rest) :]
        except OSError as error:
            self._stream.truncate(self._end)
            error.filename = str(self.path)
            raise
        self._end = end

    def close(self) -> str:
        """No more lines will come."""
        if self._stream is not None:
            self._stream.close()
        return ""

    def _open(self) -> FileIO:
        """At the end of the whole lines."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer, in which a line that could not be written would stay.
        stream = self.path.open("r+b" if self._end else "wb", buffering=0)
        stream.truncate(self._end)
        stream.seek(self._end)
        return stream


def _whole_lines(path: Path) -> tuple[set[int], int]:
    """The frames that have a whole line, and how many bytes those lines are."""
    numbers, end = set(), 0
    with path.open("rb") as lines:
        for line in lines:
            try:
                number = int(json.loads(line)["frame"])
            except (ValueError, RecursionError, TypeError, KeyError):
                break
            if line.endswith(b"\n"):
                numbers.add(number)
                end += len(line)
    return numbers, end


def _described(number: int, layer: Layer) -> dict[str, Any]:
    return {
        "id": number,
        "name": layer.name,
        "presence": None if layer.presence is None else round(layer.presence, 4),
        "area": int(layer.mask.sum()),
        "box": masks.box(layer.mask),
        "mean_probability": round(masks.mean_inside(layer.probability, layer.mask), 4),
        "rle": regions.encode(layer.mask),
    }
