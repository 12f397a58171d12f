"""The engine of a family whose checkpoints hold one number: what is brighter than it is found."""

import json
from pathlib import Path

import numpy as np

from sa2va_host.protocol.specification import ModelInfo
from sa2va_worker.steps import Answer, Masks, MemoryUse, Progress

SIDE = 64


class BrightEngine:
    """A `sa2va_worker.steps.Engine`: every method is a generator of short steps, all on one thread."""

    def load(self, spec):
        config = json.loads((Path(spec.checkpoint) / "config.json").read_text())
        self._level = config["level"]
        self.info = ModelInfo(
            name=Path(spec.checkpoint).name,
            family="bright",
            image_size=SIDE,
            mask_size=SIDE,
            device="cpu",
            dtype="float32",
            attention="none",
            parameters=1,
            checkpoint=spec.checkpoint,
        )
        yield Progress("loading", 1, 1, "bytes")

    def segment(self, request, frames):
        frame = 0
        while (picture := frames.get()) is not None:
            bright = picture.astype(np.float32).mean(axis=2) - self._level
            yield Masks(frame, bright[None] / 10)
            frame += 1
        yield Answer("It is [SEG].", objects=1)

    def chat(self, request):
        yield Answer(f"I look for what is brighter than {self._level}.")

    def memory(self):
        return MemoryUse()
