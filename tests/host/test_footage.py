"""Video files become upright sRGB frames with their times, and what is wrong with a file is said."""

from __future__ import annotations

import io
import struct
import sys
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

from sa2va_host.errors import ConfigError, InvalidInput
from sa2va_host.video.clip import Frame, Selection, open_clip
from sa2va_host.video.footage import Footage, metadata_options, open_input, open_upload
from tests.clips import BLUE, RED, TICK, pictures, write_clip

CASES = Path(__file__).parents[1] / "cases"


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
    with pytest.raises(ConfigError, match=r"pip install 'av>=15'"):
        open_clip(tmp_path / "clip.mp4")


def test_one_picture_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(InvalidInput, match=r"is a picture file.*sa2va segment"):
        open_clip(tmp_path / "photo.png")


@pytest.mark.parametrize(
    ("version", "needed"), [("15.0.0", True), ("18.1.0", True), ("19.0.0", False), ("20.1", False)]
)
def test_what_pyav_is_asked_goes_by_its_version(version: str, needed: bool) -> None:
    assert metadata_options(version) == ({"metadata_errors": "replace"} if needed else {})


def test_a_title_that_is_not_utf8_is_no_obstacle(tmp_path: Path) -> None:
    """With whichever PyAV is here; overlay and sound are made of such a file, too."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as output:
        output.metadata["title"] = "Four"
        stream = output.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        for packet in [*stream.encode(av.VideoFrame(32, 32, "yuv420p")), *stream.encode(None)]:
            output.mux(packet)
    written = path.read_bytes()
    assert b"Four" in written
    path.write_bytes(written.replace(b"Four", b"Caf\xe9"))
    assert len(read(path)[1]) == 1


def stack(path: Path, sizes: Sequence[int], default: int) -> Path:
    """A file of square videos of one colour each, brighter from one to the next."""
    with av.open(str(path), "w") as output:
        streams: list[Any] = [output.add_stream("ffv1", rate=25) for _ in sizes]
        for index, (stream, size) in enumerate(zip(streams, sizes, strict=True)):
            stream.width = stream.height = size
            stream.pix_fmt = "yuv444p"
            stream.disposition = Disposition.default.value if index == default else 0
        for index, stream in enumerate(streams):
            value = np.full((sizes[index], sizes[index], 3), 40 * (index + 1), np.uint8)
            for number in range(3):
                frame = av.VideoFrame.from_ndarray(value, format="rgb24").reformat(format="yuv444p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("sizes", "default", "taken"),
    [((32, 96), 1, 1), ((32, 96), 0, 0), ((32, 96, 64), -1, 1), ((64, 64), -1, 0)],
)
def test_of_several_streams_the_default_one_is_read_then_the_largest(
    tmp_path: Path, sizes: tuple[int, ...], default: int, taken: int
) -> None:
    path = tmp_path / "two.nut"  # which flags no stream by itself
    footage, frames = read(stack(path, sizes, default))
    assert frames[0].picture.shape == (sizes[taken], sizes[taken], 3)
    assert abs(int(frames[0].picture[0, 0, 0]) - 40 * (taken + 1)) < 3
    (warning,) = footage.warnings
    assert (
        f"has {len(sizes)} video streams; number {taken}, {sizes[taken]} x {sizes[taken]}, is read" in warning
    )


def test_a_cover_is_never_read(tmp_path: Path) -> None:
    """It is the larger one, and nothing is the default."""
    path = tmp_path / "covered.mp4"
    with av.open(str(path), "w") as output:
        for codec, size in (("mjpeg", 96), ("libx264", 32)):
            stream: Any = output.add_stream(codec, rate=25)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p" if size == 32 else "yuvj420p"
        cover: Any
        cover, film = output.streams.video
        cover.disposition = Disposition.attached_pic.value
        for stream in (cover, film):
            for packet in [
                *stream.encode(av.VideoFrame(stream.width, stream.height, stream.pix_fmt)),
                *stream.encode(None),
            ]:
                output.mux(packet)
    data = bytearray(path.read_bytes())
    flags = data.index(b"tkhd") + 7
    assert data[flags] == 3
    data[flags] = 2  # not enabled, so not the default
    path.write_bytes(data)
    with av.open(str(path)) as written:
        found = [(one.width, one.disposition) for one in written.streams.video]
    assert sorted(found) == [(32, Disposition(0)), (96, Disposition.attached_pic)]
    footage, frames = read(path)
    assert frames[0].picture.shape == (32, 32, 3)
    assert footage.warnings == []


def test_the_aspect_of_pixels_stays_with_frames(tmp_path: Path) -> None:
    assert read(CASES / "anamorphic.mp4")[1][0].pixel_aspect == Fraction(32, 27)
    assert read(write_clip(tmp_path / "square.mp4", pictures(2)))[1][0].pixel_aspect == 1
    path = write_clip(tmp_path / "clip.mp4", pictures(2), aspect=Fraction(32, 27))
    _, frames = read(path)
    assert (frames[0].pixel_aspect, frames[0].picture.shape) == (Fraction(32, 27), (48, 64, 3))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    _, frames = read(tmp_path / "turned.mp4")
    assert (frames[0].pixel_aspect, frames[0].picture.shape) == (Fraction(27, 32), (64, 48, 3))


def hidden(count: int = 3) -> list[NDArray[np.uint8]]:
    """RGBA: red, of which the left half is transparent."""
    rgba = np.full((48, 64, 4), (*RED, 255), np.uint8)
    rgba[:, :32, 3] = 0
    return [rgba] * count


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("ffv1.mkv", "ffv1", "bgra"),
        ("deep.mkv", "ffv1", "yuva444p16le"),
        ("prores.mov", "prores_ks", "yuva444p10le"),
        ("vp9.webm", "libvpx-vp9", "yuva420p"),
        ("vp8.webm", "libvpx", "yuva420p"),
        ("rle.mov", "qtrle", "argb"),
        ("png.mov", "png", "rgba"),
        ("moving.apng", "apng", "rgba"),
    ],
)
def test_what_is_transparent_is_white(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    options = {"auto-alt-ref": "0", "crf": "8", "b": "2M"} if "vp" in codec else {}
    _, frames = read(write_clip(tmp_path / name, hidden(), codec=codec, pixels=pixels, options=options))
    assert len(frames) == 3
    for frame in frames:
        assert_colour(frame.picture[24, 10], (255, 255, 255))
        np.testing.assert_allclose(frame.picture[24, 54].astype(int), RED, atol=8)


def test_what_is_transparent_in_a_gif_is_white(tmp_path: Path) -> None:
    images = [Image.fromarray(np.roll(rgba, step, axis=0)) for step, rgba in enumerate(hidden())]
    images[1].putpixel((60, 3), (0, 0, 255, 255))
    images[2].putpixel((60, 30), (0, 255, 0, 255))
    images[0].save(tmp_path / "hidden.gif", save_all=True, append_images=images[1:], duration=40, disposal=2)
    clip = open_clip(tmp_path / "hidden.gif")
    frames = list(clip)
    assert [frame.time for frame in frames] == [0, Fraction(1, 25), Fraction(2, 25)]
    for frame in frames:
        assert frame.picture[24, 10].tolist() == [255, 255, 255]
        assert_colour(frame.picture[24, 54], RED)


def moving(count: int = 5) -> list[Image.Image]:
    """A blue square on transparent ground, each time further right."""
    images = []
    for step in range(count):
        image = Image.new("RGBA", (64, 48), (255, 0, 0, 0))
        image.paste((*BLUE, 255), (4 + 8 * step, 10, 20 + 8 * step, 30))
        images.append(image)
    return images


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif", "a.mp4", "a"])
@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_images_that_move_are_videos_whatever_they_are_called(tmp_path: Path, form: str, name: str) -> None:
    first, *others = moving()
    times = [40, 80, 40, 120, 40]
    first.save(
        tmp_path / name,
        format=form,
        save_all=True,
        append_images=others,
        duration=times,
        loop=0,
        lossless=True,
    )
    clip = open_clip(tmp_path / name)
    assert clip.frame_count in {5, None}
    frames = list(clip)
    assert clip.frame_count == 5
    assert [frame.number for frame in frames] == list(range(5))
    assert [float(frame.time) for frame in frames] == pytest.approx([0, 0.04, 0.12, 0.16, 0.28])
    for step, frame in enumerate(frames):
        assert frame.picture[0, 0].tolist() == [255, 255, 255]
        assert frame.picture[20, 12 + 8 * step].tolist() == list(BLUE)
    some = open_clip(tmp_path / name, Selection(start=1, end=3, stride=2, max_size=32))
    assert [(frame.number, frame.picture.shape) for frame in some] == [(1, (24, 32, 3)), (3, (24, 32, 3))]
    assert some.frame_count == 2
    assert [frame and frame.number for frame in clip.look_at([0, 2])] == [0, None, 2]
    with pytest.raises(InvalidInput, match="none is from 9 on"):
        list(open_clip(tmp_path / name, Selection(start=9)))
    with pytest.raises(InvalidInput, match="a rate of its own"):
        open_clip(tmp_path / name, rate=Fraction(25))


def test_the_shared_case_of_an_animated_webp() -> None:
    frames = list(open_clip(CASES / "animated.webp"))
    assert [frame.time for frame in frames] == [Fraction(step, 25) for step in range(6)]


def test_an_animation_that_is_cut_short_gives_what_is_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
    first, *others = map(Image.fromarray, noise)
    first.save(tmp_path / "whole.webp", save_all=True, append_images=others, duration=40, lossless=True)
    whole = bytearray((tmp_path / "whole.webp").read_bytes())
    place = whole.rindex(b"VP8L") + 12
    whole[place : place + 2000] = bytes(2000)
    (tmp_path / "cut.webp").write_bytes(whole)
    clip = open_clip(tmp_path / "cut.webp")
    frames = list(clip)
    assert 1 <= len(frames) < 6
    assert clip.frame_count == len(frames)
    (warning,) = clip.warnings
    assert "cannot be read beyond frame" in warning


def test_images_that_stand_still_are_no_videos(tmp_path: Path) -> None:
    for name, form in (("still.webp", "WEBP"), ("still.png", "PNG"), ("moving.png", "GIF")):
        moving(1)[0].save(tmp_path / name, format=form)
        with pytest.raises(InvalidInput, match=r"is a picture file.*sa2va segment"):
            open_clip(tmp_path / name)


def combed(path: Path, *, interlaced: bool, count: int = 12) -> Path:
    """A white bar that moves by four pixels a field, 50 fields a second: two fields woven into each frame."""

    def field(time: int) -> NDArray[np.uint8]:
        picture = np.zeros((64, 160, 3), np.uint8)
        picture[:, 8 + 4 * time : 40 + 4 * time] = 255
        return picture

    frames = []
    for index in range(count):
        frame = field(2 * index)
        if interlaced:
            frame[1::2] = field(2 * index + 1)[1::2]
        frames.append(frame)
    flags = {"flags": "+ildct+ilme", "x264-params": "tff=1"} if interlaced else {}
    return write_clip(path, frames, pixels="yuv420p", options=flags)


def combs(frames: Sequence[Frame]) -> float:
    """How much neighbouring lines differ."""
    lines = [np.abs(np.diff(frame.picture[8:-8, :, 0].astype(int), axis=0)).mean() for frame in frames]
    return float(np.mean(lines))


def test_interlaced_video_is_said_once_and_made_whole(tmp_path: Path) -> None:
    path = combed(tmp_path / "fields.mp4", interlaced=True)
    footage, as_they_are = read(path)
    list(footage)
    (warning,) = footage.warnings
    assert "is interlaced" in warning
    assert "--deinterlace" in warning
    clip = open_clip(path, deinterlace=True)
    whole = list(clip)
    assert [(frame.number, frame.time) for frame in whole] == [
        (frame.number, frame.time) for frame in as_they_are
    ]
    assert clip.warnings == []
    assert combs(as_they_are) > 5
    assert combs(whole) < combs(as_they_are) / 3
    assert [frame.number for frame in open_clip(path, Selection(start=3, stride=4), deinterlace=True)] == [
        3,
        7,
        11,
    ]


def test_whole_frames_stay_as_they_are(tmp_path: Path) -> None:
    path = combed(tmp_path / "whole.mp4", interlaced=False)
    footage, frames = read(path)
    assert footage.warnings == []
    for frame, same in zip(frames, open_clip(path, deinterlace=True), strict=True):
        np.testing.assert_array_equal(frame.picture, same.picture)


def test_one_interlaced_frame_is_one_frame(tmp_path: Path) -> None:
    assert len(list(open_clip(combed(tmp_path / "one.mp4", interlaced=True, count=1), deinterlace=True))) == 1


@pytest.mark.parametrize(
    "head", ["ffconcat version 1.0\nfile 'real.mp4'\n", "\ufeff#EXTM3U\n#EXTINF:1,\nreal.mp4\n"]
)
def test_a_file_that_names_other_files_is_read_only_where_it_is_called_a_playlist(
    tmp_path: Path, head: str
) -> None:
    """Somebody's upload could lead to any file here."""
    write_clip(tmp_path / "real.mp4", pictures(3))
    upload = tmp_path / "upload.mp4"
    upload.write_text(head, encoding="utf-8")
    with pytest.raises(InvalidInput, match="is a playlist, which names other files, and is not called one"):
        open_clip(upload)


def test_a_playlist_that_is_called_one_is_read(tmp_path: Path) -> None:
    write_clip(tmp_path / "real.mp4", pictures(3))
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile real.mp4\n")
    assert len(list(open_clip(tmp_path / "list.ffconcat"))) == 3


@pytest.mark.parametrize("name", ["upload.mp4", "list.ffconcat", "list.m3u8"])
@pytest.mark.parametrize("head", ["ffconcat version 1.0\nfile real.mp4\n", "#EXTM3U\n#EXTINF:1,\nreal.mp4\n"])
def test_an_upload_is_no_playlist_whatever_it_is_called(tmp_path: Path, name: str, head: str) -> None:
    """From a file and from memory; FFmpeg itself refuses what our look at its first bytes would miss."""
    write_clip(tmp_path / "real.mp4", pictures(3))
    upload = tmp_path / name
    upload.write_text(head)
    for source in (upload, io.BytesIO(head.encode())):
        with pytest.raises(InvalidInput, match="The video is a playlist, which names other files"):
            open_upload(source, "The video")
    with pytest.raises(av.FFmpegError):
        open_input(upload, playlists=False)
    with open_upload(tmp_path / "real.mp4", "The video") as container:
        assert len(list(container.decode(video=0))) == 3


def test_an_upload_without_video_or_with_too_large_frames_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    with pytest.raises(InvalidInput, match="The video has no video in it"):
        open_upload(tmp_path / "sound.wav", "The video")
    clip = write_clip(tmp_path / "large.mp4", pictures(2))
    monkeypatch.setattr("sa2va_host.video.clip.MAX_FRAME_BYTES", 48 * 64 * 3 - 1)
    with pytest.raises(InvalidInput, match="The frames of The video have 64 x 48 pixels"):
        open_upload(clip, "The video")


def test_frames_larger_than_the_bound_are_refused_before_any_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "large.mp4", pictures(2))
    frames = [Image.fromarray(each) for each in pictures(3)]
    frames[0].save(tmp_path / "large.webp", save_all=True, append_images=frames[1:])
    (tmp_path / "frames").mkdir()
    frames[0].save(tmp_path / "frames" / "1.png")
    monkeypatch.setattr("sa2va_host.video.clip.MAX_FRAME_BYTES", 48 * 64 * 3 - 1)
    for source in (clip, tmp_path / "large.webp", tmp_path / "frames"):
        with pytest.raises(InvalidInput, match="have 64 x 48 pixels, more than 0 MiB as RGB"):
            open_clip(source)
    monkeypatch.setattr("sa2va_host.video.clip.MAX_FRAME_BYTES", 48 * 64 * 3)
    assert len(list(open_clip(clip))) == 2


def test_a_selection_by_numbers_from_elsewhere_is_counted_right(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", pictures(6))
    clip = open_clip(tmp_path / "clip.mp4", Selection(start=1002, end=1004), first_frame=1001)
    assert clip.frame_count == 3
    assert [frame.number for frame in clip] == [1002, 1003, 1004]
    for wrong in (Selection(start=1), Selection(end=3), Selection(start=1000, end=1003)):
        with pytest.raises(InvalidInput, match="but the first one of the file is called 1001"):
            open_clip(tmp_path / "clip.mp4", wrong, first_frame=1001)
