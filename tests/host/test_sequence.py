"""Single pictures as frames: their numbers, their order, their colours, and what is missing."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_host.errors import InvalidInput
from sa2va_host.light import to_srgb
from sa2va_host.video.clip import Clip, Selection, open_clip
from sa2va_host.video.clip_frames import key_frames_of

CASES = Path(__file__).parents[1] / "cases"


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
        tmp_path / "empty": "has no images",
        tmp_path / "*.png": "No frame matches",
        tmp_path / "shot.####.png": "No frame matches",
        tmp_path / "none" / "shot.####.png": "There is no folder",
    }.items():
        with pytest.raises(InvalidInput, match=said):
            open_clip(source)


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


def damage(path: Path) -> None:
    """Leave the header, and half of the rest."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Twelve frames, 0 to 11, whose files are large enough to be cut."""
    (tmp_path / "noise").mkdir()
    grains = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
    for number, picture in enumerate(grains):
        Image.fromarray(picture).save(tmp_path / "noise" / f"f{number:03d}.jpg")
    return tmp_path / "noise"


def test_a_damaged_frame_is_passed_over_and_named(noise: Path) -> None:
    damage(noise / "f005.jpg")
    clip = open_clip(noise, rate=Fraction(25))
    frames = list(clip)
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert [frame.time for frame in frames] == [Fraction(frame.number, 25) for frame in frames]
    (warning,) = clip.warnings
    assert "f005.jpg" in warning
    assert "passed over" in warning
    assert clip.frame_count == 11
    assert list(clip)[5].number == 6
    assert clip.warnings == [warning]


def test_whatever_is_wrong_with_single_frames_the_others_are_read(noise: Path) -> None:
    damage(noise / "f000.jpg")
    (noise / "f003.jpg").write_bytes(b"")
    (noise / "f004.jpg").write_text("no image at all")
    clip = open_clip(noise)
    (noise / "f008.jpg").unlink()
    frames = list(clip)
    assert [frame.number for frame in frames] == [1, 2, 5, 6, 7, 9, 10, 11]
    assert frames[0].time == 0
    at_first, later = clip.warnings
    assert "2 frames" in at_first
    assert "f003.jpg, f004.jpg" in at_first
    assert "2 frames" in later
    assert "f000.jpg, f008.jpg" in later


def test_where_no_frame_can_be_read_that_is_an_error(noise: Path) -> None:
    for path in noise.iterdir():
        damage(path)
    with pytest.raises(InvalidInput, match=r"None of the 12 frames .*f000\.jpg is damaged or cut short"):
        list(open_clip(noise))
    for path in noise.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InvalidInput, match="None of the 12 frames"):
        open_clip(noise)


def test_key_frames_that_were_looked_at_keep_their_places(noise: Path) -> None:
    """A damaged frame between them, which nobody opened by then, shows the one before it."""
    for number in (4, 7):
        damage(noise / f"f{number:03d}.jpg")
    clip = open_clip(noise)
    key_frames = key_frames_of(clip, "uniform:4")
    assert isinstance(key_frames, dict)
    frames = list(clip)
    assert len(frames) == clip.frame_count == 11
    assert list(key_frames) == [0, 3, 6, 10]
    for place, picture in key_frames.items():
        np.testing.assert_array_equal(frames[place].picture, picture)
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    np.testing.assert_array_equal(frames[4].picture, frames[3].picture)
    passed, held = clip.warnings
    assert "f007.jpg" in passed
    assert "f004.jpg" in held
    assert "shown as the frame before" in held


def test_the_shared_case_of_a_cut_frame() -> None:
    clip = open_clip(CASES / "cut-frame")
    assert [frame.number for frame in clip] == list(range(11))
    (warning,) = clip.warnings
    assert "f011.jpg" in warning


def test_stamps_in_nanoseconds_are_no_times() -> None:
    clip = open_clip(CASES / "epoch-ns")
    frames = list(clip)
    assert [frame.number for frame in frames] == [1403636579763555584 + 50_000_000 * n for n in range(6)]
    assert [frame.time for frame in frames] == [Fraction(n, 24) for n in range(6)]
    (warning,) = clip.warnings
    assert "cannot count frames" in warning
    assert "24 a second" in warning
    part = Selection(start=1403636579813555584, stride=2)
    assert [frame.time for frame in open_clip(CASES / "epoch-ns", part, rate=Fraction(10))] == [
        0,
        Fraction(1, 5),
        Fraction(2, 5),
    ]


def left_edges(clip: Clip) -> list[int]:
    """Where the red circle begins in each frame."""
    reds = [frame.picture.astype(int) for frame in clip]
    return [int(np.nonzero((red[..., 0] - red[..., 1] > 80).any(axis=0))[0][0]) for red in reds]


@pytest.mark.parametrize("case", ["order-suffix", "order-decimal", "epoch-ns"])
def test_what_moves_right_moves_right(case: str) -> None:
    clip = open_clip(CASES / case)
    edges = left_edges(clip)
    assert len(edges) == 6
    assert all(after - before > 5 for before, after in pairwise(edges))


def test_decimals_order_frames_and_say_nothing_of_time() -> None:
    clip = open_clip(CASES / "order-decimal", rate=Fraction(10))
    assert [(frame.number, frame.time) for frame in clip] == [(n, Fraction(n, 10)) for n in range(6)]
    assert clip.warnings == []


def test_two_files_of_one_number_are_refused(tmp_path: Path) -> None:
    for name in ("1.png", "01.png", "2.png"):
        write(tmp_path / name)
    with pytest.raises(InvalidInput, match="have the same number"):
        open_clip(tmp_path / "#.png")
    with pytest.raises(InvalidInput, match="have the same number"):
        open_clip(tmp_path)


def test_single_images_are_not_deinterlaced(shots: Path) -> None:
    with pytest.raises(InvalidInput, match="--deinterlace is for video files"):
        open_clip(shots / "shot.#.png", deinterlace=True)
