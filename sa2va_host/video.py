"""The client's side of a video: which frames the language model sees, and the stream of the others.

Frames are taken from the caller's iterable on the caller's thread, at most as many as the worker granted,
so a video of any length passes through in constant memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInput
from .limits import MAX_BUFFERS
from .media import Picture, read_image, read_images

if TYPE_CHECKING:
    from PIL import Image

Source: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[Any]"
"""What `read_image` reads: a file's name, or the picture itself."""


class Video:
    """Frames that are read once, in order; the first ones are the key frames. ``size`` is (height, width) of
    the first, which all others must have.
    """

    def __init__(self, frames: Iterable[Source], key_frames: str) -> None:
        _check(frames)
        self.length = len(frames) if isinstance(frames, Sequence) else None
        self.taken = 0
        if self.length == 0:
            raise InvalidInput("The video has no frames.")
        rest = iter(frames)
        self.key_frames = read_images(islice(rest, _first(key_frames)))
        self._frames: Iterator[Source] = chain(self.key_frames, rest)
        if not self.key_frames:
            raise InvalidInput("The video has no frames.")
        self.size = (self.key_frames[0].shape[0], self.key_frames[0].shape[1])

    def next(self, count: int, side: int) -> Picture | None:
        """The next frames, at most ``count``, resized: uint8 ``[n, side, side, 3]``; None at the end."""
        from PIL import Image

        resized: list[Picture] = []
        for source in islice(self._frames, count):
            picture = read_image(source)
            if picture.shape[:2] != self.size:
                height, width = picture.shape[:2]
                raise InvalidInput(
                    f"Frame {self.taken + len(resized)} is {width} x {height} pixels, the first one"
                    f" {self.size[1]} x {self.size[0]}.",
                    advice="All frames of a video have one size.",
                )
            image = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
            resized.append(np.asarray(image))
        self.taken += len(resized)
        return np.stack(resized) if resized else None


def _check(frames: object) -> None:
    """Refuse one picture in the place of several, which may well be iterable: letters, rows of pixels."""
    shape = getattr(frames, "shape", None)
    if isinstance(frames, (str, os.PathLike)):
        what, advice = "one file name", "Pass a list of picture files, or the frames that you read from it."
    elif isinstance(shape, Sequence) and (len(shape) < 3 or (len(shape) == 3 and shape[-1] in {1, 3, 4})):
        what, advice = f"one picture of shape {list(shape)}", "Pass [frames, height, width, 3]."
    elif not isinstance(frames, Iterable):
        what, advice = f"one {type(frames).__name__}", "Pass a list; PIL.ImageSequence.all_frames makes one."
    else:
        return
    raise InvalidInput(f"The frames of a video are several pictures, not {what}.", advice=advice)


def _first(key_frames: object) -> int:
    """N of ``"first:N"``, which go in one message."""
    kind, _, number = key_frames.partition(":") if isinstance(key_frames, str) else ("", "", "")
    if kind == "first" and number.isdecimal() and len(number) < 5 and 0 < int(number) <= MAX_BUFFERS:
        return int(number)
    raise InvalidInput(
        f"key_frames is {key_frames!r}.",
        advice=f"Write 'first:5', or another number from 1 to {MAX_BUFFERS}.",
    )
