"""What a video is read from, whatever its form: `Clip`, its frames, and which of them are wanted.

`open_clip` takes a video file (`sa2va_host.video.footage`) or single pictures (`sa2va_host.video.sequence`). Called by
front ends; knows nothing of models or workers.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sa2va_host.errors import InvalidInput
from sa2va_host.machine.commands import sa2va_command

if TYPE_CHECKING:
    from sa2va_host.media import Picture
    from sa2va_host.plate import Plate


_DIGITS, _FEWEST_DIGITS = 5, 4
"""Of frames that count from 0, as in DAVIS and YouTube-VOS (00000); of those that begin elsewhere (1001)."""
_LARGEST_NUMBER = 10**9
MAX_FRAME_BYTES = 256 << 20
"""Of one frame as RGB: 12K (12288 x 6480) fits. Single images may have 1 GiB."""


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One frame of a clip."""

    number: int
    """Its place in the file, from 0 or the number given for the first; of numbered pictures the number in the file's
    name.
    """
    picture: Picture
    """uint8 RGB `[height, width, 3]`, upright and sRGB, at most as large as was asked for."""
    time: Fraction
    """Seconds since the clip's first frame, exactly."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel as it is to be shown, divided by its height; models see the pixels as they are."""
    plate: Plate | None = None
    """Its file, from which outputs take what 8 bits cannot hold; None of a frame of a video file."""


Frames: TypeAlias = Generator[Frame, None, None]
"""Frames that are read as they are asked for. Files are open until their end or their `close`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which frames are read, by `Frame.number`, and how large. Raises `InvalidInput` for impossible values."""

    start: int | None = None
    """The first; None is the first there is."""
    end: int | None = None
    """The last; None is the last there is."""
    stride: int = 1
    """Every so many frames, counted from the first that is read."""
    max_size: int | None = None
    """Larger frames are scaled down until the longer side has so many pixels."""

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise InvalidInput(f"The stride is {self.stride}. Use 1 for every frame, 2 for every second one.")
        if self.max_size is not None and self.max_size < 1:
            raise InvalidInput(f"The largest size is {self.max_size} pixels. Use 1 or more.")
        for name, number in (("first", self.start), ("last", self.end)):
            if number is not None and number < 0:
                raise InvalidInput(f"The {name} frame is {number}. Frames are counted from 0.")
        if self.start is not None and self.end is not None and self.start > self.end:
            raise InvalidInput(f"The first frame, {self.start}, comes after the last one, {self.end}.")

    def from_zero(self, first: int) -> Selection:
        """The same frames of a video whose first one is called ``first``, counted from 0. Raises `InvalidInput` for
        numbers before it, which only somebody names who counts from 0.
        """
        for name, number in (("first", self.start), ("last", self.end)):
            if number is not None and number < first:
                raise InvalidInput(
                    f"The {name} frame is {number}, but the first one of the file is called {first}.",
                    advice="--start and --end go by the numbers that --first-frame begins.",
                )
        start = None if self.start is None else self.start - first
        end = None if self.end is None else self.end - first
        return replace(self, start=start, end=end)

    def wants(self, number: int) -> bool:
        """Whether the frame with this number is one of them, in a video that counts from 0."""
        start = self.start or 0
        return (
            number >= start
            and (number - start) % self.stride == 0
            and (self.end is None or number <= self.end)
        )

    def count(self, total: int) -> int:
        """How many of so many frames are wanted, counted from 0."""
        last = total - 1 if self.end is None else min(self.end, total - 1)
        return max(0, (last - (self.start or 0)) // self.stride + 1)

    def scaled(self, picture: Picture) -> Picture:
        """The picture, scaled down where it is too large (each pixel the mean of those it stands for)."""
        height, width = picture.shape[:2]
        if self.max_size is None or max(height, width) <= self.max_size:
            return picture
        from sa2va_host.resizing import longest_side, shrink

        return shrink(picture, longest_side(height, width, self.max_size))


def check_frame_size(height: int, width: int, name: str) -> None:
    """Raises `InvalidInput` for frames of more than `MAX_FRAME_BYTES` as RGB: a dozen of them are held at a time."""
    if height * width * 3 > MAX_FRAME_BYTES:
        raise InvalidInput(
            f"The frames of {name} have {width} x {height} pixels, more than {MAX_FRAME_BYTES >> 20} MiB as RGB.",
            advice="Scale the video down first.",
        )


def numbering(first_frame: int | None) -> tuple[int, int]:
    """The number of a file's first frame, and with how many digits its frames are numbered at least. Raises
    `InvalidInput` for a number that is none.
    """
    if first_frame is None:
        return 0, _DIGITS
    if not 0 <= first_frame <= _LARGEST_NUMBER:
        raise InvalidInput(
            f"The first frame's number is {first_frame}.", advice=f"Use one from 0 to {_LARGEST_NUMBER:,}."
        )
    return first_frame, max(_FEWEST_DIGITS, len(str(first_frame)))


class Clip(Protocol):
    """Frames that are read in order, in constant memory, and from the beginning again each time it is iterated."""

    @property
    def name(self) -> str:
        """What its outputs are called after."""

    @property
    def rate(self) -> Fraction:
        """Frames per second: of a video file the average that it names."""

    @property
    def time_base(self) -> Fraction:
        """What the times of its frames are multiples of, in seconds."""

    @property
    def audio(self) -> Path | None:
        """The file whose sound belongs to it; None where there is none."""

    @property
    def begins(self) -> Fraction:
        """When its first frame is shown in that file's own clock, in seconds; known once a frame was read."""

    @property
    def frame_count(self) -> int | None:
        """How many frames there will be; None where nobody says. A video's header may be wrong about it, which is put
        right once the video was read to its end.
        """

    @property
    def digits(self) -> int:
        """With how many digits frames are numbered at least."""

    @property
    def plate(self) -> Plate | None:
        """The file of its first frame; None of a video file."""

    @property
    def version(self) -> list[int | str]:
        """What changes when other files take the place of those that are read, which are not opened for it."""

    @property
    def warnings(self) -> list[str]:
        """What is not as it should be, one sentence each; grows while frames are read."""

    def __iter__(self) -> Frames:
        """The wanted frames. Raises `InvalidInput` where one cannot be read; those before it stay good."""

    def look_at(self, places: Collection[int]) -> Iterator[Frame | None]:
        """An item for each wanted frame, from the first to the last of ``places``: the frame where it is one of them,
        else None, which costs less. Ends before where there are fewer.
        """


def open_clip(
    source: str | os.PathLike[str],
    selection: Selection | None = None,
    *,
    rate: Fraction | None = None,
    layer: str | None = None,
    first_frame: int | None = None,
    deinterlace: bool = False,
) -> Clip:
    """A video file, an animated image, a folder of frames, a pattern such as `shots/*.png`, or a numbered one such as
    `shot.####.exr`.

    ``rate`` is that of single images, which have none of their own: 0.001 to 1000 a second (default: 24). ``layer``
    is that of OpenEXR frames, as `sa2va_host.exr.read_exr` takes it. ``first_frame`` is the number of a video file's
    first frame (default: 0), by which the selection goes, too; single images keep their own numbers. ``deinterlace``
    makes whole frames of interlaced ones. Raises `InvalidInput` where there is nothing to read, `ConfigError` where a
    library for it is missing.
    """
    from sa2va_host.discovery import expanded
    from sa2va_host.endings import FRAMES

    from .animation import Animation, animation_reader
    from .sequence import FrameSequence, is_sequence

    selection = selection or Selection()
    source = expanded(source)
    if is_sequence(source):
        if first_frame is not None:
            raise InvalidInput(
                f"{source} holds single images, which keep the numbers of their names.",
                advice="Leave out --first-frame, which is for video files.",
            )
        if deinterlace:
            raise InvalidInput(f"{source} holds single images.", advice="--deinterlace is for video files.")
        return FrameSequence(source, selection, rate=rate, layer=layer)
    path = Path(source)
    reader = animation_reader(path)
    if reader is None and path.suffix.lower() in FRAMES and path.is_file():
        raise InvalidInput(
            f"{path} is a picture file, of which only the first frame would be read.",
            advice=f"Name a video, a folder of frames or a pattern, or use `{sa2va_command('segment')}`.",
        )
    if rate is not None:
        raise InvalidInput(f"{path} is a video and has a rate of its own.", advice="Name none (--fps).")
    if layer is not None:
        raise InvalidInput(
            f"{path} has no layers, which only OpenEXR frames have.", advice="Leave out --layer."
        )
    if reader == "pillow":
        return Animation(path, selection, first_frame=first_frame)
    from .footage import Footage

    return Footage(path, selection, first_frame=first_frame, deinterlace=deinterlace)
