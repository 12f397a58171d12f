"""The client's side of a video: which frames the language model sees, and the stream of the others.

Frames are taken from the caller's iterable on a thread of their own (`sa2va_host.video.reading`), at most as many as
the worker granted, so a video of any length passes through in constant memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain, islice
from operator import index
from typing import TypeAlias

import numpy as np

from sa2va_host.errors import InvalidInput
from sa2va_host.media import Picture, Source, read_image, read_images
from sa2va_host.protocol.limits import MAX_BUFFERS

from .clip_frames import ClipFrames, key_frames_of
from .key_frames import KeyFrames, pick

WhichFrames: TypeAlias = "str | Mapping[int, Source]"
"""``"first:5"``, ``"uniform:12"``, or the key frames themselves by their places, of which the first is 0."""


class Video:
    """Frames that are read once, in order, and the key frames among them. ``size`` is (height, width) of the first,
    which all others must have.
    """

    def __init__(
        self,
        frames: Iterable[Source],
        key_frames: WhichFrames,
        frame_count: int | None = None,
        begin: int = 0,
    ) -> None:
        """``begin`` is the first frame's number in errors. Raises `InvalidInput` where key frames that lie further on
        cannot be had: from frames without a length, unless ``frame_count`` says it, or from an iterator, which can be
        read once.
        """
        check_frames(frames)
        self._begin = begin
        self.length = len(frames) if isinstance(frames, Sized) else None
        if isinstance(frames, ClipFrames):
            if isinstance(key_frames, str):
                key_frames = key_frames_of(frames.clip, key_frames)
            frame_count = frames.clip.frame_count
        self.frame_count = frame_count if self.length is None else self.length
        """How many frames are expected; None where nobody knows."""
        self.taken = 0
        if self.length == 0:
            raise InvalidInput("The video has no frames.")
        rest = iter(frames)
        self._frames: Iterator[Source] = rest
        if isinstance(key_frames, Mapping):
            chosen = _checked(key_frames)
        elif (wanted := KeyFrames.parse(key_frames)).kind == "first":
            leading = read_images(map(_kept, islice(rest, wanted.count)))
            chosen = dict(enumerate(leading))
            self._frames = chain(leading, rest)
        else:
            positions = wanted.positions(self.frame_count)
            if rest is frames:
                raise InvalidInput(
                    f"Key frames {key_frames!r} lie ahead in frames that can be read only once.",
                    advice="Pass a list or something else that can be read twice, or use 'first:5'.",
                )
            chosen = pick(frames, positions, _kept)
        if not chosen:
            raise InvalidInput("The video has no frames.")
        self.key_positions = list(chosen)
        """Places of the key frames among the frames, ascending from 0."""
        self.key_frames = read_images(chosen.values())
        self.size = (self.key_frames[0].shape[0], self.key_frames[0].shape[1])

    def next(self, count: int, side: int) -> Picture | None:
        """The next frames, at most ``count``, resized: uint8 ``[n, side, side, 3]``; None at the end."""
        from PIL import Image

        resized: list[Picture] = []
        for source in islice(self._frames, count):
            picture = read_image(source)
            if picture.shape[:2] != self.size:
                raise wrong_size(self._begin + self.taken + len(resized), picture.shape[:2], self.size)
            image = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
            resized.append(np.asarray(image))
        self.taken += len(resized)
        return np.stack(resized) if resized else None

    def skip(self) -> Iterator[int]:
        """Read to the end without looking; yields the place of each frame, those that were taken before included."""
        yield from range(self.taken)
        for _ in self._frames:
            self.taken += 1
            yield self.taken - 1

    def close(self) -> None:
        """Let go of the frames, which may hold a file; there are no more."""
        self._frames = iter(())


def wrong_size(frame: int, size: tuple[int, ...], first: tuple[int, int]) -> InvalidInput:
    """What to raise where a frame's (height, width) is not that of the first one."""
    return InvalidInput(
        f"Frame {frame} is {size[1]} x {size[0]} pixels, the first one {first[1]} x {first[0]}.",
        advice="All frames of a video have one size.",
    )


def _kept(frame: Source) -> Source:
    """A frame that stays what it is: whoever yields frames may use one array for all of them."""
    return frame.copy() if isinstance(frame, np.ndarray) else frame


def check_frames(frames: object) -> None:
    """Refuse what is not several pictures, and may well be iterable: letters, rows of pixels, bytes, sets."""
    shape = getattr(frames, "shape", None)
    if isinstance(frames, (str, os.PathLike)):
        what, advice = "one file name", "Pass a list of picture files, or the frames that you read from it."
    elif isinstance(frames, (bytes, bytearray)) or callable(getattr(frames, "read", None)):
        what = "the content of one file"
        advice = "Pass a video's path (write the bytes to a file first), or a list of images."
    elif isinstance(shape, Sequence) and (len(shape) < 3 or (len(shape) == 3 and shape[-1] in {1, 3, 4})):
        what, advice = f"one picture of shape {list(shape)}", "Pass [frames, height, width, 3]."
    elif isinstance(frames, (Mapping, set, frozenset)):
        what, advice = f"one {type(frames).__name__}, which has no order", "Pass a list."
    elif not isinstance(frames, Iterable):
        what, advice = f"one {type(frames).__name__}", "Pass a list; PIL.ImageSequence.all_frames makes one."
    else:
        return
    raise InvalidInput(f"The frames of a video are several pictures, not {what}.", advice=advice)


def _checked(key_frames: Mapping[int, Source]) -> Mapping[int, Source]:
    """Key frames by their places, in order. Raises `InvalidInput` without the first frame: tracking goes forwards."""
    try:
        chosen = {index(place): key_frames[place] for place in key_frames}
    except TypeError as error:
        raise InvalidInput(
            f"The key frames are {list(key_frames)}.",
            advice="Name them by their places, whole numbers from 0.",
        ) from error
    if 0 not in chosen or min(chosen) < 0 or len(chosen) > MAX_BUFFERS:
        raise InvalidInput(
            f"The key frames are {sorted(chosen)}.",
            advice=f"Choose frame 0 and at most {MAX_BUFFERS - 1} later ones.",
        )
    return {place: chosen[place] for place in sorted(chosen)}
