"""Images that move: animated WebP and AVIF, read by Pillow, and which image files move at all.

`Animation` is a `sa2va_host.video.clip.Clip`. Animated PNG and GIF are read as videos (`sa2va_host.video.footage`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from sa2va_host.errors import InvalidInput
from sa2va_host.media import read_image

from .clip import Frame, Frames, Selection, check_frame_size, numbering
from .readahead import ahead

_MILLISECOND = Fraction(1, 1000)
_UNSTATED = 100
"""Milliseconds of a frame that names none, as browsers have it."""
_READERS: dict[str, Literal["pillow", "ffmpeg"]] = {
    "WEBP": "pillow",
    "AVIF": "pillow",
    "PNG": "ffmpeg",
    "GIF": "ffmpeg",
}
"""Of Pillow's formats, who reads their animations."""


def animation_reader(path: Path) -> Literal["pillow", "ffmpeg"] | None:
    """Who reads this animated image, by its content and whatever it is called; None for all other files."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
        if not (head[8:] == b"WEBP" or head[4:8] == b"ftyp" or head.startswith((b"\x89PNG", b"GIF8"))):
            return None
        from PIL import Image

        with Image.open(path, formats=list(_READERS)) as image:
            return _READERS[image.format or ""] if getattr(image, "n_frames", 1) > 1 else None
    except Exception:  # noqa: BLE001 - what is no such image is for others to look at, who say what is wrong with it
        return None


class Animation:
    """The frames of an animated image, transparent parts on white. Raises `InvalidInput` where none can be read."""

    def __init__(self, path: Path, selection: Selection, *, first_frame: int | None = None) -> None:
        """``first_frame`` is the number of the first frame, by which the selection goes."""
        self.path = path
        self.name = path.stem
        self._first, self.digits = numbering(first_frame)
        self.audio = None
        self.plate = None
        self.begins = Fraction(0)
        self.time_base = _MILLISECOND
        self.warnings: list[str] = []
        self._selection = selection = selection.from_zero(self._first)
        with self._open() as image:
            check_frame_size(image.height, image.width, str(path))
            self._total = int(image.n_frames)
            self._load(image, 0)
            self.rate = 1 / (_milliseconds(image) * _MILLISECOND)
        self.frame_count: int | None = selection.count(self._total)
        known = path.stat()
        self.version: list[int | str] = [known.st_size, known.st_mtime_ns]

    def __iter__(self) -> Frames:
        return ahead(frame for frame in self._read() if frame is not None)

    def look_at(self, places: Collection[int]) -> Iterator[Frame | None]:
        return self._read(places)

    def _read(self, places: Collection[int] | None = None) -> Iterator[Frame | None]:
        given, time = 0, Fraction(0)
        with self._open() as image:
            for number in range(self._total):
                if self._selection.end is not None and number > self._selection.end:
                    break
                try:
                    self._load(image, number)
                    if not self._selection.wants(number):
                        picture = None
                    elif places is None or given in places:
                        picture = self._selection.scaled(read_image(image))
                    else:
                        picture = None
                except InvalidInput as error:
                    sentence = (
                        f"{self.path} cannot be read beyond frame {self._first + number - 1}: {error.message}"
                    )
                    if not given:
                        raise
                    if sentence not in self.warnings:
                        self.warnings.append(sentence)
                    break
                if self._selection.wants(number):
                    yield None if picture is None else Frame(self._first + number, picture, time)
                    given += 1
                time += _milliseconds(image) * _MILLISECOND
                if places is not None and given > max(places):
                    return
        self.frame_count = given
        if not given:
            raise InvalidInput(
                f"{self.path} has {self._total} frames, from {self._first}; none is from"
                f" {self._first + (self._selection.start or 0)} on.",
                advice="Choose others.",
            )

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        from PIL import Image

        try:
            image = Image.open(self.path, formats=list(_READERS))
        except OSError as error:
            raise InvalidInput(f"{self.path} cannot be read: {error.strerror or error}.") from error
        with image:
            yield image

    def _load(self, image: Any, number: int) -> None:
        """Decode a frame. Raises `InvalidInput` where it is damaged."""
        try:
            image.seek(number)
            image.load()
        except (OSError, EOFError, SyntaxError, ValueError) as error:
            raise InvalidInput(f"{self.path} is damaged or cut short: {error}.") from error


def _milliseconds(image: Any) -> int:
    """How long the frame that was loaded is shown."""
    return int(image.info.get("duration") or 0) or _UNSTATED
