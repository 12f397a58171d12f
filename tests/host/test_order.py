"""Names with numbers are ordered as people read them; where that is in doubt, the doubt is named."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from sa2va_host.errors import InvalidInput
from sa2va_host.video.order import ordered, ticks, written_digits


def order(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """The names in order, and their numbers, whatever order they come in."""
    shuffled = [Path("frames", f"{name}.png") for name in names]
    random.Random(0).shuffle(shuffled)
    frames, _ = ordered(shuffled)
    return [path.stem for _, path in frames], [number for number, _ in frames]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        ([f"frame_{n}_1080p" for n in range(8, 14)], range(8, 14)),
        ([f"shot{n}_v3" for n in range(1, 13)], range(1, 13)),
        ([f"cam1_{n}_left2" for n in range(8, 14)], range(8, 14)),
        ([f"{n:04d}_take2" for n in (7, 8, 10, 100)], [7, 8, 10, 100]),
        (["shot1_v9", "shot2_v1", "shot2_v10", "shot10_v1"], range(4)),
        (["8.0", "8.5", "9.0", "9.5", "10.0", "10.5"], range(6)),
        (["8,5", "9,5", "10,0"], range(3)),
        (["0.0333", "0.0667", "0.1", "0.1333"], range(4)),
        (["0.00", "0.04", "0.08"], range(3)),
        (["1305031102.775326", "1305031102.811233", "1305031103.011215"], range(3)),
        (["1305031102.5", "1305031102.75", "1305031103.25", "1305031103.3"], range(4)),
        (
            ["shot-2024-01-01 12.00.01.37", "shot-2024-01-01 12.00.02.05", "shot-2024-01-02 09.30.00.00"],
            range(3),
        ),
        (["31-01-2024", "01-02-2024", "02-02-2024"], range(3)),
        (["01-31-2024", "02-01-2024", "02-02-2024"], range(3)),
        (["at 11.05.00 AM", "at 12.05.00 PM", "at 1.05.00 PM"], [11, 12, 13]),
        (["\uff18", "\uff19", "\uff11\uff10"], [8, 9, 10]),
        (["-10", "-5", "0", "5", "10"], [-10, -5, 0, 5, 10]),
        (["shot.-2", "shot.-1", "shot.0", "shot.1"], [-2, -1, 0, 1]),
        ([f"shot1.{n:04d}" for n in (1, 2, 3, 7)], [1, 2, 3, 7]),
        ([f"v2.{n}" for n in (8, 9, 10)], [8, 9, 10]),
        ([f"1.2.{n}" for n in (8, 9, 10)], [8, 9, 10]),
        ([f"8.{n}" for n in range(1, 12)], range(1, 12)),
        (["a", "b", "c"], range(3)),
        (["1080p_a", "1080p_b"], range(2)),
        (["frame (1)", "frame (2)", "frame (10)"], [1, 2, 10]),
        (["pic_2_bad", "pic_10_good"], [2, 10]),
        (["f0042"], [42]),
        (["20240101120001123456", "20240101120002123456"], range(2)),
    ],
)
def test_every_number_counts(names: Sequence[str], numbers: Sequence[int]) -> None:
    assert order(names) == (list(names), list(numbers))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["8.9", "8.10"],
            r"8\.9\.png, 8\.10\.png \(as whole .*8\.10\.png, 8\.9\.png \(as decimals\).*'frames/8\.#",
        ),
        (["0.0", "0.25", "0.5", "0.75"], "two plausible orders"),
        (["t 12.00.01.9", "t 12.00.01.10"], "as decimals"),
        (["01-02-2024", "02-01-2024", "01-03-2024"], "with the day first.*with the month first"),
        (["-10", "-5"], "with minus signs"),
        (["left1", "right2", "left3", "right4"], "by the words before the number.*by number"),
    ],
)
def test_where_two_orders_are_plausible_both_are_named(names: Sequence[str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        order(names)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["f000.png", "f000_mask.png", "f001.png", "f001_mask.png"], r"f#\.png' or 'frames/f#_mask\.png"),
        (["f000.jpg", "f000.png", "f001.jpg", "f001.png"], r"f#\.jpg' or 'frames/f#\.png"),
        (["left1.png", "left2.png", "right1.png", "right2.png"], r"left#\.png' or 'frames/right#\.png"),
        (["f1.png", "f01.png"], "one image twice"),
        (["a.jpg", "a.png", "b.jpg", "b.png"], r"\*\.jpg' or"),
    ],
)
def test_two_series_in_one_folder_are_no_video(names: Sequence[str], said: str) -> None:
    with pytest.raises(InvalidInput, match=f"same number.*{said}"):
        ordered([Path("frames", name) for name in names])


def test_an_image_without_the_number_of_the_others_is_named() -> None:
    frames, (note,) = ordered([Path("frames", name) for name in ("f2.png", "cover.png", "f10.png")])
    assert [path.name for _, path in frames] == ["cover.png", "f2.png", "f10.png"]
    assert "cover.png" in note


@pytest.mark.parametrize(
    ("numbers", "counted"),
    [
        ([998, 999, 1003], True),
        ([0, 5, 10], True),
        ([1, 500, 900], True),
        ([1403636579763555584, 1403636579813555584], False),
        ([1705031102, 1705031103], False),
        ([20240130, 20240131, 20240201], False),
        ([20240130, 20240131, 20240132], True),
        ([33_000, 66_000, 100_000], False),
        ([7], True),
    ],
)
def test_which_numbers_count_frames(numbers: list[int], counted: bool) -> None:
    assert ticks(numbers) == (numbers if counted else None)


def test_frames_are_written_with_as_many_digits_as_they_are_read() -> None:
    assert written_digits([(8, Path("frame_0008_8k.png")), (9, Path("frame_0009_8k.png"))]) == 4
    assert written_digits([(0, Path("8.5.png")), (1, Path("9.0.png"))]) is None


def test_a_time_of_day_behind_a_date_is_no_counter() -> None:
    names = ["IMG_20240101_120058", "IMG_20240101_120059", "IMG_20240101_120100", "IMG_20240101_120101"]
    frames, notes = ordered([Path(f"{name}.jpg") for name in reversed(names)])
    assert [path.stem for _, path in frames] == names
    assert [number for number, _ in frames] == [0, 1, 2, 3]
    assert notes == []


@pytest.mark.parametrize(
    "names", [["20240101_000058", "20240101_000059", "20240101_000060"], ["shot_120058", "shot_120100"]]
)
def test_a_counter_behind_a_date_and_six_digits_behind_none_are_numbers(names: list[str]) -> None:
    frames, _ = ordered([Path(f"{name}.png") for name in names])
    assert [number for number, _ in frames] == [int(name[-6:]) for name in names]
