"""Checkpoints and a way to run the engine without a process around it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sa2va_host.generation import Generation
from sa2va_host.protocol.specification import Specification
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.models.pictures import square
from sa2va_worker.steps import Answer, Masks, Picture, SegmentRequest, Step
from tests.parity.weights import write_checkpoint


class Frames:
    """A frame source that has everything at once, or gives nothing every other time (`slow`)."""

    def __init__(self, pictures: Iterable[Picture], image_size: int, slow: bool = False) -> None:
        self._left = [square(picture, image_size) for picture in pictures]
        self.image_size = image_size
        self._slow, self._hungry = slow, True

    @property
    def finished(self) -> bool:
        return not self._left

    def get(self) -> Picture | None:
        self._hungry = not self._hungry
        if not self._left or (self._slow and not self._hungry):
            return None
        return self._left.pop(0)


@dataclass
class Heard:
    """What a call said, step by step."""

    steps: list[Step] = field(default_factory=list)

    @property
    def answer(self) -> Answer:
        last = self.steps[-1]
        assert isinstance(last, Answer)
        return last

    @property
    def logits(self) -> NDArray[np.float32]:
        """float32 `[objects, frames, h, w]`"""
        return np.stack([step.logits for step in self.steps if isinstance(step, Masks)], axis=1)


def load_engine(checkpoint: Path, **settings: Any) -> Sa2VAEngine:
    engine = Sa2VAEngine()
    for _ in engine.load(Specification(checkpoint=str(checkpoint), **{"device": "cpu", **settings})):
        pass
    return engine


def segment(
    engine: Sa2VAEngine,
    prompt: str | Sequence[str],
    pictures: Sequence[Picture],
    tracked: bool = False,
    limit: int | None = None,
) -> Generator[Step, None, None]:
    """The steps of a call with upstream's first five key frames."""
    request = SegmentRequest(
        [prompt] if isinstance(prompt, str) else prompt,
        list(pictures[:5]),
        tracked,
        len(pictures),
        Generation(max_new_tokens=limit),
    )
    yield from engine.segment(request, Frames(pictures, engine.info.image_size))


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("qwen3", tmp_path_factory.mktemp("checkpoints") / "qwen3")


@pytest.fixture(scope="session")
def engine(qwen3_folder: Path) -> Sa2VAEngine:
    return load_engine(qwen3_folder)
