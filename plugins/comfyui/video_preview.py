"""A video with its objects in their colours: pictures of it while it is tracked, a short film on the node, and outputs.

One frame is held at a time, so memory stays flat for a video of any length; an IMAGE of all frames is made only where
that output is connected.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.utils
import folder_paths
import numpy as np
from comfy_api.latest import InputImpl, io, ui

from sa2va_host.errors import Sa2VAError

from .colours import draw
from .found_objects import FoundObjects
from .tensors import Pictures, fill_image, shrink
from .video_frames import VideoFrames
from .watch import check_interrupt

if TYPE_CHECKING:
    import torch

    from sa2va_host.masks.masks import Mask
    from sa2va_host.media import Picture
    from sa2va_host.video.tracked_frame import TrackedFrame

LONGEST_SIDE = 512
"""Pixels of a preview."""
MOST_FRAMES = 240
"""Of a preview, spread evenly over a longer video, which keeps its length in seconds."""
EVERY = 0.5
"""Seconds between two previews while a video is tracked."""
FRAMES_PER_SECOND = Fraction(24)
"""Of frames that come without a rate."""
_AHEAD = 8
"""Frames that are kept small until their masks come; the reader is a few ahead of the tracker."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """How the objects of a video are drawn."""

    threshold: float = 0.5
    opacity: float = 0.4
    """0..1, how strongly an object's colour fills it."""
    fps: float = 0.0
    """Frames a second; 0 takes the video's own."""
    most: int = 0
    """How many objects are drawn; 0 all."""

    def rate_of(self, frames: Pictures | VideoFrames) -> Fraction:
        """Frames a second."""
        if self.fps:
            return Fraction(self.fps).limit_denominator(1001)
        return (frames.rate if isinstance(frames, VideoFrames) else None) or FRAMES_PER_SECOND


class LivePreview:
    """Shows what is tracked on the node's progress bar, every `EVERY` seconds."""

    def __init__(self, look: Look | None = None) -> None:
        self._look = look or Look()
        self._batch: Pictures | None = None
        self._kept: dict[int, Picture] = {}
        self._read = self._shown = 0.0

    def reading(self, frames: Pictures | VideoFrames) -> Iterable[Picture]:
        """The frames that are to be tracked, of which some are remembered, small, until they are."""
        if isinstance(frames, VideoFrames):
            return _Tapped(frames, self._keep)
        self._batch = frames
        return frames

    def tracking(self, tracked: Iterable[TrackedFrame], total: int | None) -> Iterator[TrackedFrame]:
        """The same frames; ``total`` is how many there will be, where that is known."""
        bar = comfy.utils.ProgressBar(total or 1)
        for frame in tracked:
            picture = self._picture(frame.index)
            if picture is not None:
                from PIL import Image

                shown = Image.fromarray(draw(picture, self._masks(frame, picture), self._look.opacity))
                done = frame.index + 1
                bar.update_absolute(done, max(done, total or 0), ("JPEG", shown, LONGEST_SIDE))
            yield frame

    def _keep(self, index: int, picture: Picture) -> None:
        now = time.monotonic()
        if len(self._kept) < _AHEAD and now - self._read >= EVERY:
            self._read = now
            self._kept[index] = shrink(picture, LONGEST_SIDE)

    def _picture(self, index: int) -> Picture | None:
        kept = self._kept.pop(index, None)
        now = time.monotonic()
        if now - self._shown < EVERY or (kept is None and self._batch is None):
            return None
        self._shown = now
        return kept if self._batch is None else self._batch.shrunk(index, LONGEST_SIDE)

    def _masks(self, frame: TrackedFrame, picture: Picture) -> list[Mask]:
        from sa2va_host.masks.masks import binarise

        size = (picture.shape[0], picture.shape[1])
        rows = binarise(frame.logits[:, None], frame.image_size, size, self._look.threshold)[:, 0]
        masks = list(rows)
        if len(frame.answers) > 1:  # of several prompts each is one object
            ends = np.cumsum([each.objects for each in frame.answers])[:-1]
            masks = [part.any(axis=0) for part in np.split(rows, ends)]
        return masks[: self._look.most or None]


class _Tapped:
    """Frames that somebody else sees too as they are read."""

    def __init__(self, frames: VideoFrames, see: Callable[[int, Picture], None]) -> None:
        self._frames = frames
        self._see = see

    def __iter__(self) -> Iterator[Picture]:
        for index, picture in enumerate(self._frames):
            self._see(index, picture)
            yield picture


def show(frames: Pictures | VideoFrames, tracks: FoundObjects, look: Look) -> Any:
    """A short film as the ``ui`` of a node's output: at most `MOST_FRAMES` of `LONGEST_SIDE` pixels. None where this
    machine cannot encode one, which is no reason to lose the masks.
    """
    stride = -(-tracks.frames // MOST_FRAMES)
    try:
        path = _film(frames, tracks, look, "preview", stride, LONGEST_SIDE)
    except (Sa2VAError, OSError) as error:
        _log.warning("The preview of the video cannot be made: %s", error)
        return None
    return ui.PreviewVideo([ui.SavedResult(path.name, "", io.FolderType.temp)])


def overlay_video(frames: Pictures | VideoFrames, tracks: FoundObjects, look: Look) -> Any:
    """A VIDEO of all frames in their full size, in ComfyUI's folder for temporary files; without sound."""
    return InputImpl.VideoFromFile(str(_film(frames, tracks, look, "overlay", 1, None)))


def overlay_image(frames: Pictures | VideoFrames, tracks: FoundObjects, look: Look) -> torch.Tensor:
    """An IMAGE of all frames."""
    drawn = (
        draw(
            picture,
            [tracks.mask(each, index, look.threshold) for each in range(len(tracks))],
            look.opacity,
        )
        for index, picture in _some(frames, tracks.frames, 1, None)
    )
    return fill_image(drawn, (tracks.frames, *tracks.size, 3))


def _film(
    frames: Pictures | VideoFrames,
    tracks: FoundObjects,
    look: Look,
    name: str,
    stride: int,
    longest: int | None,
) -> Path:
    from sa2va_host.output.movie import H264, Movie

    rate = look.rate_of(frames)
    folder = Path(folder_paths.get_temp_directory())
    movie = Movie(
        folder / f"sa2va_{name}_{uuid.uuid4().hex[:12]}", H264, rate=rate / stride, time_base=1 / rate
    )
    try:
        for index, picture in _some(frames, tracks.frames, stride, longest):
            size = (picture.shape[0], picture.shape[1])
            masks = [tracks.small_mask(each, index, size, look.threshold) for each in range(len(tracks))]
            movie.add(draw(picture, masks, look.opacity), index / rate)
    except BaseException:
        movie.close()
        movie.path.unlink(missing_ok=True)
        raise
    movie.close()
    return movie.path


def _some(
    frames: Pictures | VideoFrames, count: int, stride: int, longest: int | None
) -> Iterator[tuple[int, Picture]]:
    """Each so many-th of the frames with its place, at most so many pixels long."""
    if isinstance(frames, VideoFrames):
        for index, picture in zip(range(count), frames, strict=False):
            check_interrupt()
            if index % stride == 0:
                yield index, picture if longest is None else shrink(picture, longest)
        return
    for index in range(0, count, stride):
        check_interrupt()
        yield index, frames[index] if longest is None else frames.shrunk(index, longest)
