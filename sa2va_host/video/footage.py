"""Video files, read frame by frame through PyAV: upright, in sRGB's 8 bits, with the time at which each is shown.

A `sa2va_host.video.clip.Clip`. Colours go by what the file says of its matrix and range; a file that does not say is
taken for BT.709 from 720 lines on and for BT.601 below, limited range, as players do. What is damaged is passed over
and said.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sa2va_host.errors import ConfigError, InvalidInput

from .clip import Frame, Frames, Selection
from .readahead import ahead

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from sa2va_host.media import Picture

_BT709, _BT601 = 1, 5
_MATRICES = {1: _BT709, 4: 4, 5: _BT601, 6: _BT601, 7: 7, 9: 9, 10: 9}
"""ITU-T H.273's MatrixCoefficients -> swscale's SWS_CS, which has one number for matrices that are equal."""
_HD_LINES = 720
_HDR = {16: "PQ", 18: "HLG"}
"""H.273 TransferCharacteristics whose pictures are brighter than sRGB can show."""
_LIMITED, _FULL = 1, 2
_UNKNOWN_RATE = Fraction(25)
_TOLERANCE, _TOLERATED = Fraction(1), Fraction(1, 20)
"""Seconds, and the share of a video, by which its header may be wrong about the length: sound often ends later."""


def check_av() -> None:
    """Raises `ConfigError` where the package that reads and writes videos is not installed."""
    if find_spec("av") is None:
        from sa2va_host.machine.commands import extra_command

        raise ConfigError("Video files need the package av.", advice=f"Run: {extra_command('video')}")


def as_url(path: Path) -> str:
    """A file's name as FFmpeg takes it, which would read `clip:1.mp4` as a protocol and an address."""
    return f"file:{path}"


class Footage:
    """The best video stream of a file. Raises `InvalidInput` for what is no video, `ConfigError` without PyAV."""

    def __init__(self, path: Path, selection: Selection) -> None:
        check_av()
        self.path = path
        self.name = path.stem
        self.digits = 5
        self.warnings: list[str] = []
        self.begins = Fraction(0)
        self._selection = selection
        with self._open() as (container, stream):
            self.rate = stream.average_rate or stream.guessed_rate or _UNKNOWN_RATE
            self.time_base = stream.time_base or 1 / self.rate
            self.audio = path if container.streams.audio else None
            self._promised = stream.frames
            self.warnings += _beyond_srgb(path, stream)
            self._lasts = _duration(container, stream)
            total = stream.frames or round((self._lasts or 0) * self.rate)
        self.frame_count: int | None = self._count(total) if total else None
        known = path.stat()
        self.version: list[int | str] = [known.st_size, known.st_mtime_ns]

    def __iter__(self) -> Frames:
        return ahead(frame for frame in self._read() if frame is not None)

    def look_at(self, places: Collection[int]) -> Iterator[Frame | None]:
        return self._read(places)

    def _count(self, total: int) -> int:
        """How many of so many frames are wanted."""
        last = total - 1 if self._selection.end is None else min(self._selection.end, total - 1)
        return max(0, math.ceil((last + 1 - (self._selection.start or 0)) / self._selection.stride))

    def _read(self, places: Collection[int] | None = None) -> Iterator[Frame | None]:
        """The wanted frames; of ``places`` among them as `look_at` says."""
        start, end = self._selection.start or 0, self._selection.end
        number, given, until, matrix = -1, 0, Fraction(0), None
        with self._open() as (container, stream):
            stream.thread_type = "AUTO"
            for number, (frame, time) in enumerate(self._timed(self._decode(container, stream), stream)):
                until = time + 1 / self.rate
                if not number:
                    # Of the first frame alone: to ask a frame for it makes it live until garbage is collected.
                    matrix = frame.side_data.get("DISPLAYMATRIX")
                if end is not None and number > end:
                    break
                if number < start or (number - start) % self._selection.stride:
                    continue
                if places is None or given in places:
                    yield Frame(number, self._selection.scaled(_picture(frame, matrix)), time)
                else:
                    yield None
                given += 1
                if places is not None and given > max(places):
                    return
        self.frame_count = given
        found = number + 1
        if not found:
            raise InvalidInput(f"{self.path} has no frame that can be decoded.")
        if not given:
            raise InvalidInput(
                f"{self.path} has {found} frames, from 0; none is from {start} on.", advice="Choose others."
            )
        if self._promised and (end is None or end >= self._promised) and found != self._promised:
            self._warn(f"The header of {self.path} promises {self._promised} frames; there are {found}.")
        missing = 0 if self._promised or end is not None else (self._lasts or 0) - until
        if missing > max(_TOLERANCE, _TOLERATED * until):
            self._warn(
                f"The header of {self.path} promises {float(self._lasts or 0):.1f} s; its frames end after"
                f" {float(until):.1f} s. It may be cut short."
            )

    def _warn(self, sentence: str) -> None:
        """Once, however often the file is read."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        import av

        if self.path.is_file() and not self.path.stat().st_size:
            raise InvalidInput(f"{self.path} is empty (0 bytes).")
        try:
            container = av.open(as_url(self.path), metadata_errors="replace")
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise InvalidInput(f"{self.path} cannot be read: {error.strerror}.") from error
        except (av.FFmpegError, OSError) as error:
            raise InvalidInput(
                f"{self.path} is no video that can be read, or it is cut short: {error.strerror}."
            ) from error
        with container:
            streams = [
                one for one in container.streams.video if not one.disposition & one.disposition.attached_pic
            ]
            if not streams or streams[0].codec_context is None:
                raise InvalidInput(f"{self.path} has no video in it that can be decoded.")
            yield container, streams[0]

    def _decode(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """Every frame that can be had; what cannot is counted, and said at the end."""
        import av

        damaged = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self._warn(f"{self.path} cannot be read to its end: {error.strerror}.")
                return
            if packet is None:
                break
            try:
                frames = packet.decode()
            except av.FFmpegError:
                damaged += 1
                continue
            for frame in frames:
                damaged += frame.is_corrupt
                yield frame
        if damaged:
            self._warn(f"{damaged} frames of {self.path} are damaged or missing.")

    def _timed(
        self, frames: Iterator[VideoFrame], stream: VideoStream
    ) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Each frame with its time since the first; where a file has none, or runs backwards, the rate stands in."""
        last: Fraction | None = None
        for frame in frames:
            unit = frame.time_base or stream.time_base
            shown = None if frame.pts is None or unit is None else frame.pts * unit
            time = Fraction(0)
            if last is None:
                self.begins = shown or time
            else:
                time = last if shown is None else shown - self.begins
                if time <= last:
                    time = last + 1 / self.rate
            last = time
            yield frame, time


def _duration(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Seconds; of containers that name no video's own length, as Matroska, their whole one."""
    import av

    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    return Fraction(container.duration, av.time_base) if container.duration else None


def _beyond_srgb(path: Path, stream: VideoStream) -> list[str]:
    """What 8 bits of sRGB cannot hold of the stream, in a sentence."""
    context = stream.codec_context
    curve = _HDR.get(context.color_trc)
    if curve:
        flat = "shown without tone mapping, its colours are flat. Convert it to SDR first where the answer is poor."
        return [f"{path} is HDR ({curve}): {flat}"]
    components = context.format.components if context.format else ()
    bits = max((component.bits for component in components), default=8)
    return [f"{path} has {bits} bits; the model sees 8 of them."] if bits > 8 else []


def _picture(frame: VideoFrame, matrix: Any) -> Picture:
    """uint8 RGB `[height, width, 3]`, upright."""
    if frame.format.is_rgb:
        rgb = frame.reformat(format="rgb24")
    else:
        usual = _BT709 if frame.height >= _HD_LINES else _BT601
        rgb = frame.reformat(
            format="rgb24",
            src_colorspace=_MATRICES.get(frame.colorspace, usual),
            src_color_range=_FULL if frame.color_range == _FULL else _LIMITED,
            dst_color_range=_FULL,
        )
    return np.ascontiguousarray(_upright(rgb.to_ndarray(), matrix), dtype=np.uint8)


def _upright(picture: NDArray[Any], matrix: Any) -> NDArray[Any]:
    """Turned and mirrored as the file's display matrix says: `x' = ax + cy`, `y' = bx + dy` (ISO/IEC 14496-12, 6.2.2),
    whose angle is taken for the nearest quarter turn.
    """
    if matrix is None:
        return picture
    (a, b, _), (c, d, _), _ = np.frombuffer(matrix, np.int32).reshape(3, 3).tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
