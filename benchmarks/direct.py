"""The engine called directly, without worker process or transport.

As a program it is the peer of a warm worker, a process that loads the model for one picture, as upstream's demo does:
`python -m benchmarks.direct PICTURE PROMPT MODEL FOLDER`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sa2va_host import media
from sa2va_host.masks import masks
from sa2va_host.protocol.specification import Specification
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.models.pictures import square
from sa2va_worker.steps import Answer, Masks, Picture, SegmentRequest, Step


class Frames:
    """Frames that are all there, as the engine wants them: a `sa2va_worker.steps.FrameSource`."""

    def __init__(self, frames: Sequence[Picture], image_size: int) -> None:
        self._left = [np.asarray(square(frame, image_size)) for frame in reversed(frames)]
        self._image_size = image_size

    @property
    def image_size(self) -> int:
        return self._image_size

    @property
    def finished(self) -> bool:
        return not self._left

    def get(self) -> Picture | None:
        return self._left.pop() if self._left else None


def load(model: str, device: str = "auto") -> Sa2VAEngine:
    """An engine that has loaded a bundled model's name or a folder."""
    engine = Sa2VAEngine()
    for _ in engine.load(Specification(checkpoint=model, device=device)):
        pass
    return engine


def segment(
    engine: Sa2VAEngine, frames: Sequence[Picture], prompts: Sequence[str]
) -> tuple[Answer, list[Masks]]:
    """What was answered about one picture or a video, and the masks of each frame."""
    request = SegmentRequest(list(prompts), list(frames[:5]), tracked=len(frames) > 1)
    steps: Iterator[Step] = engine.segment(request, Frames(frames, engine.info.image_size))
    heard = list(steps)
    answer = heard[-1]
    assert isinstance(answer, Answer)
    return answer, [step for step in heard if isinstance(step, Masks)]


def main(path: str, prompt: str, model: str, folder: str) -> None:
    """Load, segment, and write the masks and the overlay, as `sa2va segment` does."""
    engine = load(model)
    picture = media.read_image(path)
    answer, found = segment(engine, [picture], [prompt])
    print(answer.text)
    logits = found[0].logits if found else np.zeros((0, 1, 1), np.float32)
    whole = masks.binarise(logits[:, None], engine.info.image_size, picture.shape[:2])[:, 0]
    for index, mask in enumerate(whole):
        media.write_mask(Path(folder) / f"direct.{index}.png", mask)
    media.write_overlay(Path(folder) / "direct.overlay.png", picture, whole)


if __name__ == "__main__":
    main(*sys.argv[1:])
