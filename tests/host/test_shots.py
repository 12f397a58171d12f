"""Where a video is taken apart: every so many frames, or at cuts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput
from sa2va_host.video.shots import split
from training.heldout import draw_clip


@pytest.fixture(scope="module")
def clips() -> list[NDArray[np.uint8]]:
    """Three scenes, uint8 `[12, height, width, 3]`, in which things move."""
    return [draw_clip(np.random.default_rng(seed), (120, 160), 12).frames for seed in (1, 2, 3)]


def lengths(frames: list[NDArray[np.uint8]], ask_again: str) -> list[int]:
    shots = split(iter(frames), ask_again)
    assert shots is not None
    return [len(list(shot)) for shot in shots]


def test_a_video_is_one_shot_until_it_is_asked_about_again(clips: list[NDArray[np.uint8]]) -> None:
    assert split(clips[0], "never") is None
    assert lengths(list(clips[0]), "every:5") == [5, 5, 2]
    assert lengths(list(clips[0]), "every:100") == [12]


def test_a_cut_is_where_another_scene_begins(clips: list[NDArray[np.uint8]]) -> None:
    assert lengths([*clips[0], *clips[1][:7], *clips[2]], "cuts") == [12, 7, 12]


def test_frames_are_read_when_they_are_asked_for(clips: list[NDArray[np.uint8]]) -> None:
    read = 0

    def produced() -> Iterator[NDArray[np.uint8]]:
        nonlocal read
        for frame in clips[0]:
            read += 1
            yield frame

    shots = split(produced(), "every:4")
    assert shots is not None
    next(next(shots))
    assert read == 1
    next(next(shots))
    assert read == 5


@pytest.mark.parametrize("words", ["every:0", "every", "every:-1", "every:" + "9" * 20, "cut", ""])
def test_other_words_are_refused(clips: list[NDArray[np.uint8]], words: str) -> None:
    with pytest.raises(InvalidInput, match="ask_again is"):
        split(clips[0], words)
