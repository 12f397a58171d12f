"""What a call answers: typed, small, and independent of the worker that made it.

Made by `sa2va_host.client`, read by front ends. Holds the model's low-resolution logits, which are all that
came over the wire, and turns them into probabilities and masks at the input's size when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .masks import Box


@dataclass(frozen=True)
class AnsweredBy:
    """The worker process that answered. A pid can be used again by the system; the pair cannot."""

    pid: int
    started: float
    """When that process started, in seconds since 1970."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The answer to a prompt about an image or video: text, and a mask or track for each `[SEG]` in it."""

    text: str
    logits: NDArray[np.float32]
    """float32 `[objects, frames, h, w]`, low resolution, before the sigmoid; an image has one frame."""
    size: tuple[int, int]
    """`(height, width)` of the input."""
    image_size: int
    """The side in pixels of the square that the mask decoder saw."""
    is_video: bool = False
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by phase."""
    worker: AnsweredBy | None = None

    def __len__(self) -> int:
        """How many objects were found; 0 when the model says that the thing is not there."""
        return int(self.logits.shape[0])

    def __repr__(self) -> str:
        frames = f", frames={self.logits.shape[1]}" if self.is_video else ""
        return f"Segmentation(text={self.text!r}, objects={len(self)}{frames}, size={self.size})"

    def __bool__(self) -> bool:
        """Always true: an answer without objects is an answer."""
        return True

    def probabilities(self) -> NDArray[np.float32]:
        """The model's own probabilities, float32 0..1 at the input's size.

        `[objects, height, width]` for an image, `[objects, frames, height, width]` for a video. Four bytes
        for each pixel of each object and frame: for long videos prefer `masks`.
        """
        from . import masks

        stack = masks.probabilities(self.logits, self.image_size, self.size)
        return stack if self.is_video else stack[:, 0]

    def masks(self, threshold: float = 0.5) -> NDArray[np.bool_]:
        """Where the probability is above `threshold`, at the input's size.

        bool `[objects, height, width]` for an image, `[objects, frames, height, width]` for a video. Raises
        `InvalidInput` unless `0 <= threshold <= 1`.
        """
        from . import masks

        stack = masks.binarise(self.logits, self.image_size, self.size, threshold)
        return stack if self.is_video else stack[:, 0]

    def boxes(self, threshold: float = 0.5) -> list[Box | None]:
        """For each object of an image its box `(x0, y0, x1, y1)`, ends exclusive; None for an empty mask."""
        from . import masks

        if self.is_video:
            raise TypeError(
                "A track has a box in each frame: use sa2va_host.masks.box on the masks of a frame."
            )
        return [masks.box(mask) for mask in self.masks(threshold)]
