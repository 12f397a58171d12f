"""What a recording leaves: every kind can be read back, an interrupted one keeps its frames and goes on as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
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
from sa2va_host.output.recording import ALPHA_CODECS, KINDS, Recording, checked_kinds
from sa2va_host.output.run_note import RunNote
from sa2va_host.video.clip import Clip, Frame, Selection, open_clip
from sa2va_host.video.footage import Footage
from tests.clips import TICK, pictures, write_clip

WITHOUT_EXR = [kind for kind in KINDS if kind != "exr"]
TICKS = [0, 1001, 2500, 3003, 4004, 5005, 6006, 9009, 9010, 12012]
ROOT = Path(__file__).parents[2]


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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", pictures(10), ticks=TICKS, sound="aac")


def read(path: Path) -> tuple[str, NDArray[np.uint8]]:
    with Image.open(path) as image:
        return image.mode, np.asarray(image)


def test_every_kind_lies_where_it_is_said_to(tmp_path: Path, source: Path) -> None:
    recording = record(tmp_path / "out", open_clip(source), WITHOUT_EXR)
    assert recording.frames == 10
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "masks", "matte", "cutout", "overlay.mp4", "alpha", "rle.jsonl", "Annotations", "meta.json",
    }  # fmt: skip
    assert all(path.exists() for path in recording.paths.values())
    numbers = [f"{number:05d}.png" for number in range(10)]
    for folder in ("masks/corner", "masks/ghost", "matte/ghost", "cutout/corner", "Annotations/clip"):
        assert sorted(path.name for path in (tmp_path / "out" / folder).iterdir()) == numbers


def test_files_of_frames_hold_mask_matte_and_cutout(tmp_path: Path, source: Path) -> None:
    clip = open_clip(source, Selection(start=3, end=3))
    frames = list(clip)
    (corner, _) = layers(frames[0])
    record(tmp_path, clip, ["masks", "matte", "cutout", "davis"])
    mode, mask = read(tmp_path / "masks/corner/00003.png")
    assert mode == "L"
    np.testing.assert_array_equal(mask, corner.mask * 255)
    mode, matte = read(tmp_path / "matte/corner/00003.png")
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
    np.testing.assert_array_equal(values, layers(frame)[0].probability)


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


def test_a_broken_run_resumed_is_what_an_unbroken_one_is(tmp_path: Path, source: Path) -> None:
    record(tmp_path / "whole", open_clip(source), WITHOUT_EXR)
    record(tmp_path / "broken", open_clip(source), WITHOUT_EXR, frames=4)
    kept = contents(tmp_path / "broken")
    assert len([name for name in kept if name.startswith("masks/corner")]) == 4
    assert len(kept["rle.jsonl"].splitlines()) == 4
    (tmp_path / "broken/rle.jsonl").write_bytes(kept["rle.jsonl"] + b'{"frame": 4, "obj')
    (tmp_path / "broken/masks/corner/00002.png").touch()
    before = (tmp_path / "broken/masks/corner/00001.png").stat().st_mtime_ns
    (tmp_path / "broken/masks/corner/00002.png").write_bytes(kept["masks/corner/00002.png"])
    record(tmp_path / "broken", open_clip(source), WITHOUT_EXR, resume=True)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert (tmp_path / "broken/masks/corner/00001.png").stat().st_mtime_ns == before


def test_what_fails_in_the_middle_leaves_videos_that_play(tmp_path: Path, source: Path) -> None:
    def fail() -> None:
        clip = open_clip(source)
        with Recording(tmp_path, clip, ["overlay", "rle"]) as recording:
            for frame in clip:
                if frame.number == 6:
                    raise ZeroDivisionError
                recording.add(frame, layers(frame))

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(list(open_clip(tmp_path / "overlay.mp4"))) == 6
    assert len((tmp_path / "rle.jsonl").read_text().splitlines()) == 6


def in_a_process_of_its_own(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )


def test_a_killed_run_keeps_its_frames(tmp_path: Path, source: Path) -> None:
    code = """
import os, signal, sys, time
from pathlib import Path
from sa2va_host.video.clip import open_clip
from sa2va_host.output.recording import Recording
from tests.host.test_recording import WITHOUT_EXR, layers
clip = open_clip(sys.argv[1])
recording = Recording(sys.argv[2], clip, WITHOUT_EXR)
for frame in clip:
    recording.add(frame, layers(frame))
while recording.frames < 10:
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = in_a_process_of_its_own(code, source, tmp_path / "out")
    assert done.returncode < 0, done.stderr
    out = tmp_path / "out"
    assert len(list((out / "masks/corner").iterdir())) == 10
    assert len((out / "rle.jsonl").read_text().splitlines()) == 10
    assert len(list(open_clip(out / "overlay.unfinished.mp4"))) >= 9
    assert len(list(open_clip(out / "alpha/corner.unfinished.mov"))) >= 9


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
def test_a_disk_that_fills_when_the_sound_comes_in_is_said_and_the_video_stays(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "clip.mp4", pictures(90, (48, 400)), sound="ac3")
    code = """
import resource, sys
from pathlib import Path
from sa2va_host.video.clip import open_clip
from sa2va_host.output.recording import Recording
from tests.host.test_recording import layers
clip = open_clip(sys.argv[1])
try:
    with Recording(sys.argv[2], clip, ["overlay"]) as recording:
        for frame in clip:
            recording.add(frame, layers(frame))
        while recording.frames < 90:
            pass
        limit = Path(sys.argv[2], "overlay.unfinished.mp4").stat().st_size + 6000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
except OSError as error:
    print(error.strerror, error.filename, sep="|")
"""
    done = in_a_process_of_its_own(code, source, tmp_path / "out")
    assert done.stdout.strip() == f"File too large|{tmp_path / 'out' / 'overlay.mp4'}", done.stderr
    assert len(list(open_clip(tmp_path / "out" / "overlay.unfinished.mp4"))) == 90
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["overlay.unfinished.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
def test_a_disk_that_fills_at_the_last_byte_of_an_exr_is_said(tmp_path: Path) -> None:
    pytest.importorskip("OpenEXR", reason="an optional extra")
    code = """
import resource, sys
import numpy as np
from sa2va_host import media
values = np.random.default_rng(0).random((20, 20), np.float32)
limit = media.write_exr(sys.argv[1], values).stat().st_size - 1
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    media.write_exr(sys.argv[1] + ".exr", values)
except OSError as error:
    print(error.strerror, error.filename, sep="|")
"""
    done = in_a_process_of_its_own(code, tmp_path / "whole.exr")
    assert done.stdout.strip() == f"File too large|{tmp_path / 'whole.exr.exr'}", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["whole.exr"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
@pytest.mark.parametrize(
    ("kind", "name"), [("overlay", "overlay"), ("rle", "rle.jsonl"), ("matte", "matte"), ("exr", "exr")]
)
def test_a_disk_that_fills_is_said_and_finished_frames_stay(tmp_path: Path, kind: str, name: str) -> None:
    """A limit on the size of files stands in for the full disk: the system refuses in the same place."""
    noise = list(np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8))
    source = write_clip(tmp_path / "clip.mp4", noise)
    code = """
import resource, sys
import numpy as np
from sa2va_host.video.clip import open_clip
from sa2va_host.output.layers import Layer
from sa2va_host.output.recording import Recording
clip = open_clip(sys.argv[1])
random = np.random.default_rng(0)
limit = {"overlay": 30000, "rle": 8000, "matte": 5000, "exr": 5000}[sys.argv[3]]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with Recording(sys.argv[2], clip, [sys.argv[3]]) as recording:
        for frame in clip:
            noisy = random.random(frame.picture.shape[:2], dtype=np.float32)
            flat = np.full_like(noisy, 0.7)
            probability = noisy if sys.argv[3] not in ("matte", "exr") or frame.number > 5 else flat
            recording.add(frame, [Layer("a", probability, probability > 0.5)])
except OSError as error:
    print(recording.frames, error.strerror, error.filename, sep="|")
"""
    done = in_a_process_of_its_own(code, source, tmp_path / "out", kind)
    frames, said, file = done.stdout.strip().split("|")
    assert said == "File too large"
    assert name in file
    assert int(frames) > 3
    if kind == "rle":
        lines = (tmp_path / "out" / "rle.jsonl").read_text().splitlines()
        assert [json.loads(line)["frame"] for line in lines] == list(range(int(frames)))
    elif kind in ("matte", "exr"):
        assert len(list((tmp_path / f"out/{kind}/a").glob("0*"))) == int(frames)
        assert not list((tmp_path / f"out/{kind}/a").glob(".*"))
    else:
        assert len(list(open_clip(next((tmp_path / "out").glob("overlay*.mp4"))))) >= int(frames) - 2


def test_kinds_are_checked_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert checked_kinds(["rle", " masks", "rle"]) == ("masks", "rle")
    with pytest.raises(InvalidInput, match="saved as 'mask'"):
        checked_kinds(["mask"])
    monkeypatch.setitem(sys.modules, "av", None)
    assert checked_kinds(["masks", "davis"])
    with pytest.raises(ConfigError, match=r"sa2va-host\[video\]"):
        checked_kinds(["alpha"])


SETTINGS = {"threshold": 0.5, "prompts": ["a", "b"]}


def test_a_folder_knows_the_run_that_it_holds(tmp_path: Path) -> None:
    with RunNote(tmp_path, SETTINGS, resume=False) as note:
        assert not list(tmp_path.iterdir())
        note.begin()
    with pytest.raises(InvalidInput, match="holds a run already"):
        RunNote(tmp_path, SETTINGS, resume=False)
    with pytest.raises(InvalidInput, match="other settings: threshold"):
        RunNote(tmp_path, {**SETTINGS, "threshold": 0.4}, resume=True)
    with RunNote(tmp_path, {**SETTINGS, "prompts": ("a", "b")}, resume=True) as resumed:
        resumed.finish({"frames": 3})
    assert json.loads((tmp_path / "run.json").read_text())["frames"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"], "the lock is gone"
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InvalidInput, match="damaged"):
        RunNote(tmp_path, {"threshold": 0.5}, resume=True)


def test_a_folder_is_written_by_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        RunNote(tmp_path, SETTINGS, resume=False) as first,
        RunNote(tmp_path, SETTINGS, resume=False) as second,
    ):
        first.begin()
        with pytest.raises(InvalidInput, match="Another sa2va writes into"):
            second.begin()
        with pytest.raises(InvalidInput, match="Another sa2va writes into"):
            RunNote(tmp_path, SETTINGS, resume=True)
    with RunNote(tmp_path / "later", SETTINGS, resume=False) as late:
        with RunNote(tmp_path / "later", SETTINGS, resume=False) as quick:
            quick.begin()
            quick.finish({})
        with pytest.raises(InvalidInput, match="holds a run already"):
            late.begin()


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
