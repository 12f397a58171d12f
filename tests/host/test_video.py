"""A video's frames on the client's side: what counts as several pictures, and how many go first."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sa2va_host.errors import InvalidInput
from sa2va_host.media import Picture
from sa2va_host.video.stream import Video

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
        (b"content", "the content of one file"),
        (io.BytesIO(b"content"), "the content of one file"),
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


class ReadAgain:
    """Frames without a length that can be read more than once."""

    def __iter__(self) -> Iterator[Picture]:
        return generated()


@pytest.mark.parametrize(("frames", "frame_count"), [(FRAMES, None), (list(FRAMES), 99), (ReadAgain(), 6)])
def test_evenly_spread_key_frames_are_sa2va_is_and_no_frame_is_lost(
    frames: Any, frame_count: int | None
) -> None:
    video = Video(frames, "uniform:3", frame_count)
    assert video.key_positions == np.linspace(0, 5, 3, dtype=int).tolist() == [0, 2, 5]
    np.testing.assert_array_equal(np.stack(video.key_frames), FRAMES[[0, 2, 5]])
    seen = [video.next(4, 16), video.next(4, 16)]
    assert [None if chunk is None else len(chunk) for chunk in seen] == [4, 2]
    assert Video(frames, "uniform:12", frame_count).key_positions == [0, 1, 2, 3, 4, 5]
    assert Video(frames, "uniform:1", frame_count).key_positions == [0]


@pytest.mark.parametrize(
    ("frames", "frame_count", "said"),
    [
        (generated(), None, "need the video's length"),
        (ReadAgain(), None, "need the video's length"),
        (generated(), 6, "can be read only once"),
        (ReadAgain(), 7, "ends before frame 6"),
    ],
)
def test_evenly_spread_key_frames_need_a_length_and_a_second_reading(
    frames: Any, frame_count: int | None, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        Video(frames, "uniform:3", frame_count)


def test_key_frames_can_be_chosen_and_begin_with_the_first() -> None:
    video = Video(generated(), {4: FRAMES[4], 0: FRAMES[0]})
    assert (video.key_positions, video.size) == ([0, 4], (20, 30))
    with pytest.raises(InvalidInput, match="Choose frame 0"):
        Video(generated(), {4: FRAMES[4]})
