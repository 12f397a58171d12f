"""Single pictures that are the frames of a video: a folder, a pattern, or numbers in a name (`shot.####.exr`).

A `sa2va_host.video.clip.Clip`. Pictures are read as `sa2va_host.media.read_image` does (16 bits are cut to 8, colours
taken as sRGB; scene-linear files are shown as sRGB), and each frame carries its `sa2va_host.plate.Plate`.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from sa2va_host import media
from sa2va_host.discovery import find
from sa2va_host.endings import FRAMES
from sa2va_host.errors import InvalidInput
from sa2va_host.extras import check_exr
from sa2va_host.plate import Plate

from .clip import Frame, Frames, Selection
from .readahead import ahead

_DEFAULT_RATE = Fraction(24)
_SLOWEST, _FASTEST = Fraction(1, 1000), Fraction(1000)
_FINEST = 100 * 1001
"""Two decimals of a rate, and NTSC's 1001; FFmpeg holds both parts of a fraction in 32 bits."""
_DIGITS = 5
"""Of frames that have no number of their own; as in DAVIS and YouTube-VOS, where they are called 00000."""
_HOLES_SHOWN = 5
_NUMBER = re.compile(r"#+|%0?(\d*)d")


def is_sequence(source: str | os.PathLike[str]) -> bool:
    """Whether `FrameSequence` is who reads this: a folder, or a pattern that is not itself a file."""
    path = Path(source)
    named = os.fspath(source)
    return path.is_dir() or (not path.exists() and bool(glob.has_magic(named) or _NUMBER.search(path.name)))


class FrameSequence:
    """Frames from files, in the order of their numbers, else of their names. Each file is opened when it is due.

    Raises `InvalidInput` where there are none and where they differ in size, `ConfigError` where the library for
    OpenEXR is missing. Numbers that are missing are named in `warnings`; the frames around them follow each other.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        selection: Selection,
        *,
        rate: Fraction | None = None,
        layer: str | None = None,
    ) -> None:
        self.rate = _checked_rate(rate)
        self.time_base = 1 / self.rate
        self.audio = None
        self.begins = Fraction(0)
        self._warnings: list[str] = []
        self._noted: dict[str, tuple[str, set[int]]] = {}
        """By kind the sentence about the first frame that was read, and the places of all frames that it holds for."""
        self._selection = selection
        self._layer = layer
        found = _find(source, self._warnings)
        self.name = _name(source)
        numbers = [number for number, _ in found]
        self.digits = _digits(found)
        holes = _holes(numbers)
        if holes:
            self._warnings.append(f"Frames are missing from {source}: {_few(holes)}. They are passed over.")
        first = numbers[0] if selection.start is None else selection.start
        last = numbers[-1] if selection.end is None else selection.end
        wanted = [(number, path) for number, path in found if first <= number <= last]
        if not wanted:
            raise InvalidInput(
                f"No frame of {source} lies between {first} and {last}.",
                advice=f"It has frames {numbers[0]} to {numbers[-1]}.",
            )
        self._frames = wanted[:: selection.stride]
        self.version: list[int | str] = [len(self._frames), self._frames[0][1].name, self._frames[-1][1].name]
        if any(path.suffix.lower() == ".exr" for _, path in self._frames):
            check_exr()
        _check_sizes([path for _, path in self._frames], layer)

    @property
    def frame_count(self) -> int:
        return len(self._frames)

    @property
    def plate(self) -> Plate | None:
        return Plate(self._frames[0][1], self._layer)

    @property
    def warnings(self) -> list[str]:
        return [*self._warnings, *(_once(note, len(places)) for note, places in list(self._noted.values()))]

    def __iter__(self) -> Frames:
        return ahead(map(self._frame, range(self.frame_count)))

    def look_at(self, places: Collection[int]) -> Iterator[Frame | None]:
        for place in range(min(max(places) + 1, self.frame_count)):
            yield self._frame(place) if place in places else None

    def _frame(self, place: int) -> Frame:
        number, path = self._frames[place]
        notes: list[str] = []
        picture = media.read_image(path, layer=self._layer, notes=notes)
        for note in notes:
            self._noted.setdefault(note.replace(str(path), ""), (note, set()))[1].add(place)
        scaled = self._selection.scaled(picture)
        size = None if scaled is picture else (scaled.shape[0], scaled.shape[1])
        plate = Plate(path, self._layer, size)
        return Frame(number, scaled, (number - self._frames[0][0]) / self.rate, plate)


def _checked_rate(rate: Fraction | None) -> Fraction:
    """The nearest rate with a denominator that video files hold: 29.97002997 is 30000/1001. Raises `InvalidInput`."""
    if rate is None:
        return _DEFAULT_RATE
    if not _SLOWEST <= rate <= _FASTEST:
        raise InvalidInput(
            f"The rate is {float(rate):g} frames per second.", advice="Use one from 0.001 to 1000."
        )
    return rate.limit_denominator(_FINEST)


def _find(source: str | os.PathLike[str], notes: list[str]) -> list[tuple[int, Path]]:
    """Number and file of each frame, in order. Raises `InvalidInput` where there is none.

    What looks like a frame and is passed over is added to ``notes``. A link to another frame is a frame of its own.
    """
    path = Path(source)
    numbered = None if path.is_dir() else _NUMBER.search(path.name)
    if numbered:
        fewest = len(numbered[0]) if numbered[0][0] == "#" else int(numbered[1] or 1)
        before, after = path.name[: numbered.start()], path.name[numbered.end() :]
        pattern = re.compile(rf"{re.escape(before)}(\d{{{fewest},}}){re.escape(after)}")
        matches = [(pattern.fullmatch(one.name), one) for one in _listing(path.parent)]
        frames = sorted((int(match[1]), one) for match, one in matches if match)
        if not frames:
            raise InvalidInput(f"No frame matches {os.fspath(source)!r}.")
        return frames
    found = find(path, FRAMES)
    if not found.files:
        nothing = "The folder {} has no pictures in it." if path.is_dir() else "No frame matches {!r}."
        raise InvalidInput(nothing.format(os.fspath(source)), advice=" ".join(found.notes))
    notes.extend(found.notes)
    return _numbered(found.files)


def _listing(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InvalidInput(f"There is no folder {folder}.")
    return [one for one in folder.iterdir() if one.is_file()]


def _numbered(files: Sequence[Path]) -> list[tuple[int, Path]]:
    """By the last number in each name; where they lack one or share it, by name, counted from 0."""
    numbers = [re.findall(r"\d+", path.stem) for path in files]
    if all(numbers):
        frames = sorted((int(found[-1]), path) for found, path in zip(numbers, files, strict=True))
        if len({number for number, _ in frames}) == len(frames):
            return frames
    return list(enumerate(sorted(files)))


def _digits(frames: Sequence[tuple[int, Path]]) -> int:
    """Of the numbers in the names, the fewest that any is written with."""
    written = [re.findall(r"\d+", path.stem)[-1:] for _, path in frames]
    own = all(found and int(found[0]) == number for found, (number, _) in zip(written, frames, strict=True))
    return min(len(found[0]) for found in written) if own else _DIGITS


def _name(source: str | os.PathLike[str]) -> str:
    """`shot` of `shot.####.exr`, the folder's name of a folder or of `shots/*.png`."""
    path = Path(source)
    if path.is_dir():
        return path.resolve().name or "frames"
    plain = _NUMBER.sub("", path.stem) if not glob.has_magic(path.name) else ""
    return plain.strip("._- ") or path.parent.resolve().name or "frames"


def _holes(numbers: Sequence[int]) -> list[str]:
    """`["1004", "1007-1009"]`: what a sequence lacks between its first and last number."""
    holes = []
    for before, after in pairwise(numbers):
        if after - before == 2:
            holes.append(str(before + 1))
        elif after - before > 2:
            holes.append(f"{before + 1}-{after - 1}")
    return holes


def _few(holes: Sequence[str]) -> str:
    rest = len(holes) - _HOLES_SHOWN
    return ", ".join(holes[:_HOLES_SHOWN]) + (f" and {rest} more gaps" if rest > 0 else "")


def _check_sizes(files: Sequence[Path], layer: str | None) -> None:
    """Raises `InvalidInput` where the headers name two sizes: then these are no frames of one video."""
    first = media.image_size(files[0], layer=layer)
    for path in files[1:]:
        size = media.image_size(path, layer=layer)
        if size != first:
            raise InvalidInput(
                f"{files[0].name} is {first[1]} x {first[0]} pixels and {path.name} {size[1]} x {size[0]}: they are no"
                " frames of one video.",
                advice="Pictures that do not belong together go through `sa2va segment`.",
            )


def _once(note: str, frames: int) -> str:
    """The sentence about the first of several frames, with the number of the others."""
    more = "" if frames == 2 else "s"
    return note if frames == 1 else f"{note} The same holds for {frames - 1} other frame{more}."
