"""What tests record: two objects of the pictures of `tests.clips`, and what that leaves in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sa2va_host.output.layers import Layer
from sa2va_host.output.recording import KINDS, Recording
from sa2va_host.video.clip import Clip, Frame

TICKS = [0, 1001, 2500, 3003, 4004, 5005, 6006, 9009, 9010, 12012]
"""When the frames are shown, in `tests.clips.TICK`."""
WITHOUT_EXR = [kind for kind in KINDS if not kind.startswith("exr")]


def layers(frame: Frame) -> list[Layer]:
    """The corner that is blue, softly, and an object that is never there."""
    blue = (frame.picture[:, :, 2] > 120).astype(np.float32) * np.float32(0.75)
    nothing = np.zeros_like(blue)
    return [Layer("corner", blue, blue > 0.5, 0.9), Layer("ghost", nothing, nothing > 0.5, 0.1)]


def record(
    folder: Path, clip: Clip, kinds: Sequence[str], *, resume: bool = False, frames: int = 99
) -> Recording:
    with Recording(folder, clip, kinds, resume=resume) as recording:
        for frame in clip:
            if recording.frames + 1 > frames or frame.number >= frames:
                break
            recording.add(frame, layers(frame))
    return recording


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
