"""`sa2va video` broken off and gone on with: what is kept, what is resumed, and what is left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from sa2va_host.video.clip import open_clip
from tests.clips import pictures, write_clip

from .conftest import PROGRAM, contents, files


def test_a_folder_that_holds_a_run_is_left_alone(sa2va, clip, tmp_path):
    sa2va("video", clip, "--prompt", "objects=1", "--save", "rle", "-o", "out")
    before = contents(tmp_path / "out")
    again = sa2va("video", clip, "--prompt", "objects=1", "--save", "rle", "-o", "out")
    assert again.returncode == 2
    assert "--resume" in again.stderr
    other = sa2va(
        "video", clip, "--prompt", "objects=1", "--save", "rle", "-o", "out", "--resume", "--threshold", "0.2"
    )
    assert other.returncode == 2
    assert "other settings: masks" in other.stderr
    assert contents(tmp_path / "out") == before


def test_a_folder_that_another_run_writes_into_is_left_alone(sa2va, clip, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.sa2va.lock"):
        done = sa2va("video", clip, "--prompt", "objects=1", "--save", "rle", "-o", "out")
    assert done.returncode == 2
    assert "Another sa2va writes into out." in done.stderr
    assert files(tmp_path / "out") <= {".sa2va.lock"}


def test_a_run_is_not_resumed_with_another_video_in_the_place_of_its_own(sa2va, clip, tmp_path):
    run = ("video", clip, "--prompt", "objects=1", "--save", "rle", "-o", "out")
    assert sa2va(*run).returncode == 0
    clip.unlink()
    write_clip(clip, pictures(20))
    done = sa2va(*run, "--resume")
    assert done.returncode == 2
    assert "other settings: input's files" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_keeps_its_frames_and_resumed_is_whole(sa2va, environment, clip, tmp_path, how):
    save = ("--save", "masks,rle,overlay")
    whole = sa2va("video", clip, "--prompt", "objects=2 pause=0.1", *save, "-o", "whole")
    assert whole.returncode == 0, whole.stderr
    run = ("video", str(clip), "--prompt", "objects=2 pause=0.1", *save, "-o", "broken")
    process = subprocess.Popen(
        [*PROGRAM, *run],
        env=environment,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    masks = tmp_path / "broken" / "masks"
    while len(list(masks.rglob("*.png"))) < 10:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, how)
    _, said = process.communicate(timeout=30)
    left = len(list(masks.rglob("*.png")))
    assert 10 <= left < 40
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert f"{left // 2} frames are in broken" in said
        assert len(list(open_clip(tmp_path / "broken/overlay.mp4"))) == left // 2
    for folder in (next(masks.iterdir()), tmp_path / "broken"):
        (folder / ".00003.png.0123abcd.part").touch()  # as a kill in the middle of a file leaves it
    done = sa2va(*run, "--resume")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_a_frame_that_cannot_be_read_is_passed_over(sa2va, tmp_path):
    (tmp_path / "shots").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    for number, picture in enumerate(noise):
        Image.fromarray(picture).save(tmp_path / f"shots/{number}.png")
    (tmp_path / "shots/30.png").write_bytes((tmp_path / "shots/30.png").read_bytes()[:3000])
    done = sa2va("video", "shots", "--prompt", "objects=1", "--save", "rle", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "30.png is damaged or cut short" in done.stderr
    lines = (tmp_path / "out/rle.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == [*range(30), *range(31, 40)]


def test_a_video_that_changes_its_size_leaves_the_frames_before_that(sa2va, tmp_path):
    large = write_clip(tmp_path / "large.ts", pictures(40)).read_bytes()
    small = write_clip(tmp_path / "small.ts", pictures(10, (32, 32))).read_bytes()
    (tmp_path / "both.ts").write_bytes(large + small)
    done = sa2va("video", "both.ts", "--prompt", "objects=1", "--save", "rle", "-o", "out")
    assert done.returncode == 2
    assert "is 32 x 32 pixels, the first one 64 x 48" in done.stderr
    kept = len((tmp_path / "out/rle.jsonl").read_text().splitlines())
    assert kept == 40, "all of them"
    assert f"{kept} frames are in out" in done.stderr
    assert "--resume" not in done.stderr, "the frame will be of that size again"
