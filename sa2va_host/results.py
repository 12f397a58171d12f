"""What a call answers: typed, small, and independent of the worker that made it.

Made by `sa2va_host.client`, read by front ends. Holds the model's low-resolution logits, which are all that
came over the wire, and turns them into probabilities and masks at the input's size when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .machine.descriptors import reporting_shortage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .masks.masks import Box, Probability
    from .masks.refinement import Refinement
    from .media import Source


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
    """Seconds by phase, tokens per second, peak memory: see `sa2va_host.timings`."""
    notes: Sequence[str] = ()
    """What there is to know about how it was done, a sentence each."""
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

    @property
    def phrases(self) -> list[str]:
        """For each object the words of a grounded answer it stands for, empty where the answer does not say."""
        from .grounding import phrases

        return phrases(self.text, len(self))

    @reporting_shortage()
    def probabilities(
        self,
        refinement: Refinement | None = None,
        threshold: float = 0.5,
        guide: Source | Iterable[Source] | None = None,
    ) -> NDArray[np.float32]:
        """The model's own probabilities, or what a refinement makes of them, float32 0..1 at the input's size.

        `[objects, height, width]` for an image, `[objects, frames, height, width]` for a video. Four bytes
        for each pixel of each object and frame: for long videos prefer `masks`, or `each_probability`.
        """
        import numpy as np

        stack = np.empty((*self.logits.shape[:2], *self.size), dtype=np.float32)
        for place, probability in self.each_probability(refinement, threshold, guide):
            stack[place] = probability
        return stack if self.is_video else stack[:, 0]

    @reporting_shortage()
    def masks(
        self,
        threshold: float = 0.5,
        refinement: Refinement | None = None,
        guide: Source | Iterable[Source] | None = None,
    ) -> NDArray[np.bool_]:
        """Where the probability is above `threshold`, at the input's size.

        bool `[objects, height, width]` for an image, `[objects, frames, height, width]` for a video. The
        refinement and its guide are those of `each_probability`. Raises `InvalidInput` unless
        `0 <= threshold <= 1`.
        """
        from .masks import masks

        if refinement is None:
            stack = masks.binarise(self.logits, self.image_size, self.size, threshold)
        else:
            import numpy as np

            from .masks.refine import to_mask

            stack = np.empty((*self.logits.shape[:2], *self.size), dtype=np.bool_)
            for place, probability in self.each_probability(refinement, threshold, guide):
                stack[place] = to_mask(probability, refinement, threshold)
        return stack if self.is_video else stack[:, 0]

    @reporting_shortage()
    def boxes(
        self,
        threshold: float = 0.5,
        refinement: Refinement | None = None,
        guide: Source | Iterable[Source] | None = None,
    ) -> list[Box | None]:
        """For each object of an image its box `(x0, y0, x1, y1)`, ends exclusive; None for an empty mask."""
        from .masks import masks

        if self.is_video:
            raise TypeError(
                "A track has a box in each frame: use sa2va_host.masks.masks.box on the masks of a frame."
            )
        return [masks.box(mask) for mask in self.masks(threshold, refinement, guide)]

    def each_probability(
        self,
        refinement: Refinement | None = None,
        threshold: float = 0.5,
        guide: Source | Iterable[Source] | None = None,
    ) -> Iterator[tuple[tuple[int, int], Probability]]:
        """One map after the other, frame by frame, in the memory of one: `(object, frame)` and `[height, width]`.

        float32 0..1 at the input's size, refined at the threshold. ``guide`` is what the guided filter follows, and
        read for that alone: the picture, or for a video its frames in order. Raises `InvalidInput` as
        `sa2va_host.masks.refine.refine` does.
        """
        from .masks import masks
        from .masks.refine import refine
        from .masks.refinement import Refinement
        from .media import read_image

        refinement = refinement or Refinement()
        masks.threshold_logit(threshold)
        sources: Any = ()
        if refinement.guide_radius and guide is not None:
            sources = guide if self.is_video else [guide]
        pictures = map(read_image, sources)
        for frame in range(self.logits.shape[1]):
            picture = next(pictures, None)
            for index in range(len(self)):
                plain = masks.probability(self.logits[index, frame], self.image_size, self.size)
                yield (index, frame), refine(plain, refinement, threshold, picture)
