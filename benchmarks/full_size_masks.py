"""From the model's logits to masks and files at 4K, against what OpenCV takes for one resize and a threshold."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import cv2

from sa2va_host.masks import masks
from sa2va_host.masks.masks import Logits
from sa2va_host.output.saving import save
from sa2va_host.results import Segmentation

from .figures import Figure, Plan, ratio, times
from .pictures import blobs, noise

SIZE = (2160, 3840)
IMAGE_SIZE = 1024
OBJECTS = 4


def measure(plan: Plan) -> list[Figure]:
    """One mask and four, from float32 logits `[objects, 1, 256, 256]`; and four with their files, in one call."""
    logits = blobs(OBJECTS)
    figures = [*_against_opencv(logits[:1], plan), *_against_opencv(logits, plan)]
    with tempfile.TemporaryDirectory() as folder:
        result = Segmentation("", logits, SIZE, IMAGE_SIZE)
        (saved,) = times(plan.few, partial(save, result, noise(SIZE), Path(folder) / "picture", ["masks"]))
    return [*figures, Figure(f"save {OBJECTS} masks at 4K as PNG", saved, panel="files")]


def _against_opencv(logits: Logits, plan: Plan) -> list[Figure]:
    """Of as many objects at a time: what one number of them does to the heap must not be paid by the other."""
    mine, peers = times(
        plan.repeat, partial(masks.binarise, logits, IMAGE_SIZE, SIZE), partial(_opencv, logits)
    )
    count = f"{len(logits)} at 4K"
    ours, theirs = Figure(f"{count}: masks", mine), Figure(f"{count}: OpenCV's resize and threshold", peers)
    return [ours, theirs, ratio(f"{count}: against OpenCV", ours, theirs, 1.5)]


def _opencv(logits: Logits) -> list[object]:
    return [cv2.resize(low[0], SIZE[::-1], interpolation=cv2.INTER_LINEAR) > 0 for low in logits]
