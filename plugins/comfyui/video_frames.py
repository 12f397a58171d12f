"""The frames of a VIDEO, decoded one after the other: an IMAGE of 500 frames of 1080p would take 12 GB.

ComfyUI's own decoder makes that IMAGE; it is used only where a VIDEO is no file, or where this decoder would show
something else than it does (a crop, a trim that this version does not tell).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sa2va_host.errors import InvalidInput

from .tensors import Pictures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sa2va_host.media import Picture


class VideoFrames:
    """An iterable of the frames, uint8 RGB `[height, width, 3]`, which may be gone through again and again."""

    def __init__(self, video: Any) -> None:
        self._video = video
        self._held = None if _is_streamable(video) else Pictures(video.get_components().images)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self._held) if self._held is not None else _decode(self._video)


def frames_of(images: Any, video: Any) -> Iterable[Picture]:
    """The frames of whichever is connected. Raises `InvalidInput` unless it is one of them."""
    if (images is None) == (video is None):
        both = "Both frames and a video are" if video is not None else "Neither frames nor a video is"
        raise InvalidInput(f"{both} connected.", advice="Connect one of them.")
    return VideoFrames(video) if images is None else Pictures(images)


def _is_streamable(video: Any) -> bool:
    source = getattr(video, "get_stream_source", None)
    hides_trim = hasattr(video, "as_trimmed") and not hasattr(video, "get_active_trim_window")
    if source is None or hides_trim or type(video).__name__ != "VideoFromFile":
        return False
    first = next(_decode(video), None)
    return first is None or sorted(first.shape[:2]) == sorted(video.get_dimensions())


def _decode(video: Any) -> Iterator[Picture]:
    import av

    start, duration = video.get_active_trim_window() if hasattr(video, "get_active_trim_window") else (0, 0)
    try:
        with av.open(video.get_stream_source(), mode="r") as container:
            stream = container.streams.video[0]
            if start:
                container.seek(int(start / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                time = frame.time or 0.0
                if time < start:
                    continue
                if duration and time >= start + duration:
                    return
                picture = frame.to_ndarray(format="rgb24")
                turns = round(getattr(frame, "rotation", 0) / 90)
                yield np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture
    except (av.FFmpegError, IndexError, OSError) as error:
        raise InvalidInput(
            f"The video cannot be decoded: {error}.", advice="Try to play it, or convert it to MP4."
        ) from error
