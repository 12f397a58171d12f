"""The tracker without reading, transfer and writing: `python -m benchmarks.tracker_alone MODEL FRAMES`.

Prints the seconds that it takes for a frame. Run by `benchmarks.long_video`.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from sa2va_host.config import load_settings
from sa2va_host.models.choice import specify
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.models.pictures import square
from sa2va_worker.steps import Masks, Picture, SegmentRequest

from .long_video import PROMPT, drawn


class _InMemory:
    """A frame source that has all frames at the model's size."""

    def __init__(self, pictures: list[Picture]) -> None:
        self._left = pictures
        self.image_size = len(pictures[0])

    @property
    def finished(self) -> bool:
        return not self._left

    def get(self) -> Picture | None:
        return self._left.pop(0) if self._left else None


def main() -> None:
    model, frames = sys.argv[1], int(sys.argv[2])
    engine = Sa2VAEngine()
    for _ in engine.load(specify(load_settings(model=model))):
        pass
    pictures = drawn()
    request = SegmentRequest([PROMPT], pictures[:5], True)
    small = [square(picture, engine.info.image_size) for picture in pictures]
    begun, seconds = 0.0, []
    for step in engine.segment(request, _InMemory([small[k % len(small)] for k in range(frames)])):
        if isinstance(step, Masks):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            seconds.append(now - begun)
            begun = now
    # The first frames condition the tracker, and its memory is full after some more.
    print(statistics.mean(seconds[len(seconds) // 4 :]))


if __name__ == "__main__":
    main()
