"""A video's frames on the client's side: what counts as several pictures, and how many go first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sa2va_host.errors import InvalidInput
from sa2va_host.media import Picture
from sa2va_host.video import Video

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), dtype=np.uint8)


def generated() -> Iterator[Picture]:
    yield from FRAMES


@pytest.mark.parametrize("frames", [FRAMES, list(FRAMES), generated(), FRAMES[..., 0]])
def test_the_key_frames_come_first_and_no_frame_is_lost(frames: Any) -> None:
    video = Video(frames, "first:2")
    assert (len(video.key_frames), video.size) == (2, (20, 30))
    seen = [video.next(4, 16), video.next(4, 16)]
    assert [None if chunk is None else chunk.shape for chunk in seen] == [(4, 16, 16, 3), (2, 16, 16, 3)]
    assert video.next(4, 16) is None


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (FRAMES[0], r"one picture of shape \[20, 30, 3\]"),
        (FRAMES[0, :, :, 0], r"one picture of shape \[20, 30\]"),
        ("clip.mp4", "one file name"),
        (Path("clip.mp4"), "one file name"),
        (Image.new("RGB", (4, 4)), "one Image"),
        (None, "one NoneType"),
    ],
)
def test_one_picture_is_no_video(frames: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"are several pictures, not {said}"):
        Video(frames, "first:5")


@pytest.mark.parametrize(
    "key_frames", ["first:0", "first:65", "first:" + "9" * 20, "first:" + "9" * 5000, "first", "last:2", 5]
)
def test_key_frames_are_a_number_that_one_message_holds(key_frames: Any) -> None:
    with pytest.raises(InvalidInput, match="from 1 to 64"):
        Video(FRAMES, key_frames)
    assert len(Video(FRAMES, "first:64").key_frames) == 6
