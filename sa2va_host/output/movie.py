"""Videos out: a file that grows frame by frame, and gets its sound and its final form at the end.

Used by `sa2va_host.output.recording`. While it grows it is called NAME.unfinished.EXT and can be played up to the last
frame but one, so that a killed run keeps what it had; closed, it is NAME.EXT.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sa2va_host import media
from sa2va_host.errors import ConfigError
from sa2va_host.video.footage import as_url, check_av, open_input

from .webm import set_pixel_aspect

if TYPE_CHECKING:
    from av import Packet
    from av.container import OutputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

_BT709, _LIMITED, _FULL = 1, 1, 2
"""H.273 and swscale agree on these numbers."""
_LONGEST_FRAME, _MOST_UNITS = Fraction(3600), 2**30
"""Seconds, and units of the time base: of an MP4 FFmpeg keeps the length of two frames in a signed 32-bit number."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How a video is encoded."""

    names: tuple[str, ...]
    """FFmpeg's encoders, the first that is there is taken."""
    suffix: str
    container: str
    """FFmpeg's name of the file format."""
    pixels: str
    """FFmpeg's name of the pixel format."""
    options: Mapping[str, str] = field(default_factory=dict)
    growing: Mapping[str, str] = field(default_factory=dict)
    """Options of the file while it grows."""
    finished: Mapping[str, str] = field(default_factory=dict)
    """Options of its final form."""
    tag: str = ""
    """FourCC, which FFmpeg would choose by the codec alone when packets are copied."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Of the stream."""
    even: bool = False
    """Whether both sides must be even; then the last column or row is doubled."""

    def encoder(self) -> str:
        """The encoder's name. Raises `ConfigError` where PyAV, or one for this, is missing."""
        check_av()
        import av

        for name in self.names:
            if name in av.codecs_available:
                return name
        raise ConfigError(
            f"This build of PyAV has no encoder {self.names[0]}.",
            advice="Install another, or save something else.",
        )


# One fragment for each frame: what was written can be played whatever comes after.
_FRAGMENTS = {"movflags": "frag_every_frame+empty_moov+default_base_moof", "flush_packets": "1"}
# The index in front, so that a browser can begin before it has the whole file.
_INDEXED = {"movflags": "faststart"}

H264 = Codec(
    ("libx264", "libopenh264", "mpeg4"),
    ".mp4",
    "mp4",
    "yuv420p",
    # Without delay a killed run loses no frames that the encoder still held.
    {"crf": "18", "tune": "zerolatency"},
    _FRAGMENTS,
    _INDEXED,
    even=True,
)
PRORES_4444 = Codec(
    ("prores_ks",),
    ".mov",
    "mov",
    "yuva444p10le",
    {"profile": "4444", "alpha_bits": "16"},
    _FRAGMENTS,
    _INDEXED,
    tag="ap4h",
)
VP9_ALPHA = Codec(
    ("libvpx-vp9",),
    ".webm",
    "webm",
    "yuva420p",
    # libvpx has alpha only without alternate reference frames.
    {"crf": "20", "b": "0", "auto-alt-ref": "0", "lag-in-frames": "0", "deadline": "good", "cpu-used": "4"},
    {"cluster_time_limit": "0", "flush_packets": "1"},
    # Matroska's element AlphaMode, without which players do not look for alpha.
    metadata={"alpha_mode": "1"},
)


@dataclass(frozen=True, slots=True)
class Sound:
    """The audio that belongs to a video: of which file, and where in it the video's frames begin, in seconds."""

    path: Path
    begins: Fraction


class Movie:
    """One video of RGB or RGBA frames, tagged and encoded as BT.709. Raises `OSError` as the system does."""

    def __init__(self, path: Path, codec: Codec, *, rate: Fraction, time_base: Fraction) -> None:
        """``path`` without an ending. All times are multiples of ``time_base``; WebM rounds them to milliseconds."""
        self._encoder = codec.encoder()
        self.path = path.with_name(path.name + codec.suffix)
        self.unfinished = path.with_name(f"{path.name}.unfinished{codec.suffix}")
        self._codec = codec
        self._rate = rate
        self._time_base = time_base
        self._output: OutputContainer | None = None
        self._stream: Any = None
        self._pixel_aspect = Fraction(1)
        self._before = self._last = Fraction(0)
        self._cut_short = Fraction(0)

    def add(self, picture: NDArray[np.uint8], time: Fraction, pixel_aspect: Fraction = Fraction(1)) -> None:
        """Append a frame, uint8 `[height, width, 3]` or with straight alpha `[height, width, 4]`, shown at ``time``
        seconds; the first one begins the video, and its pixels' aspect is that of the video.
        """
        import av

        if self._codec.even:
            picture = np.pad(
                picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge"
            )
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(picture), format="rgba" if picture.shape[2] == 4 else "rgb24"
        )
        frame = frame.reformat(
            format=self._codec.pixels,
            dst_colorspace=_BT709,
            src_color_range=_FULL,
            dst_color_range=_LIMITED,
        )
        if self._output is None:
            self._before, self._pixel_aspect = time, pixel_aspect
        step, self._before = time - self._before, time
        longest = min(_LONGEST_FRAME, _MOST_UNITS * self._time_base)
        self._cut_short += max(Fraction(0), step - longest)
        self._last += min(step, longest)
        frame.pts, frame.time_base = round(self._last / self._time_base), self._time_base
        with _errors(self.path):
            if self._output is None:
                self._begin(picture.shape[1], picture.shape[0])
            self._mux(self._stream.encode(frame))

    def close(self, sound: Sound | None = None) -> str:
        """Give the video its final form, with the audio of ``sound``. Returns what is to be said of it, or nothing.

        Without a frame there is no file. A second time does nothing.
        """
        if self._output is None:
            return ""
        output, self._output = self._output, None
        with _errors(self.path):
            try:
                self._mux(self._stream.encode(None), output)
            finally:
                output.close()
        remarks = []
        if self._cut_short:
            remarks.append(
                f"{self.path.name} cannot show a frame for so long; {float(self._cut_short):.0f} s are left out of it."
            )
        if sound is None or not self._finish(sound):
            self._finish(None)
            if sound is not None and _has_audio(sound.path):
                remarks.append(
                    f"The sound of {sound.path} does not fit into {self.path.name} and was left out."
                )
        self.unfinished.unlink()
        return " ".join(remarks)

    def _begin(self, width: int, height: int) -> None:
        import av

        self.unfinished.parent.mkdir(parents=True, exist_ok=True)
        self._output = av.open(
            as_url(self.unfinished),
            "w",
            format=self._codec.container,
            container_options=dict(self._codec.growing),
        )
        stream: Any = self._output.add_stream(
            self._encoder, rate=self._rate, options=dict(self._codec.options)
        )
        stream.width, stream.height, stream.pix_fmt = width, height, self._codec.pixels
        context = stream.codec_context
        context.time_base = self._time_base
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        self._label(stream)
        self._stream = stream

    def _label(self, stream: Any) -> None:
        """What a player must know of the stream, and copying its packets forgets."""
        stream.metadata.update(self._codec.metadata)
        stream.codec_context.sample_aspect_ratio = self._pixel_aspect
        if self._codec.tag:
            stream.codec_context.codec_tag = self._codec.tag

    def _mux(self, packets: list[Packet[VideoStream]], output: OutputContainer | None = None) -> None:
        for packet in packets:
            (output or self._output).mux(packet)  # type: ignore[union-attr]

    def _finish(self, sound: Sound | None) -> bool:
        """Copy the packets into the final file; False where the audio does not fit into it."""
        import av

        def write(stream: IO[bytes]) -> None:
            # Inside `write_whole`, which names the file in errors of the system, as FFmpeg's cannot be.
            with _errors(self.path), contextlib.ExitStack() as stack:
                # By name: to put the index in front, FFmpeg opens the file a second time.
                output = stack.enter_context(
                    av.open(
                        as_url(Path(stream.name)),
                        "w",
                        format=self._codec.container,
                        container_options=dict(self._codec.finished),
                    )
                )
                grown = stack.enter_context(open_input(self.unfinished))
                video = grown.streams.video[0]
                # Opaque: PyAV 15 and 16 would look for an encoder of ProRes, and take one that has no alpha.
                copied = output.add_stream_from_template(video, opaque=True)
                self._label(copied)
                parts = [_moved(grown.demux(video), copied, Fraction(0), None)]
                if sound is not None:
                    source = stack.enter_context(open_input(sound.path))
                    audio = source.streams.audio[0]
                    copy = output.add_stream_from_template(audio)
                    parts.append(_moved(source.demux(audio), copy, sound.begins, self._last + 1 / self._rate))
                for packet in heapq.merge(*parts, key=_decoded_at):
                    output.mux(packet)
            if self._codec.container == "webm" and self._pixel_aspect != 1:
                set_pixel_aspect(Path(stream.name), self._pixel_aspect)

        try:
            media.write_whole(self.path, write)
        except (av.FFmpegError, IndexError, ValueError):
            if sound is None:
                raise
            return False
        return True


def _moved(
    packets: Iterator[Packet[Any]], stream: Stream, begins: Fraction, length: Fraction | None
) -> Iterator[Packet[Any]]:
    """The packets for another stream, ``begins`` seconds earlier; those before 0 and after ``length`` are left out."""
    for packet in packets:
        if packet.dts is None or packet.pts is None or packet.time_base is None:
            continue
        offset = round(begins / packet.time_base)
        shown = (packet.pts - offset) * packet.time_base
        if length is not None and shown >= length:
            return
        if packet.pts >= offset:
            packet.pts -= offset
            packet.dts -= offset
            packet.stream = stream
            yield packet


def _decoded_at(packet: Packet[Any]) -> Fraction:
    assert packet.dts is not None
    assert packet.time_base is not None
    return packet.dts * packet.time_base


def _has_audio(path: Path) -> bool:
    with open_input(path) as container:
        return bool(container.streams.audio)


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """What the system refuses (a full disk) as the `OSError` that it is, with the file's name."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        if not isinstance(error, OSError):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
