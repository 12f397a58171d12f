"""What a drawn picture is, whoever drew it: the types that generators, training and evaluation share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")

Kind = Literal["single", "two", "group", "absent", "question"]


@dataclass(frozen=True)
class Thing:
    """One drawn object. Its visible pixels are those of `Picture.instances` that hold its index + 1."""

    shape: str
    colour: str


@dataclass(frozen=True)
class Picture:
    """A still scene."""

    image: NDArray[np.uint8]
    """`[height, width, 3]`, RGB."""
    instances: NDArray[np.uint8]
    """`[height, width]`: 0 is background, k is the visible part of `things[k - 1]`."""
    things: tuple[Thing, ...]

    def mask(self, indices: tuple[int, ...]) -> NDArray[np.bool_]:
        """`[height, width]`: the union of the visible parts of the things with these indices."""
        return np.isin(self.instances, [index + 1 for index in indices])


@dataclass(frozen=True)
class Clip:
    """A moving scene."""

    frames: NDArray[np.uint8]
    """`[frames, height, width, 3]`, RGB."""
    instances: NDArray[np.uint8]
    """`[frames, height, width]`, as in `Picture`; a thing out of view or hidden has no pixel in that frame."""
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Question:
    """One prompt about a picture, and what a right answer is."""

    kind: Kind
    prompt: str
    answer: str
    """The reference answer, one `[SEG]` for each entry of `targets`."""
    targets: tuple[tuple[int, ...], ...] = ()
    """For each `[SEG]` of the answer, in order, the indices of the things whose union is its mask."""
    accepted: tuple[str, ...] = ()
    """Kind "question" only: an answer is right if it contains one of these words (whole word, any case)."""
