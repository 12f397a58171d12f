"""A batch goes on: what fails belongs to its own image, and all that was done is printed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from .conftest import PROGRAM, files


@pytest.fixture
def shots(picture, tmp_path):
    """Eight images."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(8):
        shutil.copy(picture, folder / f"p{number}.png")
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="the length of names is POSIX's")
@pytest.mark.parametrize("letter", ["x", "\U0001f600"])
def test_a_name_that_is_too_long_fails_one_image(sa2va, shots, tmp_path, letter):
    size = len(letter.encode())
    (shots / "p1.png").rename(shots / f"p1{letter * (238 // size)}.png")
    done = sa2va("segment", "shots", "-p", "objects=1", "--save", "probability", "-o", "out", "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert len(document["results"]) == 7
    (failure,) = document["errors"]
    assert failure["image"].startswith("shots/p1")
    assert failure["error"] == f"out/p1{letter * (238 // size)}.0.probability.png: File name too long."
    assert failure["error"] in done.stderr
    assert "1 of 8 images failed" in done.stderr
    assert files(tmp_path / "out") == {f"p{number}.0.probability.png" for number in (0, 2, 3, 4, 5, 6, 7)}


@pytest.mark.skipif(sys.platform == "win32", reason="the length of names is POSIX's")
def test_a_name_that_just_fits_is_written(sa2va, picture, tmp_path):
    name = "\U0001f600" * 58
    picture.rename(tmp_path / f"{name}.png")
    done = sa2va("segment", f"{name}.png", "-p", "objects=1", "--save", "overlay", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == {f"{name}.overlay.png"}


def test_an_output_that_is_in_the_way_and_a_damaged_image(sa2va, shots, tmp_path):
    (tmp_path / "out/p5.overlay.png").mkdir(parents=True)
    (shots / "p2.png").write_bytes((shots / "p2.png").read_bytes()[:60])
    run = ("segment", "shots", "-p", "objects=1", "-o", "out", "--overwrite")
    done = sa2va(*run, "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert [error["image"] for error in document["errors"]] == ["shots/p2.png", "shots/p5.png"]
    assert "p5.overlay.png" in document["errors"][1]["error"]
    assert len(document["results"]) == 6
    lines = sa2va(*run).stderr.splitlines()
    assert [line for line in lines if "p2.png" in line or "p5" in line] == lines[:-1]


def test_the_time_is_that_of_the_wall(sa2va, shots):
    begun = time.monotonic()
    done = sa2va("segment", "shots", "-p", "steps=4 pause=0.1", "--save", "none", "--json")
    took = time.monotonic() - begun
    document = json.loads(done.stdout)
    alone = [result["timings"]["total"] for result in document["results"]]
    assert document["timings"]["total"] <= took
    assert document["timings"]["total"] < sum(alone), "they wait for each other, which is no time of the run"
    assert all(seconds >= 0.4 for seconds in alone)


def test_a_worker_that_is_killed_costs_no_image(sa2va, shots, environment, tmp_path):
    """What was in work is asked again; another image could have been to blame."""
    command = [
        *PROGRAM,
        "segment",
        "shots",
        "-p",
        "steps=3 pause=0.1",
        "-o",
        "out",
        "--save",
        "masks",
        "--json",
    ]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        while not list((tmp_path / "out").glob("p0*")):
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        (worker,) = json.loads(sa2va("ps", "--json").stdout)["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        out, err = running.communicate(timeout=50)
    assert running.returncode == 0, err
    assert [result["image"] for result in json.loads(out)["results"]] == [f"shots/p{n}.png" for n in range(8)]


def test_a_worker_that_no_image_survives_ends_the_batch_and_the_document_is_whole(sa2va, shots):
    done = sa2va("segment", "shots", "-p", "die=SIGKILL", "--save", "none", "--json")
    assert done.returncode == 4
    document = json.loads(done.stdout)
    assert document["results"] == []
    assert 1 <= len(document["errors"]) <= 3
    assert len(document["errors"]) + len(document["left"]) == 8


def test_ctrl_c_prints_what_is_done(sa2va, shots, environment, tmp_path):
    command = [
        *PROGRAM,
        "segment",
        "shots",
        "-p",
        "steps=3 pause=0.2",
        "-o",
        "out",
        "--save",
        "masks",
        "--json",
    ]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        while not list((tmp_path / "out").glob("p1*")):
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert err.splitlines()[-1] == "Cancelled."
    document = json.loads(out)
    done = [result["image"] for result in document["results"]]
    assert 1 <= len(done) < 8
    assert len(done) + len(document["left"]) == 8
    assert files(tmp_path / "out") == {f"{name[6:8]}.0.png" for name in done}, (
        "what is written is in the document"
    )


def test_a_processor_without_its_checkpoint_is_known_before_the_model_is_asked(sa2va, picture, clip):
    for words in (("segment", "picture.png"), ("video", clip)):
        done = sa2va(*words, "-p", "objects=1", "--process", "vitmatte:model=no/where", "-o", "out")
        assert done.returncode == 3
        assert "no/where is not on this machine" in done.stderr
    assert sa2va("ps").stdout == "No worker is running.\n"


def test_a_video_that_is_broken_off_prints_its_document(environment, clip, tmp_path):
    command = [
        *PROGRAM,
        "video",
        str(clip),
        "-p",
        "objects=1 pause=0.1",
        "-o",
        "out",
        "--save",
        "masks",
        "--json",
    ]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        while len(list((tmp_path / "out").rglob("*.png"))) < 5:
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=30)
    assert running.returncode == 130
    document = json.loads(out)
    assert (document["finished"], document["error"]) == (False, "Cancelled.")
    assert document["frames"] == len(list((tmp_path / "out").rglob("*.png")))
