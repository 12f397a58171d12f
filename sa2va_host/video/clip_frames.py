"""A clip as the frames of a track: by its path, opened when the first frame is asked for, and its key frames.

Called by `sa2va_host.video.tracks` and by front ends that read a clip themselves.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from sa2va_host.calls.pace import Pace
from sa2va_host.events import Progress

from .key_frames import KeyFrames

if TYPE_CHECKING:
    from sa2va_host.media import Picture, Source

    from .clip import Clip


class ClipFrames:
    """The pictures of a clip, which can be read again; of a path what `sa2va_host.video.clip.open_clip` opens.

    Opened when it is first read, on the thread that reads. Raises `InvalidInput` then as `open_clip` does.
    """

    def __init__(self, clip: str | os.PathLike[str] | Clip) -> None:
        self._path: str | os.PathLike[str] | None = clip if isinstance(clip, (str, os.PathLike)) else None
        self._clip: Clip | None = None if isinstance(clip, (str, os.PathLike)) else clip

    @property
    def clip(self) -> Clip:
        """The clip itself; a path is opened."""
        if self._clip is None:
            from .clip import open_clip

            assert self._path is not None
            self._clip = open_clip(self._path)
        return self._clip

    @property
    def notes(self) -> list[str]:
        """What there is to know of what was read so far."""
        return [] if self._clip is None else list(self._clip.warnings)

    def __iter__(self) -> Iterator[Picture]:
        with closing(iter(self.clip)) as frames:
            for frame in frames:
                yield frame.picture


def frames_of(frames: Iterable[Source] | str | os.PathLike[str] | Clip) -> Iterable[Source]:
    """A video's path, or a clip, as frames; anything else as it is."""
    given: Any = frames
    return ClipFrames(given) if isinstance(given, (str, os.PathLike)) or hasattr(given, "look_at") else given


def key_frames_of(
    clip: Clip, words: str, on_event: Callable[[Progress], object] = lambda _: None
) -> str | dict[int, Picture]:
    """Key frames that lie further on, read in a pass of their own, which tells ``on_event`` how far it is; the first
    ones need none, and stay words. Raises `InvalidInput` as `KeyFrames.parse` does.
    """
    wanted = KeyFrames.parse(words)
    if wanted.kind == "first":
        return words
    if clip.frame_count is None:
        _look_at(clip, [sys.maxsize], on_event)  # what is looked for behind the end counts the frames
    while True:
        promised = clip.frame_count
        chosen = _look_at(clip, wanted.positions(promised), on_event)
        if clip.frame_count == promised:
            return chosen
        # It has fewer frames than its header promised, or some cannot be read.


def _look_at(clip: Clip, places: Sequence[int], on_event: Callable[[Progress], object]) -> dict[int, Picture]:
    pace, found = Pace(), {}
    total = None if clip.frame_count is None else places[-1] + 1
    for place, frame in enumerate(clip.look_at(places)):
        if frame is not None:
            found[place] = frame.picture
        on_event(pace.of(Progress("reading", place + 1, total, "frames")))
    return found
