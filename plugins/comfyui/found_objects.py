"""What was found, as it travels between nodes: names and low-resolution logits, with masks made when they are wanted.

An image batch and a video have one form here: the pictures of the batch are the frames. A frame of 1080p takes 0.3 MB
an object this way, where a mask of full size takes 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sa2va_host.errors import InvalidInput
from sa2va_host.masks import masks
from sa2va_host.masks.refine import refine, to_mask
from sa2va_host.masks.refinement import Refinement
from sa2va_host.results import Segmentation

if TYPE_CHECKING:
    from sa2va_host.masks.masks import Mask, Probability
    from sa2va_host.media import Picture

ABSENT = -1024.0
"""The logit of an object in a picture where it was not found: the tracker's own, of which the sigmoid is 0."""


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """Named objects in the frames of a video or the pictures of a batch."""

    names: tuple[str, ...]
    """At least one: what was asked for and not found is an object that is nowhere."""
    rows: tuple[tuple[int, ...], ...]
    """For each object the rows of the logits that it is made of: everything that one prompt found, or one of those."""
    answer: Segmentation
    """float32 `[rows, frames, h, w]`, of a video."""
    places: tuple[int, ...] = ()
    """For each object its place among all that were found, which its colour goes by; empty where that is its own."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def frames(self) -> int:
        """Frames of the video, or pictures in the batch."""
        return int(self.answer.logits.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of each."""
        return self.answer.size

    def choose(self, wanted: str) -> FoundObjects:
        """The objects that a user names: numbers from 1 or names, separated by commas; empty means all.

        Raises `InvalidInput` for one that is not there.
        """
        words = [word.strip() for word in wanted.split(",") if word.strip()]
        if not words:
            return self
        places = [self._place(word) for word in words]
        return replace(
            self,
            names=tuple(self.names[place] for place in places),
            rows=tuple(self.rows[place] for place in places),
            places=tuple(self.place(place) for place in places),
        )

    def first(self, most: int) -> FoundObjects:
        """At most so many objects, in their order; 0 means all."""
        if not most or most >= len(self):
            return self
        return replace(self, names=self.names[:most], rows=self.rows[:most], places=self.places[:most])

    def place(self, index: int) -> int:
        """An object's place among all that were found, from 0."""
        return self.places[index] if self.places else index

    def probability(self, index: int, frame: int) -> Probability:
        """An object's probability in one frame, float32 `[height, width]`, 0..1: the largest of its rows."""
        answer = self.answer
        result = np.zeros(answer.size, np.float32)
        for row in self.rows[index]:
            logits = answer.logits[row, frame]
            np.maximum(result, masks.probability(logits, answer.image_size, answer.size), out=result)
        return result

    def mask(
        self,
        index: int,
        frame: int,
        threshold: float,
        refinement: Refinement | None = None,
        picture: Picture | None = None,
    ) -> Mask:
        """An object's mask in one frame, bool `[height, width]`: the same pixels as the Python client's.

        ``picture`` is what a guided filter follows. Raises `InvalidInput` as `sa2va_host.masks.refine.refine` does.
        """
        if refinement is not None and refinement != Refinement():
            refined = refine(self.probability(index, frame), refinement, threshold, picture)
            return to_mask(refined, refinement, threshold)
        answer = self.answer
        result = np.zeros(answer.size, np.bool_)
        for row in self.rows[index]:
            logits = answer.logits[row : row + 1, frame : frame + 1]
            result |= masks.binarise(logits, answer.image_size, answer.size, threshold)[0, 0]
        return result

    def small_mask(self, index: int, frame: int, size: tuple[int, int], threshold: float) -> Mask:
        """An object's mask in one frame as a preview of ``size`` (height, width) shows it."""
        answer = self.answer
        result = np.zeros(size, np.bool_)
        for row in self.rows[index]:
            logits = answer.logits[row : row + 1, frame : frame + 1]
            result |= masks.binarise(logits, answer.image_size, size, threshold)[0, 0]
        return result

    def union(self, frame: int, threshold: float) -> Mask:
        """Where any object is, bool `[height, width]`."""
        result = np.zeros(self.size, np.bool_)
        for index in range(len(self)):
            result |= self.mask(index, frame, threshold)
        return result

    def _place(self, word: str) -> int:
        if word.isdecimal() and 1 <= int(word) <= len(self):
            return int(word) - 1
        if word in self.names:
            return self.names.index(word)
        there = ", ".join(f"{number} {name!r}" for number, name in enumerate(self.names, start=1))
        raise InvalidInput(f"There is no object {word!r}.", advice=f"There is: {there}.")


def gather(lines: Sequence[str], answers: Sequence[Sequence[Segmentation]]) -> FoundObjects:
    """The answers to each line of a prompt, `[lines][parts]`, as objects over all frames.

    The parts follow each other: the pictures of a batch, or one whole video. Of several lines each is one object, named
    by its words; of a single line each `[SEG]` is one, named by the words of the answer that it stands for, where the
    answer says.
    """
    blocks: list[Segmentation] = [_join(parts) for parts in answers]
    starts = np.cumsum([0, *(len(block) for block in blocks)])
    if len(lines) == 1:
        phrases = next((part.phrases for part in answers[0] if len(part) == len(blocks[0])), [])
        names = [
            phrase or f"{lines[0]} {number}" if len(phrases) > 1 else lines[0]
            for number, phrase in enumerate(phrases, start=1)
        ]
        rows: list[tuple[int, ...]] = [(row,) for row in range(len(blocks[0]))]
        if not rows:
            names, rows = [lines[0]], [()]
    else:
        names = list(lines)
        rows = [tuple(range(first, last)) for first, last in pairwise(starts)]
    logits = np.concatenate([block.logits for block in blocks])
    return FoundObjects(tuple(names), tuple(rows), replace(blocks[0], logits=logits))


def each_text(lines: Sequence[str], answers: Sequence[Sequence[Segmentation]]) -> Iterable[str]:
    """The answers in words, a paragraph for each picture and line."""
    for line, parts in zip(lines, answers, strict=True):
        for number, part in enumerate(parts, start=1):
            which = [line] if len(lines) > 1 else []
            which += [f"picture {number}"] if len(parts) > 1 else []
            yield f"{', '.join(which)}: {part.text}" if which else part.text


def _join(parts: Sequence[Segmentation]) -> Segmentation:
    """The answers about the pictures of a batch, or one about a video, as that of a video."""
    first = parts[0]
    if len(parts) == 1:
        return replace(first, is_video=True)
    rows = max(len(part) for part in parts)
    shape = next((part.logits.shape[2:] for part in parts if len(part)), first.logits.shape[2:])
    logits = np.full((rows, len(parts), *shape), ABSENT, np.float32)
    for frame, part in enumerate(parts):
        if len(part):
            logits[: len(part), frame] = part.logits[:, 0]
    return replace(first, logits=logits, is_video=True)
