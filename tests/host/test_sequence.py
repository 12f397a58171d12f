"""Single pictures as frames: their numbers, their order, their colours, and what is missing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_host.errors import InvalidInput
from sa2va_host.light import to_srgb
from sa2va_host.video.clip import Clip, Frame, Selection, open_clip


def write(path: Path, value: int = 0, size: tuple[int, int] = (8, 12)) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def seen(clip: Clip) -> list[tuple[int, int]]:
    """Number and grey value of each frame."""
    return [(frame.number, int(frame.picture[0, 0, 0])) for frame in clip]


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Frames 998, 999, 1000, 1003 and 1007 of a shot, and things beside them."""
    for number in (998, 999, 1000, 1003, 1007):
        write(tmp_path / "shots" / f"shot.{number:04d}.png", number % 200)
    write(tmp_path / "shots" / "other.0001.png", 9)
    (tmp_path / "shots" / "shot.0002.txt").write_text("no frame")
    return tmp_path / "shots"


@pytest.mark.parametrize("name", ["shot.####.png", "shot.%04d.png", "shot.#.png", "shot.%d.png"])
def test_a_numbered_pattern_keeps_its_numbers_and_names_its_gaps(shots: Path, name: str) -> None:
    clip = open_clip(shots / name, rate=Fraction(25))
    assert seen(clip) == [(998, 198), (999, 199), (1000, 0), (1003, 3), (1007, 7)]
    assert (clip.name, clip.digits, clip.frame_count) == ("shot", 4, 5)
    (warning,) = clip.warnings
    assert "1001-1002, 1004-1006" in warning


def test_times_go_by_numbers_so_that_a_gap_takes_its_time(shots: Path) -> None:
    clip = open_clip(shots / "shot.####.png", rate=Fraction(25))
    assert [frame.time for frame in clip] == [Fraction(n, 25) for n in (0, 1, 2, 5, 9)]


def test_a_rate_is_one_that_video_files_hold(shots: Path) -> None:
    assert open_clip(shots / "shot.#.png", rate=Fraction("29.97002997")).rate == Fraction(30000, 1001)
    assert open_clip(shots / "shot.#.png", rate=Fraction("23.976")).rate == Fraction("23.976")
    for absurd in ("1e-9", "1e9", "0", "-25"):
        with pytest.raises(InvalidInput, match=r"from 0\.001 to 1000"):
            open_clip(shots / "shot.#.png", rate=Fraction(absurd))


def test_a_selection_goes_by_the_numbers_of_the_files(shots: Path) -> None:
    clip = open_clip(shots / "shot.####.png", Selection(start=999, end=1003, stride=2))
    assert [number for number, _ in seen(clip)] == [999, 1003]
    with pytest.raises(InvalidInput, match="It has frames 998 to 1007"):
        open_clip(shots / "shot.####.png", Selection(start=2000))


def test_of_frames_that_are_looked_at_no_other_file_is_opened(shots: Path) -> None:
    clip = open_clip(shots / "shot.####.png")
    (shots / "shot.0999.png").write_bytes(b"damaged since its size was read")
    assert [frame and frame.number for frame in clip.look_at([0, 3])] == [998, None, None, 1003]


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 10, 9):
        write(tmp_path / "frames" / f"{number}.png", number)
    for source in (tmp_path / "frames", f"{tmp_path}/frames/*.png"):
        clip = open_clip(source)
        assert seen(clip) == [(1, 1), (2, 2), (9, 9), (10, 10)]
        assert clip.name == "frames"


def test_names_without_numbers_are_sorted_as_words_and_counted(tmp_path: Path) -> None:
    for place, name in enumerate("bca"):
        write(tmp_path / "frames" / f"{name}.png", place)
    clip = open_clip(tmp_path / "frames")
    assert seen(clip) == [(0, 2), (1, 0), (2, 1)]
    assert clip.digits == 5


def test_sixteen_bits_and_grey_are_pictures_too(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "frames").mkdir()
    deep = np.full((8, 12, 3), 40000, np.uint16)
    for number, name in enumerate(["0.png", "1.tif"]):
        cv2.imwrite(str(tmp_path / "frames" / name), deep)
        assert number == int(name[0])
    Image.fromarray(np.full((8, 12), 40000, np.uint16)).save(tmp_path / "frames" / "2.png")
    values = [value for _, value in seen(open_clip(tmp_path / "frames"))]
    assert all(abs(value - 40000 / 257) < 1 for value in values)


def test_exr_is_linear_light_shown_as_srgb(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR", reason="an optional extra")
    light = np.zeros((8, 12, 3), np.float16)
    light[:, 4:8], light[:, 8:] = 0.2140, 7.5
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    for number in (1, 2):
        exr.File(header, {"RGB": light}).write(str(tmp_path / f"shot.{number:04d}.exr"))
    (first, second) = open_clip(tmp_path / "shot.####.exr")
    # Mid grey of sRGB, 127.5, is 0.2140 of the light of white.
    assert np.abs(first.picture[0, [0, 5, 9]].astype(int) - [[0] * 3, [127] * 3, [255] * 3]).max() <= 1
    np.testing.assert_array_equal(first.picture, second.picture)
    exr.File(header, {"Y": light[:, :, 0].copy()}).write(str(tmp_path / "grey.0001.exr"))
    (grey,) = open_clip(tmp_path / "grey.####.exr")
    np.testing.assert_array_equal(grey.picture, first.picture)
    (tmp_path / "bad.0001.exr").write_bytes(b"no picture")
    with pytest.raises(InvalidInput, match="damaged or not an OpenEXR image"):
        open_clip(tmp_path / "bad.####.exr")


def test_light_that_is_no_number_has_a_colour() -> None:
    odd = np.array([np.nan, -np.inf, -1.0, np.inf, 0.0031308], np.float32)
    assert to_srgb(odd).tolist() == [0, 0, 0, 255, 10]


def test_a_video_of_pictures_of_two_sizes_is_sent_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "album" / "1.png")
    write(tmp_path / "album" / "2.png", size=(9, 9))
    with pytest.raises(InvalidInput, match=r"12 x 8 pixels and 2\.png 9 x 9.*sa2va segment"):
        open_clip(tmp_path / "album")


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, said in {
        tmp_path / "empty": "has no pictures",
        tmp_path / "*.png": "No frame matches",
        tmp_path / "shot.####.png": "No frame matches",
        tmp_path / "none" / "shot.####.png": "There is no folder",
    }.items():
        with pytest.raises(InvalidInput, match=said):
            open_clip(source)


def test_a_frame_that_is_damaged_ends_what_came_before_it(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "frames" / f"{number}.png", number)
    whole = (tmp_path / "frames" / "2.png").read_bytes()
    (tmp_path / "frames" / "2.png").write_bytes(whole[:-20])
    found: list[Frame] = []
    with pytest.raises(InvalidInput, match="damaged or cut short"):
        found.extend(open_clip(tmp_path / "frames"))
    assert [frame.number for frame in found] == [0, 1]


def test_what_frames_have_in_common_is_said_once(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "frames" / f"{number}.jpg", 200)
        path = tmp_path / "frames" / f"{number}.jpg"
        if number != 1:
            path.write_bytes(path.read_bytes().removesuffix(b"\xff\xd9"))
    (tmp_path / "frames" / "5.psd").write_bytes(b"x")
    (tmp_path / "frames" / "._0.jpg").write_bytes(b"x")
    clip = open_clip(tmp_path / "frames")
    passed_over = f"{tmp_path / 'frames'}: 1 file that looks like an image is passed over: 5.psd."
    assert clip.warnings == [passed_over]
    for _ in range(2):  # two passes over the frames are no more frames
        assert [frame.number for frame in clip] == [0, 1, 2, 3]
        first, note = clip.warnings
        assert first == passed_over
        assert note.startswith(f"{tmp_path / 'frames' / '0.jpg'} lacks the mark that ends a JPEG file;")
        assert note.endswith(" The same holds for 2 other frames.")


def test_a_link_to_another_frame_is_a_frame(tmp_path: Path) -> None:
    """Held frames; but a folder that several links lead to is walked once."""
    write(tmp_path / "frames" / "1.png", 10)
    try:
        (tmp_path / "frames" / "2.png").symlink_to("1.png")
        (tmp_path / "frames" / "up").symlink_to("..")
    except OSError:
        pytest.skip("links need rights on Windows")
    assert seen(open_clip(tmp_path / "frames")) == [(1, 10), (2, 10)]
    assert seen(open_clip(f"{tmp_path}/frames/**/*.png")) == [(1, 10), (2, 10)]


def test_folders_with_brackets_and_shared_cases(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / "shots [v2]" / f"{number}.png", number)
    for name in ("", "/*.png", "/#.png", "/[12].png"):
        assert seen(open_clip(f"{tmp_path}/shots [v2]{name}")) == [(1, 1), (2, 2)]
    cases = Path(__file__).parents[1] / "cases"
    for case in ("appledouble", "appledouble/*", "jfif", "jfif/*"):
        assert len(seen(open_clip(cases / case))) == 3
