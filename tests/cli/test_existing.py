"""No output is written over without a word: `segment` and `video` name what is there, and have the same options."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from .conftest import contents, files
from .test_commands import mask_of

SEGMENT = ("segment", "picture.png", "-o", "out", "-p")


@pytest.fixture
def three(picture, tmp_path):
    for name in "abc":
        shutil.copy(picture, tmp_path / f"{name}.png")
    return ("segment", "a.png", "b.png", "c.png", "-o", "out", "-p")


def test_what_is_there_is_named_and_nothing_is_done(sa2va, picture, tmp_path):
    sa2va(*SEGMENT, "objects=2")
    before = contents(tmp_path / "out")
    done = sa2va(*SEGMENT, "objects=1", "--threshold", "0.99")
    assert done.returncode == 2
    assert "picture.0.png exists already, and so do 2 more outputs" in done.stderr
    assert "--overwrite" in done.stderr
    assert "--skip-existing" in done.stderr
    assert contents(tmp_path / "out") == before


def test_a_file_that_only_another_object_would_have_counts_too(sa2va, picture, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/picture.1.png").write_text("mine")
    done = sa2va(*SEGMENT, "objects=2")
    assert done.returncode == 2
    assert "picture.1.png exists already" in done.stderr
    assert files(tmp_path / "out") == {"picture.1.png"}
    assert sa2va(*SEGMENT, "objects=2", "--save", "rle").returncode == 0, "of other kinds nothing is there"


def test_overwriting_leaves_no_object_of_the_earlier_run(sa2va, picture, tmp_path):
    sa2va(*SEGMENT, "objects=3", "--save", "masks,cutout")
    Image.new("RGB", (64, 48), (1, 2, 3)).save(tmp_path / "out/picture.4.png")
    done = sa2va(*SEGMENT, "objects=1", "--save", "masks,cutout", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == {"picture.0.png", "picture.0.cutout.png", "picture.4.png"}, (
        "what only looks like a mask by its name stays"
    )
    none = sa2va(*SEGMENT, "objects=0", "--save", "masks,cutout", "--overwrite")
    assert none.returncode == 0
    assert not mask_of(tmp_path / "out/picture.0.png").any()


def test_images_that_are_done_are_left_out(sa2va, three, tmp_path):
    assert sa2va(*three, "objects=2").returncode == 0
    for name in ("b.0.png", "c.overlay.png"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out/a.1.png").write_bytes(b"kept")
    done = sa2va(*three, "objects=2", "--skip-existing", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["skipped"] == ["a.png"]
    assert [result["image"] for result in document["results"]] == ["b.png", "c.png"]
    assert (tmp_path / "out/a.1.png").read_bytes() == b"kept"
    assert mask_of(tmp_path / "out/b.0.png").any()
    stopped = sa2va("stop")
    assert stopped.returncode == 0
    again = sa2va(*three, "objects=2", "--skip-existing")
    assert again.returncode == 0
    assert "outputs of all 3 images are there, by their names." in again.stdout
    assert "For other prompts or settings use --overwrite" in again.stdout
    assert sa2va("ps").stdout == "No worker is running.\n", "nobody was asked"


def test_an_image_without_objects_is_done_too(sa2va, picture, tmp_path):
    for more in ((), ("--skip-empty",)):
        run = (*SEGMENT, "objects=0", "--save", "masks,overlay", *more)
        assert sa2va(*run).returncode == 0
        again = sa2va(*run, "--skip-existing", "--json")
        assert json.loads(again.stdout)["skipped"] == ["picture.png"]
        shutil.rmtree(tmp_path / "out")


def test_half_of_several_prompts_is_not_done(sa2va, picture, tmp_path):
    asked = ("segment", "picture.png", "-o", "out", "--save", "masks", "-p", "objects=1", "-p", "objects=2")
    assert sa2va(*asked).returncode == 0
    (tmp_path / "out/picture.objects-2.1.png").unlink()
    (tmp_path / "out/picture.objects-2.0.png").unlink()
    done = sa2va(*asked, "--skip-existing", "--json")
    assert "skipped" not in json.loads(done.stdout)
    assert (tmp_path / "out/picture.objects-2.1.png").exists()


def test_a_folder_that_cannot_be_written_into_is_known_before_the_model_is_asked(
    sa2va, picture, clip, tmp_path
):
    (tmp_path / "file").write_text("in the way")
    for words in (("segment", "picture.png"), ("video", clip)):
        for folder in ("file", "file/inside/more"):
            done = sa2va(*words, "-p", "objects=1", "-o", folder)
            assert done.returncode == 1
            assert "sa2va: file" in done.stderr
            assert "Traceback" not in done.stderr
    assert sa2va("ps").stdout == "No worker is running.\n"
    assert sa2va("segment", "picture.png", "-p", "objects=1", "-o", "x/y/z").returncode == 0


def test_a_video_has_the_same_rule(sa2va, clip, tmp_path):
    run = ("video", clip, "-p", "objects=2", "--save", "masks,rle", "-o", "out", "--end", "4")
    assert sa2va(*run).returncode == 0
    before = contents(tmp_path / "out")
    refused = sa2va(*run)
    assert refused.returncode == 2
    for option in ("--overwrite", "--skip-existing", "--resume"):
        assert option in refused.stderr
    assert contents(tmp_path / "out") == before
    other = ("video", clip, "-p", "objects=1", "--save", "masks", "-o", "out", "--end", "2", "--overwrite")
    assert sa2va(*other).returncode == 0
    assert files(tmp_path / "out") == {"run.json", *(f"masks/objects-1/0000{n}.png" for n in range(3))}


@pytest.mark.parametrize("option", ["--resume", "--skip-existing"])
def test_a_finished_run_is_left_alone_and_that_is_said(sa2va, clip, tmp_path, option):
    run = ("video", clip, "-p", "objects=1", "--save", "masks,overlay", "-o", "out", "--end", "4")
    first = json.loads(sa2va(*run, option, "--json").stdout)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    done = sa2va(*run, option)
    assert done.returncode == 0
    assert "The run in out is finished, with 5 frames; nothing is left to do." in done.stdout
    assert json.loads(sa2va(*run, option, "--json").stdout) == first
    assert {path: path.stat().st_mtime_ns for path in times} == times
    shutil.rmtree(tmp_path / "out/masks")
    assert sa2va(*run, option).returncode == 0
    assert len(list((tmp_path / "out/masks/objects-1").iterdir())) == 5, "what is gone is made again"


def test_outputs_that_no_run_vouches_for_are_not_taken_for_its_own(sa2va, clip, tmp_path):
    (tmp_path / "out/masks/objects-1").mkdir(parents=True)
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(tmp_path / "out/masks/objects-1/00001.png")
    run = ("video", clip, "-p", "objects=1", "--save", "masks", "-o", "out", "--end", "2")
    for option in ((), ("--resume",), ("--skip-existing",)):
        done = sa2va(*run, *option)
        assert done.returncode == 2
        assert "masks exists already" in done.stderr
    assert sa2va(*run, "--overwrite").returncode == 0
    assert not mask_of(tmp_path / "out/masks/objects-1/00001.png").all()


def test_overwriting_does_not_remove_the_frames_that_are_read(sa2va, clip, tmp_path):
    sa2va("video", clip, "-p", "objects=1", "--save", "cutout", "-o", "out")
    before = contents(tmp_path / "out")
    done = sa2va(
        "video", "out/cutout/objects-1", "-p", "objects=1", "--save", "rle", "-o", "out", "--overwrite"
    )
    assert done.returncode == 2
    assert "written over while it is read" in done.stderr
    assert contents(tmp_path / "out") == before
