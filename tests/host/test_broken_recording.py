"""A recording that is broken off, by an error, a kill or a full disk, keeps its frames, and resumed it is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sa2va_host.output.recording import Recording
from sa2va_host.video.clip import open_clip
from tests.clips import pictures, write_clip
from tests.recordings import WITHOUT_EXR, contents, layers, record

ROOT = Path(__file__).parents[2]


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
from tests.recordings import WITHOUT_EXR, layers
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
from tests.recordings import layers
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
from sa2va_host.exr import write_exr
values = {"Y": np.random.default_rng(0).random((20, 20), np.float32)}
limit = write_exr(sys.argv[1], values).stat().st_size - 1
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write_exr(sys.argv[1] + ".exr", values)
except OSError as error:
    print(error.strerror, error.filename, sep="|")
"""
    done = in_a_process_of_its_own(code, tmp_path / "whole.exr")
    assert done.stdout.strip() == f"File too large|{tmp_path / 'whole.exr.exr'}", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["whole.exr"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
@pytest.mark.parametrize(
    ("kind", "name"),
    [("overlay", "overlay"), ("rle", "rle.jsonl"), ("probability", "probability"), ("exr", "exr")],
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
limit = {"overlay": 30000, "rle": 8000, "probability": 5000, "exr": 5000}[sys.argv[3]]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with Recording(sys.argv[2], clip, [sys.argv[3]]) as recording:
        for frame in clip:
            noisy = random.random(frame.picture.shape[:2], dtype=np.float32)
            flat = np.full_like(noisy, 0.7)
            probability = noisy if sys.argv[3] not in ("probability", "exr") or frame.number > 5 else flat
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
    elif kind in ("probability", "exr"):
        assert len(list((tmp_path / f"out/{kind}/a").glob("0*"))) == int(frames)
        assert not list((tmp_path / f"out/{kind}/a").glob(".*"))
    else:
        assert len(list(open_clip(next((tmp_path / "out").glob("overlay*.mp4"))))) >= int(frames) - 2
