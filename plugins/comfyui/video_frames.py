"""The frames of a VIDEO, decoded one after the other: an IMAGE of 500 frames of 1080p would take 12 GB.

ComfyUI's own decoder makes that IMAGE; it is used only where a VIDEO is no file, or where this decoder would show
something else than it does (a crop, a trim that this version does not tell).
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import os
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sa2va_host.errors import InvalidInput
from sa2va_host.video.clip import check_frame_size
from sa2va_host.video.footage import open_upload

from .tensors import Pictures

if TYPE_CHECKING:
    from fractions import Fraction

    from av import VideoFrame
    from av.container import InputContainer

    from sa2va_host.media import Picture


class VideoFrames:
    """An iterable of the frames of a file, uint8 RGB `[height, width, 3]`, which may be gone through again and again.

    It has no length: only decoding tells how many there are.
    """

    def __init__(self, video: Any) -> None:
        self._video = video

    def __iter__(self) -> Iterator[Picture]:
        return (_picture(frame) for frame in _decode(self._video))

    def some(self, stride: int, longest: int | None) -> Iterator[tuple[int, Picture]]:
        """Each so many-th frame with its place, at most so many pixels long; the others are decoded and no more."""
        for index, frame in enumerate(_decode(self._video)):
            if index % stride == 0:
                yield index, _picture(frame, longest)

    @property
    def promised(self) -> int | None:
        """How many the file promises, which may be wrong; None where it says nothing."""
        with _opened(self._video) as container:
            stream = container.streams.video[0]
            if not stream.average_rate:
                return None
            start, duration = _window(self._video)
            whole = stream.frames and not start and not duration
            return int(stream.frames if whole else round(self._video.get_duration() * stream.average_rate))

    def identity(self) -> Hashable | None:
        """Names what is decoded: the file as it is on disk now, or the content of one in memory, and the part of it.
        None for a stream of which nobody can tell.
        """
        source = self._video.get_stream_source()
        if isinstance(source, io.BytesIO):
            content = hashlib.sha1(source.getbuffer(), usedforsecurity=False).digest()
            return content, _window(self._video)
        try:
            path = os.path.realpath(source)
            about = Path(path).stat()
        except (OSError, TypeError, ValueError):
            return None
        times = about.st_mtime_ns, about.st_ctime_ns
        return path, about.st_dev, about.st_ino, about.st_size, times, _window(self._video)

    @property
    def rate(self) -> Fraction | None:
        """Frames a second as the file says; None where it says nothing."""
        with _opened(self._video) as container:
            return container.streams.video[0].average_rate or None

    def count(self) -> int:
        """How many there are. Decodes them all, and keeps none."""
        return sum(1 for _ in _decode(self._video))


def frames_of(images: Any, video: Any) -> Pictures | VideoFrames:
    """The frames of whichever is connected. Raises `InvalidInput` unless it is one of them."""
    if (images is None) == (video is None):
        both = "Both frames and video are" if video is not None else "Neither frames nor video is"
        raise InvalidInput(f"{both} connected.", advice="Connect one of them.")
    if images is not None:
        return Pictures(images)
    return VideoFrames(video) if _is_streamable(video) else Pictures(video.get_components().images)


def content_of(frames: Pictures | VideoFrames) -> Callable[[], Hashable | None]:
    """Tells what the frames are: a file may change while it is read, a batch does not."""
    return frames.identity if isinstance(frames, VideoFrames) else functools.cache(frames.digests)


def _is_streamable(video: Any) -> bool:
    if type(video).__name__ != "VideoFromFile" or not hasattr(video, "get_stream_source"):
        return False
    first = next(_decode(video), None)  # before ComfyUI's decoder sees the file, which follows playlists
    if hasattr(video, "as_trimmed") and not hasattr(video, "get_active_trim_window"):
        return False
    return first is None or sorted((first.width, first.height)) == sorted(video.get_dimensions())


def _window(video: Any) -> tuple[float, float]:
    """Where the VIDEO begins in its file and how long it is, in seconds; a length of 0 means to the end."""
    return video.get_active_trim_window() if hasattr(video, "get_active_trim_window") else (0.0, 0.0)


def _opened(video: Any) -> InputContainer:
    """Whoever reaches ComfyUI's port puts files there and names them, so that no playlist is followed."""
    source = video.get_stream_source()
    return open_upload(Path(source) if isinstance(source, str) else source, "The video")


def _decode(video: Any) -> Iterator[VideoFrame]:
    import av

    start, duration = _window(video)
    try:
        with _opened(video) as container:
            stream = container.streams.video[0]
            if start and stream.time_base:
                container.seek(int(start / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                check_frame_size(frame.height, frame.width, "the video")
                time = frame.time or 0.0
                if time < start:
                    continue
                if duration and time >= start + duration:
                    return
                yield frame
    except (av.FFmpegError, OSError) as error:
        raise InvalidInput(
            f"The video cannot be decoded: {error}.", advice="Try to play it, or convert it to MP4."
        ) from error


def _picture(frame: VideoFrame, longest: int | None = None) -> Picture:
    """Uint8 RGB `[height, width, 3]`, upright, in the colours that ComfyUI shows; at most so many pixels long."""
    turns = round(getattr(frame, "rotation", 0) / 90)
    scale = min(1.0, (longest or math.inf) / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    values = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.ascontiguousarray(np.rot90(values, turns), dtype=np.uint8)
