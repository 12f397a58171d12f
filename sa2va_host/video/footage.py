"""Video files, read frame by frame through PyAV: upright, in sRGB's 8 bits, with the time at which each is shown.

A `sa2va_host.video.clip.Clip`. Colours go by what the file says of its matrix and range; a file that does not say is
taken for BT.709 from 720 lines on and for BT.601 below, limited range, as players do. Transparent parts are shown on
white. What is damaged is passed over, with a note.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sa2va_host.errors import ConfigError, InvalidInput
from sa2va_host.media import read_image

from .clip import MAX_FRAME_BYTES, Frame, Frames, Selection, check_frame_size, numbering
from .deinterlace import deinterlaced
from .readahead import ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    from av import Packet, VideoFrame
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
_PLAYLISTS = frozenset({"concat", "hls", "applehttp", "dash", "imf", "sdp", "rtsp"})
"""FFmpeg's names of the formats that lead to other files or addresses."""
_PLAYLIST_SUFFIXES = frozenset({".ffconcat", ".m3u", ".m3u8", ".mpd", ".pls", ".sdp"})
_PLAYLIST_HEADS = (b"ffconcat", b"#EXTM3U", b"[playlist]", b"v=0\r\n", b"v=0\n")
_HEAD = 4096
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


def metadata_options(version: str) -> dict[str, str]:
    """The arguments of `av.open` with which PyAV of this version opens a file whose title is not UTF-8: from 19 on it
    keeps such bytes as surrogates by itself, and has no argument for it.
    """
    return {"metadata_errors": "replace"} if int(version.partition(".")[0]) < 19 else {}


def open_input(source: Path | IO[bytes], *, playlists: bool = True) -> InputContainer:
    """The file, opened by PyAV. Without ``playlists`` FFmpeg refuses what leads to other files before it opens any of
    them (`format_whitelist`). Raises what PyAV does.
    """
    import av

    more: Any = metadata_options(av.__version__)
    if not playlists:
        more["options"] = {"format_whitelist": ",".join(sorted(av.formats_available - _PLAYLISTS))}
    container: InputContainer = av.open(as_url(source) if isinstance(source, Path) else source, **more)
    return container


def open_upload(source: Path | IO[bytes], name: str) -> InputContainer:
    """A video that somebody else may have put there: a playlist is refused whatever it is called. Raises `InvalidInput`
    for one, and for what holds no video or too large frames; for the rest what PyAV does.
    """
    if _is_playlist(_head(source)):
        raise InvalidInput(f"{name} is a playlist, which names other files.", advice="Use the video itself.")
    container = open_input(source, playlists=False)
    try:
        if not container.streams.video:
            raise InvalidInput(f"{name} has no video in it.")
        stream = container.streams.video[0]
        check_frame_size(stream.height, stream.width, name)
    except BaseException:
        container.close()
        raise
    return container


class Footage:
    """The best video stream of a file: the one that is marked as default, else the one of most pixels; never a cover.

    With ``deinterlace`` interlaced frames become whole ones, one for each (FFmpeg's bwdif). Raises `InvalidInput` for
    what is no video, `ConfigError` without PyAV.
    """

    def __init__(
        self,
        path: Path,
        selection: Selection,
        *,
        first_frame: int | None = None,
        deinterlace: bool = False,
    ) -> None:
        """``first_frame`` is the number of the file's first frame, by which the selection goes."""
        check_av()
        self.path = path
        self.name = path.stem
        # Where somebody numbers frames, they are mostly called as in film: 1001.
        self._first, self.digits = numbering(first_frame)
        self.warnings: list[str] = []
        self.plate = None
        self.begins = Fraction(0)
        self._selection = selection.from_zero(self._first)
        self._deinterlace = deinterlace
        with self._open() as (container, stream):
            check_frame_size(stream.height, stream.width, str(path))
            self.rate = stream.average_rate or stream.guessed_rate or _UNKNOWN_RATE
            self.time_base = stream.time_base or 1 / self.rate
            self.audio = path if container.streams.audio else None
            self._promised = stream.frames
            self.warnings += [*_one_of_several(path, container, stream), *_beyond_srgb(path, stream)]
            self._lasts = _duration(container, stream)
            total = stream.frames or round((self._lasts or 0) * self.rate)
        self.frame_count: int | None = self._selection.count(total) if total else None
        known = path.stat()
        self.version: list[int | str] = [known.st_size, known.st_mtime_ns]

    def __iter__(self) -> Frames:
        return ahead(frame for frame in self._read() if frame is not None)

    def look_at(self, places: Collection[int]) -> Iterator[Frame | None]:
        return self._read(places)

    def _read(self, places: Collection[int] | None = None) -> Iterator[Frame | None]:
        """The wanted frames; of ``places`` among them as `look_at` says."""
        start, end = self._selection.start or 0, self._selection.end
        number, given, until, turn = -1, 0, Fraction(0), _Turn()
        with self._open() as (container, stream):
            aspect = stream.sample_aspect_ratio or Fraction(1)
            decoded = self._decode(container, stream, turn)
            for number, (frame, time) in enumerate(self._timed(decoded, stream)):
                until = time + 1 / self.rate
                if end is not None and number > end:
                    break
                if not self._selection.wants(number):
                    continue
                if places is None or given in places:
                    check_frame_size(frame.height, frame.width, str(self.path))
                    picture = self._selection.scaled(turn.upright(_picture(frame)))
                    shown = 1 / aspect if turn.sideways else aspect
                    yield Frame(self._first + number, picture, time, shown)
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
                f"{self.path} has {found} frames, from {self._first}; none is from {self._first + start} on.",
                advice="Choose others.",
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
        _check_not_a_playlist(self.path)
        try:
            container = open_input(self.path, playlists=_is_named_a_playlist(self.path))
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise InvalidInput(f"{self.path} cannot be read: {error.strerror}.") from error
        except (av.FFmpegError, OSError) as error:
            raise InvalidInput(
                f"{self.path} is no video that can be read, or it is cut short: {error.strerror}."
            ) from error
        with container:
            streams = _films(container)
            if not streams:
                raise InvalidInput(f"{self.path} has no video in it that can be decoded.")
            yield container, streams[0]

    def _decode(self, container: InputContainer, stream: VideoStream, turn: _Turn) -> Iterator[VideoFrame]:
        """Every frame that can be had, whole, and for ``turn`` how it lies; a note at the end counts what could not."""
        frames = self._as_stored(container, stream)
        first = next(frames, None)
        if first is None:
            return
        # Of the first frame alone: to ask a frame for it makes it live until garbage is collected.
        turn.read(first.side_data.get("DISPLAYMATRIX"))
        frames = chain([first], frames)
        del first
        yield from deinterlaced(frames) if self._deinterlace else self._whole(frames)

    def _whole(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """The frames as they are, with a note where they are interlaced."""
        for frame in frames:
            if frame.interlaced_frame:
                self._warn(
                    f"{self.path} is interlaced: what moves has combed edges, in which the model finds less."
                    " --deinterlace makes whole frames of it."
                )
            yield frame

    def _as_stored(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        import av

        damaged = 0
        decode = _decoder(stream)
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
                frames = decode(packet)
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


def _check_not_a_playlist(path: Path) -> None:
    """Raises `InvalidInput` for a file that leads FFmpeg to others, unless it is called what it is: somebody's upload
    could name any file here.
    """
    if not _is_named_a_playlist(path) and _is_playlist(_head(path)):
        raise _a_playlist(path)


def _head(source: Path | IO[bytes]) -> bytes:
    """How a file begins; nothing where it cannot be read, which is for the one who opens it to say."""
    if not isinstance(source, Path):
        head = source.read(_HEAD)
        source.seek(0)
        return head
    try:
        with source.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError:
        return b""


def _is_playlist(head: bytes) -> bool:
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(_PLAYLIST_HEADS) or b"<mpd" in head.lower()


def _is_named_a_playlist(path: Path) -> bool:
    return path.suffix.lower() in _PLAYLIST_SUFFIXES


def _a_playlist(path: Path) -> InvalidInput:
    return InvalidInput(
        f"{path} is a playlist, which names other files, and is not called one.",
        advice=f"If you trust it, rename it to end in one of {', '.join(sorted(_PLAYLIST_SUFFIXES))}.",
    )


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


def _films(container: InputContainer) -> list[VideoStream]:
    """The video streams that can be decoded, the best one first; covers and thumbnails are none."""
    from av.stream import Disposition

    stills = Disposition.attached_pic | Disposition.timed_thumbnails
    films = [
        one
        for one in container.streams.video
        if getattr(one, "codec_context", None) is not None and not one.disposition & stills
    ]
    return sorted(
        films,
        key=lambda one: (bool(one.disposition & Disposition.default), one.width * one.height),
        reverse=True,
    )


def _one_of_several(path: Path, container: InputContainer, stream: VideoStream) -> list[str]:
    """Which stream is read, in a sentence, where there are others."""
    count = len(_films(container))
    if count == 1:
        return []
    return [
        f"{path} has {count} video streams; number {stream.index}, {stream.width} x {stream.height}, is read."
    ]


def _decoder(stream: VideoStream) -> Callable[[Packet[VideoStream]], Sequence[VideoFrame]]:
    """What makes frames of packets: libvpx where a VP8 or VP9 stream has alpha, which FFmpeg's own decoders drop."""
    import av

    # What changes its size later is not decoded either.
    bounds = {"max_pixels": str(MAX_FRAME_BYTES // 3)}
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        stream.thread_type = "AUTO"
        stream.codec_context.options = bounds
        return lambda packet: packet.decode()
    context: Any = av.CodecContext.create(name, "r")
    context.extradata = stream.codec_context.extradata
    context.thread_type = "AUTO"
    context.options = bounds
    return lambda packet: context.decode(packet if packet.size else None)


def _picture(frame: VideoFrame) -> Picture:
    """uint8 RGB `[height, width, 3]`, as it lies in the file; transparent parts on white."""
    form = "rgba" if _has_alpha(frame) else "rgb24"
    if frame.format.is_rgb:
        rgb = frame.reformat(format=form)
    else:
        usual = _BT709 if frame.height >= _HD_LINES else _BT601
        matrix = _MATRICES.get(frame.colorspace, usual)
        rgb = frame.reformat(
            format=form,
            src_colorspace=matrix,
            # RGB has none, but PyAV before 17 looks at the matrix of the source only where this is another one.
            dst_colorspace=_BT601 if matrix == _BT709 else _BT709,
            src_color_range=_FULL if frame.color_range == _FULL else _LIMITED,
            dst_color_range=_FULL,
        )
    return read_image(rgb.to_ndarray())


def _has_alpha(frame: VideoFrame) -> bool:
    """Whether it has a channel for it, or a palette, whose colours may be transparent."""
    return frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)


class _Turn:
    """How frames lie in a file: a display matrix, `x' = ax + cy`, `y' = bx + dy` (ISO/IEC 14496-12, 6.2.2), whose angle
    is taken for the nearest quarter turn.
    """

    def __init__(self) -> None:
        self.sideways = False
        """Whether width and height change places."""
        self._mirrored = self._upside_down = False

    def read(self, matrix: Any) -> None:
        """From a frame's side data, or None."""
        if matrix is None:
            return
        (a, b, _), (c, d, _), _ = np.frombuffer(matrix, np.int32).reshape(3, 3).tolist()
        self.sideways = abs(a) + abs(d) < abs(b) + abs(c)
        across, down = (c, b) if self.sideways else (a, d)
        self._mirrored, self._upside_down = across < 0, down < 0

    def upright(self, picture: Picture) -> Picture:
        """The picture turned and mirrored as it is to be shown, C-contiguous."""
        turned: NDArray[np.uint8] = picture.swapaxes(0, 1) if self.sideways else picture
        return np.ascontiguousarray(turned[:: -1 if self._upside_down else 1, :: -1 if self._mirrored else 1])
