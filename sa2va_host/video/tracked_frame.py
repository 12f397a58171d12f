"""What was found in one frame of a video. Made by `sa2va_host.video.tracks`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sa2va_host.calls.call import Said
from sa2va_host.masks.masks import Logits, Mask, Probability
from sa2va_host.results import Segmentation

if TYPE_CHECKING:
    from sa2va_host.masks.refinement import Refinement
    from sa2va_host.media import Source

ABSENT = -32.0
"""The logit of every pixel of an object that is not there; its probability is 0 to 13 digits."""


@dataclass(frozen=True, eq=False, slots=True)
class TrackedFrame:
    """What was found in one frame. An object keeps its place in all arrays through the video."""

    index: int
    """Counted from 0, of the frames that were given."""
    answers: tuple[Said, ...]
    """What was said to each prompt, the same in every frame; the objects are theirs, in this order."""
    logits: Logits
    """float32 `[objects, h, w]`, low resolution, before the sigmoid."""
    presence: NDArray[np.float32] | None
    """float32 `[objects]`: the model's probability, 0..1, that the object is in the frame; None where it has none."""
    size: tuple[int, int]
    """`(height, width)` of the video."""
    image_size: int
    """The side in pixels of the square that the mask decoder saw."""

    def __len__(self) -> int:
        """How many objects are followed, those that are not in this frame included."""
        return len(self.logits)

    def __bool__(self) -> bool:
        """Always true: a frame without objects is a frame."""
        return True

    @property
    def text(self) -> str:
        """What was said, a line for each prompt."""
        return "\n".join(answer.text for answer in self.answers)

    def as_one_each(self) -> TrackedFrame:
        """One object for each prompt: all of its objects together, or one that is not there."""
        objects = [Said(answer.text, 1) for answer in self.answers]
        logits, presence = [], []
        for part in self.each():
            nothing = np.full(self.logits.shape[1:], ABSENT, np.float32)
            logits.append(part.logits.max(axis=0) if len(part) else nothing)
            if part.presence is not None:
                presence.append(part.presence.max(initial=0.0))
        return replace(
            self,
            answers=tuple(objects),
            logits=np.stack(logits),
            presence=np.array(presence, np.float32) if self.presence is not None else None,
        )

    def each(self) -> list[TrackedFrame]:
        """For each prompt the objects that are its own."""
        parts, end = [], 0
        for answer in self.answers:
            start, end = end, end + answer.objects
            presence = None if self.presence is None else self.presence[start:end]
            parts.append(replace(self, answers=(answer,), logits=self.logits[start:end], presence=presence))
        return parts

    def as_picture(self) -> Segmentation:
        """The same as the answer about a picture."""
        return Segmentation(self.text, self.logits[:, None], self.size, self.image_size)

    def probabilities(
        self, refinement: Refinement | None = None, threshold: float = 0.5, guide: Source | None = None
    ) -> Probability:
        """float32 `[objects, height, width]`, 0..1, as `Segmentation.probabilities` says."""
        return self.as_picture().probabilities(refinement, threshold, guide)

    def masks(
        self, threshold: float = 0.5, refinement: Refinement | None = None, guide: Source | None = None
    ) -> Mask:
        """bool `[objects, height, width]`, as `Segmentation.masks` says."""
        return self.as_picture().masks(threshold, refinement, guide)
