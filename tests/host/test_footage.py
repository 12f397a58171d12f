"""Video files become upright sRGB frames with their times, and what is wrong with a file is said."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sa2va_host.errors import ConfigError, InvalidInput
from sa2va_host.video.clip import Frame, Selection, open_clip
from sa2va_host.video.footage import Footage
from tests.clips import BLUE, RED, TICK, pictures, write_clip


def read(path: Path, selection: Selection | None = None) -> tuple[Footage, list[Frame]]:
    footage = Footage(path, selection or Selection())
    return footage, list(footage)


def assert_colour(pixel: object, colour: tuple[int, int, int]) -> None:
    np.testing.assert_allclose(np.asarray(pixel, dtype=int), colour, atol=4)


def test_frames_come_in_order_with_number_and_time(tmp_path: Path) -> None:
    footage, frames = read(write_clip(tmp_path / "clip.mp4", pictures(10)))
    assert [frame.number for frame in frames] == list(range(10))
    assert [frame.time for frame in frames] == [index * Fraction(1001, 30000) for index in range(10)]
    assert (footage.name, footage.rate, footage.frame_count) == ("clip", Fraction(30000, 1001), 10)
    for frame, picture in zip(frames, pictures(10), strict=True):
        assert frame.picture.dtype == np.uint8
        assert frame.picture.flags.c_contiguous
        assert np.abs(frame.picture.astype(int) - picture).mean() < 4
    assert footage.warnings == []


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    ticks = [0, 100, 5000, 5001, 9000, 60000]
    _, frames = read(write_clip(tmp_path / "clip.mp4", pictures(6), ticks=ticks))
    assert [frame.time for frame in frames] == [tick * TICK for tick in ticks]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_colours_go_by_the_matrix_and_range_that_the_file_names(
    tmp_path: Path, matrix: int, full_range: bool
) -> None:
    path = write_clip(tmp_path / "clip.mp4", pictures(1), matrix=matrix, full_range=full_range)
    (frame,) = read(path)[1]
    assert_colour(frame.picture[4, 4], BLUE)
    assert_colour(frame.picture[40, 50], RED)


@pytest.mark.parametrize(("size", "matrix"), [((720, 64), 1), ((480, 64), 5)])
def test_a_file_that_names_no_matrix_has_that_of_its_size(
    tmp_path: Path, size: tuple[int, int], matrix: int
) -> None:
    (frame,) = read(write_clip(tmp_path / "silent.mp4", pictures(1, size), matrix=matrix, named=False))[1]
    assert_colour(frame.picture[4, 4], BLUE)
    assert_colour(frame.picture[-4, -4], RED)


def test_a_turned_recording_is_upright(tmp_path: Path) -> None:
    data = bytearray(write_clip(tmp_path / "clip.mp4", pictures(3)).read_bytes())
    matrix = data.index(b"tkhd") + 44
    # As a phone writes that is held upright: the picture is to be turned clockwise by 90 degrees.
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    _, frames = read(tmp_path / "turned.mp4")
    assert frames[0].picture.shape == (64, 48, 3)
    assert_colour(frames[0].picture[4, -4], BLUE)
    assert_colour(frames[0].picture[-4, 4], RED)


def test_a_mirrored_recording_is_unmirrored(tmp_path: Path) -> None:
    """As a phone's front camera writes: without a turn, and held upright."""
    whole = write_clip(tmp_path / "clip.mp4", pictures(3)).read_bytes()
    corners = {(-65536, 0, 0, 65536): (4, -4), (0, 65536, 65536, 0): (4, 4), (0, -65536, -65536, 0): (-4, -4)}
    for number, ((a, b, c, d), corner) in enumerate(corners.items()):
        data = bytearray(whole)
        matrix = data.index(b"tkhd") + 44
        data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        (tmp_path / f"{number}.mp4").write_bytes(data)
        _, frames = read(tmp_path / f"{number}.mp4")
        assert_colour(frames[0].picture[corner], BLUE)
        assert_colour(frames[0].picture[-corner[0], -corner[1]], RED)


def test_odd_sides_stay_odd(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "odd.mkv", pictures(2, (47, 63)), codec="ffv1", pixels="yuv444p")
    assert read(path)[1][0].picture.shape == (47, 63, 3)


@pytest.mark.parametrize(
    ("transfer", "said"), [(None, "has 10 bits; the model sees 8"), (16, r"is HDR \(PQ\)"), (18, r"\(HLG\)")]
)
def test_more_than_eight_bits_and_hdr_are_said(tmp_path: Path, transfer: int | None, said: str) -> None:
    path = write_clip(tmp_path / "deep.mp4", pictures(3), pixels="yuv420p10le", matrix=9, transfer=transfer)
    footage, frames = read(path)
    (warning,) = footage.warnings
    assert said.replace("\\", "") in warning
    assert len(frames) == 3
    assert frames[0].picture.dtype == np.uint8


def test_a_selection_goes_by_frame_numbers(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", pictures(30))
    footage, frames = read(path, Selection(start=5, end=20, stride=4, max_size=32))
    assert [frame.number for frame in frames] == [5, 9, 13, 17]
    assert [frame.time for frame in frames] == [number * Fraction(1001, 30000) for number in (5, 9, 13, 17)]
    assert (footage.frame_count, frames[0].picture.shape) == (4, (24, 32, 3))
    assert len(read(path, Selection(start=28))[1]) == 2
    with pytest.raises(InvalidInput, match="has 30 frames, from 0; none is from 100 on"):
        read(path, Selection(start=100))


def test_impossible_selections_are_refused() -> None:
    for wrong in ({"stride": 0}, {"max_size": 0}, {"start": 5, "end": 4}, {"start": -1}, {"end": -1}):
        with pytest.raises(InvalidInput):
            Selection(**wrong)


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """A file whose header promises 60 frames, of which about half are there."""
    noise = list(np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8))
    whole = write_clip(tmp_path / "whole.mp4", noise, movflags="faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "cut.mp4"


def test_a_cut_off_file_gives_what_is_there_and_says_what_is_missing(cut_off: Path) -> None:
    footage = Footage(cut_off, Selection())
    assert footage.frame_count == 60
    frames = list(footage)
    assert 10 < len(frames) < 50
    assert any(f"promises 60 frames; there are {len(frames)}" in warning for warning in footage.warnings)


def test_a_container_that_counts_no_frames_has_a_length(tmp_path: Path) -> None:
    noise = list(np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8))
    whole = write_clip(tmp_path / "whole.mkv", noise)
    footage, _ = read(whole)
    assert Footage(whole, Selection()).frame_count == 60
    assert footage.warnings == []
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 4])
    cut, frames = read(tmp_path / "cut.mkv")
    assert 5 < len(frames) < 25
    assert "promises 2.0 s; its frames end after 0." in cut.warnings[-1]


def test_some_frames_are_looked_at_and_the_others_counted(tmp_path: Path) -> None:
    footage = Footage(write_clip(tmp_path / "clip.mp4", pictures(12)), Selection(start=2, stride=3))
    looked = list(footage.look_at([0, 2]))
    assert [frame and frame.number for frame in looked] == [2, None, 8]
    for frame in (looked[0], looked[2]):
        assert frame is not None
        np.testing.assert_array_equal(frame.picture, list(footage)[0 if frame.number == 2 else 2].picture)


def test_what_a_header_promises_is_put_right_and_said_once(cut_off: Path) -> None:
    footage = Footage(cut_off, Selection())
    there = len(list(footage.look_at([0, 59])))
    assert footage.frame_count == there < 60
    assert len(list(footage)) == there
    assert len(footage.warnings) == len(set(footage.warnings))


def test_damage_inside_does_not_end_the_video(tmp_path: Path) -> None:
    noise = list(np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8))
    data = bytearray(write_clip(tmp_path / "clip.mp4", noise).read_bytes())
    data[len(data) // 3 : len(data) // 3 + 6000] = bytes(6000)
    (tmp_path / "damaged.mp4").write_bytes(data)
    footage, frames = read(tmp_path / "damaged.mp4")
    assert 20 < len(frames) < 30
    assert [frame.time for frame in frames] == sorted(frame.time for frame in frames)
    assert any("damaged or missing" in warning for warning in footage.warnings)
    assert any(f"promises 30 frames; there are {len(frames)}" in warning for warning in footage.warnings)


def test_what_is_no_video_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    whole = write_clip(tmp_path / "clip.mp4", pictures(5)).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    for name, said in {
        "empty.mp4": "is empty",
        "text.mp4": "is no video that can be read",
        "half.mp4": "is no video that can be read, or it is cut short",
        "none.mp4": "No such file",
    }.items():
        with pytest.raises(InvalidInput, match=said):
            Footage(tmp_path / name, Selection())


def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", pictures(2)).rename(tmp_path / "take:1.mp4")
    assert len(read(path)[1]) == 2


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import wave

    with wave.open(str(tmp_path / "tone.wav"), "wb") as tone:
        tone.setparams((1, 2, 8000, 800, "NONE", ""))
        tone.writeframes(bytes(1600))
    with pytest.raises(InvalidInput, match="has no video in it"):
        Footage(tmp_path / "tone.wav", Selection())


def test_only_a_few_frames_are_read_ahead(tmp_path: Path) -> None:
    """Reading stops with its reader; what was not asked for is not decoded."""
    footage = Footage(write_clip(tmp_path / "clip.mp4", pictures(10)), Selection())
    frames = iter(footage)
    assert next(frames).number == 0
    frames.close()
    assert footage.warnings == []


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r'pip install "sa2va-host\[video\]"'):
        open_clip(tmp_path / "clip.mp4")


def test_one_picture_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(InvalidInput, match=r"is a picture file.*sa2va segment"):
        open_clip(tmp_path / "photo.png")
