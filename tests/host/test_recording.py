"""What a recording leaves: every kind can be read back, at the times and with the numbers of its frames."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sa2va_host.errors import ConfigError, InvalidInput
from sa2va_host.masks import regions
from sa2va_host.output.layers import Layer
from sa2va_host.output.movie import H264, PRORES_4444, VP9_ALPHA, Codec, Movie
from sa2va_host.output.recording import ALPHA_CODECS, Recording, checked_kinds
from sa2va_host.video.clip import Selection, open_clip
from sa2va_host.video.footage import Footage
from tests.clips import TICK, pictures, write_clip
from tests.recordings import TICKS, WITHOUT_EXR, layers, record


def read(path: Path) -> tuple[str, NDArray[np.uint8]]:
    with Image.open(path) as image:
        return image.mode, np.asarray(image)


def test_every_kind_lies_where_it_is_said_to(tmp_path: Path, source: Path) -> None:
    recording = record(tmp_path / "out", open_clip(source), WITHOUT_EXR)
    assert recording.frames == 10
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "masks", "probability", "cutout", "overlay.mp4", "alpha", "rle.jsonl", "Annotations", "meta.json",
    }  # fmt: skip
    assert all(path.exists() for path in recording.paths.values())
    numbers = [f"{number:05d}.png" for number in range(10)]
    for folder in ("masks/corner", "masks/ghost", "probability/ghost", "cutout/corner", "Annotations/clip"):
        assert sorted(path.name for path in (tmp_path / "out" / folder).iterdir()) == numbers


def test_files_of_frames_hold_mask_matte_and_cutout(tmp_path: Path, source: Path) -> None:
    clip = open_clip(source, Selection(start=3, end=3))
    frames = list(clip)
    (corner, _) = layers(frames[0])
    record(tmp_path, clip, ["masks", "probability", "cutout", "davis"])
    mode, mask = read(tmp_path / "masks/corner/00003.png")
    assert mode == "L"
    np.testing.assert_array_equal(mask, corner.mask * 255)
    mode, matte = read(tmp_path / "probability/corner/00003.png")
    assert mode.startswith("I;16")
    np.testing.assert_array_equal(matte, np.rint(corner.probability * 65535))
    mode, cutout = read(tmp_path / "cutout/corner/00003.png")
    assert mode == "RGBA"
    np.testing.assert_array_equal(cutout[:, :, 3] > 0, corner.mask)
    assert not read(tmp_path / "masks/ghost/00003.png")[1].any()


def test_label_maps_are_palettes_in_which_the_surer_object_wins(tmp_path: Path, source: Path) -> None:
    clip = open_clip(source, Selection(end=0))
    (frame,) = clip
    half = np.zeros(frame.picture.shape[:2], np.float32)
    half[:, :30], left = 0.6, half.copy()
    left[:, :10] = 0.9
    with Recording(tmp_path, clip, ["davis"]) as recording:
        recording.add(frame, [Layer("half", half, half > 0.5), Layer("left", left - 0.1, left > 0.65)])
    mode, labels = read(tmp_path / "Annotations/clip/00000.png")
    assert mode == "P"
    assert (labels[:, :10] == 2).all()
    assert (labels[:, 10:30] == 1).all()
    assert not labels[:, 30:].any()


def test_beside_label_maps_it_says_which_frames_show_which_object(tmp_path: Path, source: Path) -> None:
    clip = open_clip(source, Selection(start=3))
    record(tmp_path, clip, ["davis"], frames=5)
    record(tmp_path, clip, ["davis"], resume=True)
    (video,) = json.loads((tmp_path / "meta.json").read_text())["videos"].items()
    shown = [f"{number:05d}" for number in range(3, 10)]
    corner, ghost = {"category": "corner", "frames": shown}, {"category": "ghost", "frames": []}
    assert video == ("clip", {"objects": {"1": corner, "2": ghost}})


def test_exr_is_the_probability_itself(tmp_path: Path, source: Path) -> None:
    exr = pytest.importorskip("OpenEXR", reason="an optional extra")
    clip = open_clip(source, Selection(end=0))
    (frame,) = clip
    record(tmp_path, clip, ["exr"])
    values = exr.File(str(tmp_path / "exr/corner/00000.exr")).channels()["Y"].pixels
    assert values.dtype == np.float16
    np.testing.assert_array_equal(values, layers(frame)[0].probability)  # 0 and 0.75


def test_run_lengths_are_a_line_for_each_frame(tmp_path: Path, source: Path) -> None:
    record(tmp_path, open_clip(source), ["rle"])
    lines = [json.loads(line) for line in (tmp_path / "rle.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(10))
    assert lines[3]["time"] == pytest.approx(TICKS[3] / 30000)
    for line, frame in zip(lines, open_clip(source), strict=True):
        (corner, ghost) = line["objects"]
        np.testing.assert_array_equal(regions.decode(corner["rle"]), layers(frame)[0].mask)
        assert (corner["id"], corner["name"], corner["presence"]) == (1, "corner", 0.9)
        assert (ghost["name"], ghost["area"], ghost["box"]) == ("ghost", 0, None)


def test_the_overlay_keeps_times_colours_and_sound(tmp_path: Path, source: Path) -> None:
    record(tmp_path, open_clip(source, Selection(start=2)), ["overlay"])
    overlay = Footage(tmp_path / "overlay.mp4", Selection())
    frames = list(overlay)
    assert [frame.time for frame in frames] == [(tick - TICKS[2]) * TICK for tick in TICKS[2:]]
    np.testing.assert_allclose(frames[4].picture[2, 2].astype(int), (10, 20, 240), atol=12)
    with av.open(str(tmp_path / "overlay.mp4")) as container, av.open(str(source)) as original:
        assert container.streams.video[0].codec_context.name == "h264"
        kept = [bytes(packet) for packet in container.demux(audio=0)]
        sound = [bytes(packet) for packet in original.demux(audio=0)]
    assert len(kept) > 5
    assert b"".join(kept) in b"".join(sound), "copied, not encoded again"
    assert len(kept) < len(sound), "what was heard before the first frame is left out"
    assert not list(tmp_path.glob("*unfinished*"))


def test_odd_sides_are_filled_up_for_the_overlay(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "odd.mkv", pictures(3, (47, 63)), codec="ffv1", pixels="yuv444p")
    record(tmp_path / "out", open_clip(source), ["overlay", "masks"])
    assert next(iter(open_clip(tmp_path / "out/overlay.mp4"))).picture.shape == (48, 64, 3)
    assert read(tmp_path / "out/masks/corner/00000.png")[1].shape == (47, 63)


@pytest.mark.parametrize(("name", "suffix"), [("prores", ".mov"), ("vp9", ".webm")])
def test_alpha_videos_hold_the_probability(tmp_path: Path, source: Path, name: str, suffix: str) -> None:
    clip = open_clip(source)
    with Recording(tmp_path, clip, ["alpha"], alpha=ALPHA_CODECS[name]) as recording:
        for frame in clip:
            recording.add(frame, layers(frame))
    path = tmp_path / f"alpha/corner{suffix}"
    # FFmpeg's own VP9 decoder leaves alpha out.
    decoder = av.CodecContext.create("libvpx-vp9" if name == "vp9" else "prores", "r")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if name == "prores":
            frames = [one.to_ndarray(format="rgba") for one in container.decode(stream)]
        else:
            frames = [
                one.to_ndarray(format="rgba")
                for packet in container.demux(stream)
                for one in decoder.decode(packet)
            ]
    assert len(frames) == 10
    assert abs(int(frames[4][4, 4, 3]) - 0.75 * 255) <= 3
    assert frames[4][-4, -4, 3] <= 2


def test_sound_that_does_not_fit_is_left_out_and_said(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "clip.mkv", pictures(5), sound="pcm_u8")
    recording = record(tmp_path / "out", open_clip(source), ["overlay"])
    assert len(list(open_clip(tmp_path / "out/overlay.mp4"))) == 5
    (warning,) = recording.warnings
    assert "does not fit into overlay.mp4" in warning


def test_kinds_are_checked_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert checked_kinds(["rle", " masks", "rle"]) == ("masks", "rle")
    with pytest.raises(InvalidInput, match="saved as 'mask'"):
        checked_kinds(["mask"])
    monkeypatch.setitem(sys.modules, "av", None)
    assert checked_kinds(["masks", "davis"])
    with pytest.raises(ConfigError, match="pip install 'av>="):
        checked_kinds(["alpha"])


def test_numbers_of_files_are_numbers_of_outputs(tmp_path: Path) -> None:
    for number in (1001, 1002):
        Image.fromarray(pictures(1)[0]).save(tmp_path / f"shot.{number}.png")
    record(
        tmp_path / "out",
        open_clip(tmp_path / "shot.####.png", rate=Fraction(25)),
        ["masks", "davis"],
        frames=9999,
    )
    assert [path.name for path in sorted((tmp_path / "out/masks/corner").iterdir())] == [
        "1001.png",
        "1002.png",
    ]
    assert (tmp_path / "out/Annotations/shot/1001.png").exists()


def probe(path: Path, *entries: str) -> dict[str, str]:
    """What Debian's ffprobe, another program than the one that wrote it, says of the video stream."""
    program = shutil.which("ffprobe")
    if program is None:
        pytest.skip("ffprobe is not installed (apt-get install ffmpeg)")
    said = subprocess.run(
        [program, "-v", "error", "-select_streams", "v:0", "-show_streams", "-of", "json", str(path)],
        check=True, capture_output=True,
    )  # fmt: skip
    (stream,) = json.loads(said.stdout)["streams"]
    tags = {f"tag:{name.lower()}": value for name, value in stream.get("tags", {}).items()}
    return {entry: {**stream, **tags}.get(entry, "") for entry in entries}


def test_alpha_videos_say_that_they_have_alpha(tmp_path: Path, source: Path) -> None:
    for name, codec in ALPHA_CODECS.items():
        with Recording(tmp_path / name, open_clip(source), ["alpha"], alpha=codec) as recording:
            for frame in open_clip(source):
                recording.add(frame, layers(frame))
    mov = probe(tmp_path / "prores/alpha/corner.mov", "codec_tag_string", "pix_fmt", "profile")
    assert (mov["codec_tag_string"], mov["profile"]) == ("ap4h", "4444")
    assert mov["pix_fmt"].startswith("yuva444p")
    assert probe(tmp_path / "vp9/alpha/corner.webm", "tag:alpha_mode") == {"tag:alpha_mode": "1"}


@pytest.mark.parametrize("turned", [False, True])
def test_videos_have_the_pixels_aspect_of_their_source(tmp_path: Path, turned: bool) -> None:
    source = write_clip(tmp_path / "wide.mp4", pictures(3), aspect=Fraction(32, 27))
    if turned:
        data = bytearray(source.read_bytes())
        matrix = data.index(b"tkhd") + 44
        data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
        source.write_bytes(data)
    for name, codec in ALPHA_CODECS.items():
        with Recording(tmp_path / name, open_clip(source), ["overlay", "alpha"], alpha=codec) as recording:
            for frame in open_clip(source):
                recording.add(frame, layers(frame))
    aspect = "27:32" if turned else "32:27"
    for path in ("prores/overlay.mp4", "prores/alpha/corner.mov", "vp9/alpha/corner.webm"):
        width, height = (48, 64) if turned else (64, 48)
        assert probe(tmp_path / path, "sample_aspect_ratio", "width", "height") == {
            "sample_aspect_ratio": aspect, "width": width, "height": height,
        }  # fmt: skip
        assert next(iter(open_clip(tmp_path / path))).pixel_aspect == Fraction(aspect.replace(":", "/"))
        assert len(list(open_clip(tmp_path / path))) == 3


@pytest.mark.parametrize(("codec", "unit"), [(H264, 24), (PRORES_4444, 10_000_000), (VP9_ALPHA, 24)])
def test_no_video_holds_a_time_that_its_container_cannot_represent(
    tmp_path: Path, codec: Codec, unit: int
) -> None:
    movie = Movie(tmp_path / "long", codec, rate=Fraction(24), time_base=Fraction(1, unit))
    picture = np.zeros((32, 32, 4 if codec.tag or codec.metadata else 3), np.uint8)
    for time in (0, 1, 2_083_334, 2_083_335):
        movie.add(picture, Fraction(time))
    remark = movie.close()
    assert "cannot show a frame for so long" in remark
    times = [frame.time for frame in Footage(movie.path, Selection())]
    longest = min(3600, 2**30 / unit)
    assert [float(time) for time in times] == pytest.approx([0, 1, 1 + longest, 2 + longest], abs=0.002)


def test_a_source_whose_title_is_no_utf8_gives_its_sound(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", pictures(30), sound="aac")
    named = path.read_bytes()
    assert named.count(b"VideoHandler") == 1
    path.write_bytes(named.replace(b"VideoHandler", b"Vid\xe9oHandler"))
    recording = record(tmp_path / "out", open_clip(path), ["overlay"])
    assert recording.warnings == []
    assert Footage(tmp_path / "out/overlay.mp4", Selection()).audio is not None
