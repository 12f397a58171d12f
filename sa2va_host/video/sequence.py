"""Single pictures that are the frames of a video: a folder, a pattern, or numbers in a name (`shot.####.exr`).

A `sa2va_host.video.clip.Clip`. Pictures are read as `sa2va_host.media.read_image` does (16 bits are cut to 8, colours
taken as sRGB; scene-linear files are shown as sRGB), and each frame carries its `sa2va_host.plate.Plate`.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from sa2va_host import media
from sa2va_host.discovery import find
from sa2va_host.endings import FRAMES
from sa2va_host.errors import InvalidInput
from sa2va_host.extras import check_exr
from sa2va_host.machine.commands import sa2va_command
from sa2va_host.media import Picture
from sa2va_host.plate import Plate

from .clip import Frame, Frames, Selection, check_frame_size
from .order import few, ordered, ticks, written_digits
from .readahead import ahead

_DEFAULT_RATE = Fraction(24)
_SLOWEST, _FASTEST = Fraction(1, 1000), Fraction(1000)
_FINEST = 100 * 1001
"""Two decimals of a rate, and NTSC's 1001; FFmpeg holds both parts of a fraction in 32 bits."""
_DIGITS = 5
"""Of frames that have no number of their own; as in DAVIS and YouTube-VOS, where they are called 00000."""
_HOLES_SHOWN = 5
_FINEST_ASPECT = 1000
"""The largest denominator of a pixel's aspect: EXR holds it as a float, in which 32:27 is 1.185185."""
_NUMBER = re.compile(r"#+|%0?(\d*)d")


def is_sequence(source: str | os.PathLike[str]) -> bool:
    """Whether `FrameSequence` is who reads this: a folder, or a pattern that is not itself a file."""
    path = Path(source)
    named = os.fspath(source)
    return path.is_dir() or (not path.exists() and bool(glob.has_magic(named) or _NUMBER.search(path.name)))


class FrameSequence:
    """Frames from files, in the order of the numbers in their names (`sa2va_host.video.order`). Each file is opened
    when it is due; one that cannot be read is passed over, and `warnings` names it.

    Raises `InvalidInput` where there are none, where none can be read, where their order is in doubt and where they
    differ in size, `ConfigError` where the library for OpenEXR is missing. Numbers that are missing are named in
    `warnings`; the frames around them follow each other.
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
        self._noted: dict[str, tuple[str, set[Path]]] = {}
        """By kind the sentence about the first frame that was read, and all files that it holds for."""
        self._selection = selection
        self._layer = layer
        self._source = os.fspath(source)
        found = _find(source, self._warnings)
        _check_distinct(found)
        self.name = _name(source)
        numbers = [number for number, _ in found]
        self.digits = written_digits(found) or _DIGITS
        counted = ticks(numbers)
        if counted is None:
            self._warnings.append(
                f"The numbers in the names of {source} ({numbers[0]}, ...) cannot count frames: the frames follow each"
                f" other at {float(self.rate):g} a second (--fps)."
            )
            counted = list(range(len(found)))
        elif holes := _holes(numbers):
            self._warnings.append(f"Frames are missing from {source}: {_few(holes)}. They are passed over.")
        first = numbers[0] if selection.start is None else selection.start
        last = numbers[-1] if selection.end is None else selection.end
        wanted = [
            (number, tick, path)
            for (number, path), tick in zip(found, counted, strict=True)
            if first <= number <= last
        ]
        if not wanted:
            raise InvalidInput(
                f"No frame of {source} lies between {first} and {last}.",
                advice=f"It has frames {numbers[0]} to {numbers[-1]}.",
            )
        self._frames = wanted[:: selection.stride]
        """Number, time in frame intervals, and file of each."""
        paths = [path for _, _, path in self._frames]
        self.version: list[int | str] = [len(paths), paths[0].name, paths[-1].name]
        if any(path.suffix.lower() == ".exr" for path in paths):
            check_exr()
        self._unreadable = _check_sizes(paths, layer)
        """The files that are passed over, and why."""
        if self._unreadable:
            self._warnings.append(_passed_over(self._source, self._unreadable, "passed over"))
        self._looked_at = False
        self._pixel_aspect: Fraction | None = None
        self._held: dict[Path, InvalidInput] = {}
        self._sentences: dict[str, int] = {}

    @property
    def frame_count(self) -> int:
        return len(self._frames) - len(self._unreadable)

    @property
    def plate(self) -> Plate | None:
        return Plate(self._frames[0][2], self._layer)

    @property
    def warnings(self) -> list[str]:
        return [*self._warnings, *(_once(note, len(places)) for note, places in list(self._noted.values()))]

    def __iter__(self) -> Frames:
        return ahead(frame for frame in self._read() if frame is not None)

    def look_at(self, places: Collection[int]) -> Iterator[Frame | None]:
        self._looked_at = True
        return self._read(places)

    def _read(self, places: Collection[int] | None = None) -> Iterator[Frame | None]:
        """The frames that can be read; of ``places`` among them as `look_at` says."""
        given, begin, found = 0, 0, {}
        picture: Picture | None = None
        plate: Plate | None = None
        for number, tick, path in self._frames:
            if path in self._unreadable:
                continue
            if places is not None and given not in places:
                begin = begin if given else tick
                given += 1
                yield None
                continue
            try:
                picture, plate = self._image(path)
            except InvalidInput as error:
                # Key frames that were looked at have places, which the frames after this one must keep.
                if picture is None or places is not None or not self._looked_at:
                    self._unreadable[path] = found[path] = error
                    self._say(found, "passed over")
                    continue
                self._held[path] = error
                self._say(self._held, "shown as the frame before")
            begin = begin if given else tick
            given += 1
            yield Frame(number, picture, (tick - begin) / self.rate, self._aspect_of(plate), plate)
            if places is not None and given > max(places):
                return
        if not given:
            raise _nothing_readable(self._source, list(self._unreadable.values()))

    def _aspect_of(self, plate: Plate | None) -> Fraction:
        """The pixels' aspect, of the first frame alone: all frames of a plate have the same."""
        if self._pixel_aspect is None:
            aspect = plate.window().aspect if plate else 1.0
            self._pixel_aspect = Fraction(aspect).limit_denominator(_FINEST_ASPECT)
        return self._pixel_aspect

    def _image(self, path: Path) -> tuple[Picture, Plate]:
        """The image as it is wanted, and its file."""
        notes: list[str] = []
        picture = media.read_image(path, layer=self._layer, notes=notes)
        for note in notes:
            self._noted.setdefault(note.replace(str(path), ""), (note, set()))[1].add(path)
        scaled = self._selection.scaled(picture)
        size = None if scaled is picture else (scaled.shape[0], scaled.shape[1])
        return scaled, Plate(path, self._layer, size)

    def _say(self, damaged: Mapping[Path, InvalidInput], what: str) -> None:
        """In one sentence, which grows."""
        place = self._sentences.setdefault(what, len(self._warnings))
        self._warnings[place : place + 1] = [_passed_over(self._source, damaged, what)]


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

    What there is to say about it, as of what looks like a frame and is passed over, is added to ``notes``. A link to
    another frame is a frame of its own.
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
        nothing = "The folder {} has no images in it." if path.is_dir() else "No frame matches {!r}."
        raise InvalidInput(nothing.format(os.fspath(source)), advice=" ".join(found.notes))
    frames, remarks = ordered(found.files)
    notes += [*found.notes, *remarks]
    return frames


def _listing(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InvalidInput(f"There is no folder {folder}.")
    return [one for one in folder.iterdir() if one.is_file()]


def _check_distinct(frames: Sequence[tuple[int, Path]]) -> None:
    """Raises `InvalidInput` where a numbered pattern fits two files with one number: `1.png` and `01.png`."""
    for (before, one), (after, other) in pairwise(frames):
        if before == after:
            raise InvalidInput(
                f"{one.name} and {other.name} have the same number.", advice="Rename or remove one of them."
            )


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


def _check_sizes(files: Sequence[Path], layer: str | None) -> dict[Path, InvalidInput]:
    """The files whose headers cannot be read, and why. Raises `InvalidInput` where the others name two sizes: then
    these are no frames of one video.
    """
    unreadable: dict[Path, InvalidInput] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    for path in files:
        try:
            sizes[path] = media.image_size(path, layer=layer)
        except InvalidInput as error:
            unreadable[path] = error
    if not sizes:
        raise _nothing_readable(files[0].parent, list(unreadable.values()))
    (one, first), *others = sizes.items()
    check_frame_size(*first, str(one))
    for path, size in others:
        if size != first:
            raise InvalidInput(
                f"{one.name} is {first[1]} x {first[0]} pixels and {path.name} {size[1]} x {size[0]}: they are no"
                " frames of one video.",
                advice=f"Pictures that do not belong together go through `{sa2va_command('segment')}`.",
            )
    return unreadable


def _nothing_readable(source: str | os.PathLike[str], errors: Sequence[InvalidInput]) -> InvalidInput:
    if len(errors) == 1:
        return errors[0]
    return InvalidInput(
        f"None of the {len(errors)} frames of {source} can be read. {errors[0].message}",
        advice=errors[0].advice,
    )


def _passed_over(source: str, damaged: Mapping[Path, InvalidInput], what: str) -> str:
    """``what`` happens to frames that cannot be read, in a sentence that names them."""
    (first, error), *others = damaged.items()
    if not others:
        return f"The frame {first.name} of {source} is {what}: {error.message}"
    names = few([path.name for path in damaged])
    return f"{len(damaged)} frames of {source} are {what}: {names}. {error.message}"


def _once(note: str, frames: int) -> str:
    """The sentence about the first of several frames, with the number of the others."""
    more = "" if frames == 2 else "s"
    return note if frames == 1 else f"{note} The same holds for {frames - 1} other frame{more}."
