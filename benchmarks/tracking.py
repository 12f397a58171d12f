"""Our SAM2 at its true size, with random weights: one JSON document on standard output, as `benchmarks.tracking_peer`.

`python -m benchmarks.tracking DEVICE OBJECTS FRAMES REPEAT`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch

from sa2va_host.masks import masks
from sa2va_worker.models.sam2 import Sam2
from sa2va_worker.models.tracker import Tracker

from .tracking_peer import peak_bytes

SIZE = (1080, 1920)


def build(device: torch.device, settings: dict[str, object] | None = None) -> Sam2:
    """Hiera-Large unless `settings` say otherwise; float32, on CUDA bfloat16."""
    torch.manual_seed(0)
    return Sam2(settings or {}).eval().to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)


def track(sam2: Sam2, objects: int, frames: int) -> Iterator[None]:
    """All objects together, frame after frame, and their masks at full size on the host; yields after each frame."""
    vectors = torch.randn(objects, sam2.width, generator=torch.Generator().manual_seed(0))
    device = sam2.model.no_memory_embedding.device
    tracker = Tracker(sam2, vectors.to(device, sam2.dtype))
    picture = torch.zeros(1, sam2.image_size, sam2.image_size, 3, dtype=torch.uint8)
    for frame in range(frames):
        features = sam2.encode(sam2.pixels(picture)).expand(objects)
        logits = tracker.step(features, conditioning=frame < 5).logits.float().cpu().numpy()
        masks.binarise(logits[:, None].astype(np.float32), sam2.image_size, SIZE)
        yield


def main(device: str, objects: str, frames: str, repeat: str) -> None:
    """Print seconds, calls of the image encoder in one run, and bytes at the peak: in all, and after each frame."""
    where = torch.device(device)
    sam2 = build(where)
    seconds: list[float] = []
    peaks: list[int] = []
    with torch.inference_mode():
        for _ in range(int(repeat)):
            sam2.encoder_calls = 0
            begun = time.perf_counter()
            peaks = [_peak(where) for _ in track(sam2, int(objects), int(frames))]
            seconds.append(time.perf_counter() - begun)
    found = {"seconds": seconds, "encoder_calls": sam2.encoder_calls, "peak_bytes": peaks[-1], "peaks": peaks}
    print(json.dumps(found))


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_bytes()


if __name__ == "__main__":
    main(*sys.argv[1:])
