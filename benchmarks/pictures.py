"""What is measured on: pictures and masks without meaning, the same each time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noise(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """A picture `[height, width, 3]`, uint8. Nothing compresses it, so that files and messages have their full size."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def blobs(objects: int, side: int = 256) -> NDArray[np.float32]:
    """Logits `[objects, 1, side, side]` as the decoder makes them: a smooth disc each, -10..10, at another place."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    centres = np.random.default_rng(0).uniform(0.3, 0.7, (objects, 2))
    distances = [np.hypot(rows - y, columns - x) for y, x in centres]
    return np.stack([np.clip((0.25 - distance) * 60, -10, 10) for distance in distances])[:, None].astype(
        np.float32
    )
