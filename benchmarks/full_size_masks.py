"""From the model's logits to masks and files at 4K, against what OpenCV takes for one resize and a threshold, and for
writing the same files one after the other.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from sa2va_host import media
from sa2va_host.masks import masks
from sa2va_host.masks.masks import Logits, Mask
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
    return [*_against_opencv(logits[:1], plan), *_against_opencv(logits, plan), *_files(logits, plan)]


def _against_opencv(logits: Logits, plan: Plan) -> list[Figure]:
    """Of as many objects at a time: what one number of them does to the heap must not be paid by the other."""
    mine, peers = times(
        plan.repeat, partial(masks.binarise, logits, IMAGE_SIZE, SIZE), partial(_opencv, logits)
    )
    count = f"{len(logits)} at 4K"
    ours, theirs = Figure(f"{count}: masks", mine), Figure(f"{count}: OpenCV's resize and threshold", peers)
    return [ours, theirs, ratio(f"{count}: against OpenCV", ours, theirs, 1.5)]


def _files(logits: Logits, plan: Plan) -> list[Figure]:
    """From logits to PNG files: ours makes the next object's mask while others are compressed, on several threads."""
    with tempfile.TemporaryDirectory() as name:
        stem = Path(name) / "picture"
        result = Segmentation("", logits, SIZE, IMAGE_SIZE)
        mine, alone, peers = times(
            plan.repeat,
            partial(save, result, noise(SIZE), stem, ["masks"]),
            partial(_write_alone, result, stem),
            partial(_write_with_opencv, logits, stem),
        )
    ours = Figure(f"{OBJECTS} masks at 4K as PNG", mine, panel="files")
    serial = Figure("the same, one after the other", alone, panel="files")
    theirs = Figure("OpenCV's resize, threshold and imwrite", peers, panel="files")
    return [
        ours,
        serial,
        theirs,
        ratio("files: in parallel against one after the other", ours, serial),
        ratio("files: against OpenCV", ours, theirs),
    ]


def _write_alone(result: Segmentation, stem: Path) -> None:
    for (index, _), probability in result.each_probability():
        media.write_mask(f"{stem}.{index}.alone.png", probability > np.float32(0.5))


def _write_with_opencv(logits: Logits, stem: Path) -> None:
    for index, mask in enumerate(_opencv(logits)):
        cv2.imwrite(f"{stem}.{index}.opencv.png", mask.astype(np.uint8) * np.uint8(255))


def _opencv(logits: Logits) -> Mask:
    """bool `[objects, height, width]`, one array as ours is: single ones come from memory that is warm more often."""
    result = np.empty((len(logits), *SIZE), np.bool_)
    for low, mask in zip(logits[:, 0], result, strict=True):
        np.greater(cv2.resize(low, SIZE[::-1], interpolation=cv2.INTER_LINEAR), 0, out=mask)
    return result
