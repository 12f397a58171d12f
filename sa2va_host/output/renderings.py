"""Outputs that are videos themselves: the overlay, and each object alone with its alpha.

Writers of `sa2va_host.output.recording`, on `sa2va_host.output.movie`. A run that is taken up again makes them anew,
from its first frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sa2va_host.masks import masks

from .cutouts import cut_out
from .movie import H264, Codec, Movie, Sound

if TYPE_CHECKING:
    from sa2va_host.video.clip import Clip, Frame

    from .layers import Layer


class Overlay:
    """FOLDER/overlay.mp4: the frames with their objects brought out (`sa2va_host.masks.masks.overlay`), and the
    sound.
    """

    def __init__(self, folder: Path, clip: Clip) -> None:
        self._clip = clip
        self._movie = Movie(folder / "overlay", H264, rate=clip.rate, time_base=clip.time_base)
        self._first = Fraction(0)
        self._empty = True

    @property
    def path(self) -> Path:
        return self._movie.path

    def add(self, frame: Frame, layers: Sequence[Layer]) -> None:
        """Append the frame. An object's colour goes by its place among the layers."""
        if self._empty:
            self._first, self._empty = frame.time, False
        drawn = masks.overlay(frame.picture, [layer.mask for layer in layers])
        self._movie.add(drawn, frame.time, frame.pixel_aspect)

    def close(self) -> str:
        """Bring the sound in. Returns what is to be said where it does not fit."""
        clip = self._clip
        return self._movie.close(None if clip.audio is None else Sound(clip.audio, clip.begins + self._first))


class AlphaMovies:
    """FOLDER/alpha/NAME.mov or .webm: the object alone, straight alpha being its probability; without sound."""

    def __init__(self, folder: Path, clip: Clip, codec: Codec, *, decontaminated: bool = False) -> None:
        codec.encoder()  # asked now, since the first video begins late
        self.path = folder / "alpha"
        self._clip = clip
        self._codec = codec
        self._decontaminated = decontaminated
        self._movies: dict[str, Movie] = {}

    def add(self, frame: Frame, layers: Sequence[Layer]) -> None:
        """Append the frame to the video of each object."""
        for layer in layers:
            if layer.name not in self._movies:
                self._movies[layer.name] = Movie(
                    self.path / layer.name, self._codec, rate=self._clip.rate, time_base=self._clip.time_base
                )
            self._movies[layer.name].add(self._cut(frame, layer), frame.time, frame.pixel_aspect)

    def close(self) -> str:
        """Give each its final form. Returns what is to be said of them."""
        return " ".join(filter(None, [movie.close() for movie in self._movies.values()]))

    def _cut(self, frame: Frame, layer: Layer) -> NDArray[np.uint8]:
        return cut_out(frame.picture, layer.probability, decontaminated=self._decontaminated)
