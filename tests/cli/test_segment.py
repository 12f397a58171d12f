"""`sa2va segment` with many pictures, many prompts and everything it can write, against a real worker process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.without_opencv import without_opencv

from .test_commands import mask_of


@pytest.fixture
def folder(picture, tmp_path):
    """A folder of three pictures, a text, and a folder with a fourth."""
    shots = tmp_path / "shots"
    (shots / "inner").mkdir(parents=True)
    for name in ("b.png", "a.png", "inner/d.png"):
        shutil.copy(picture, shots / name)
    Image.open(picture).save(shots / "c.JPG")
    (shots / "notes.txt").write_text("no picture")
    return shots


def images(done):
    assert done.returncode == 0, done.stderr
    return [result["image"] for result in json.loads(done.stdout)["results"]]


def test_a_folder_means_its_pictures(sa2va, folder):
    done = sa2va("segment", "shots", "--prompt", "objects=1", "--save", "none", "--json")
    assert images(done) == ["shots/a.png", "shots/b.png", "shots/c.JPG"]


def test_a_pattern_and_each_picture_once(sa2va, folder, tmp_path):
    done = sa2va(
        "segment",
        "shots/b.png",
        "shots/**/*.png",
        "--prompt",
        "objects=1",
        "--save",
        "masks",
        "-o",
        "out",
        "--json",
    )
    assert images(done) == ["shots/b.png", "shots/a.png", "shots/inner/d.png"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.0.png", "b.0.png", "d.0.png"}


def test_many_pictures_answer_what_each_answers_alone(sa2va, picture, tmp_path):
    rng = np.random.default_rng(3)
    for number in range(7):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    names = [f"{number}.png" for number in range(7)]
    together = json.loads(
        sa2va("segment", *names, "--prompt", "objects=2", "--save", "none", "--json").stdout
    )
    alone = json.loads(sa2va("segment", "4.png", "--prompt", "objects=2", "--save", "none", "--json").stdout)
    assert [result["image"] for result in together["results"]] == names
    assert together["results"][4]["objects"] == alone["results"][0]["objects"]
    assert together["worker"] == alone["worker"]


def test_several_prompts_name_their_files(sa2va, picture, tmp_path):
    prompts = ("--prompt", "objects=1 the Red circle!", "--prompt", "objects=2")
    done = sa2va("segment", picture, *prompts, "--save", "masks", "-o", "out", "--json")
    assert [result["prompt"] for result in json.loads(done.stdout)["results"]] == [prompts[1], prompts[3]]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "picture.objects-1-the-red-circle.0.png",
        "picture.objects-2.0.png",
        "picture.objects-2.1.png",
    }


def test_pictures_of_one_name_do_not_overwrite_each_other(sa2va, folder, tmp_path):
    shutil.copy(folder / "a.png", folder / "inner" / "a.png")
    done = sa2va(
        "segment", "shots/a.png", "shots/inner/a.png", "--prompt", "objects=1", "--save", "masks", "-o", "out"
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.0.png", "a-2.0.png"}


def test_an_input_is_not_written_over(sa2va, picture, tmp_path):
    before = picture.read_bytes()
    shutil.copy(picture, tmp_path / "picture.0.png")
    done = sa2va("segment", "picture.png", "picture.0.png", "--prompt", "objects=1")
    assert done.returncode == 2
    assert "written over picture.0.png" in done.stderr
    assert (tmp_path / "picture.0.png").read_bytes() == before


def test_a_bad_picture_is_reported_and_the_others_are_done(sa2va, folder, tmp_path):
    (folder / "aa.png").write_bytes(b"\x89PNG")
    done = sa2va("segment", "shots", "--prompt", "objects=1", "--save", "none", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 2
    assert [result["image"] for result in document["results"]] == [
        "shots/a.png",
        "shots/b.png",
        "shots/c.JPG",
    ]
    (failure,) = document["errors"]
    assert failure["image"] == "shots/aa.png"
    assert failure["error"] in done.stderr
    assert "1 of 4 images failed" in done.stderr


def test_everything_that_can_be_saved(sa2va, picture, tmp_path):
    kinds = "masks,overlay,cutout,probability,rle,polygons,logits"
    done = sa2va("segment", picture, "--prompt", "objects=1", "--save", kinds, "-o", "out")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "picture.0.png",
        "picture.overlay.png",
        "picture.0.cutout.png",
        "picture.0.probability.png",
        "picture.rle.json",
        "picture.polygons.json",
        "picture.logits.npz",
    }
    mask = mask_of(out / "picture.0.png")
    with Image.open(out / "picture.0.probability.png") as image:
        assert image.mode == "I;16"
        assert np.array_equal(np.asarray(image) > 65535 // 2, mask)
    with Image.open(out / "picture.0.cutout.png") as image:
        assert image.mode == "RGBA"
        assert np.array_equal(np.asarray(image)[:, :, 3] > 127, mask)
    assert json.loads((out / "picture.rle.json").read_text())["objects"][0]["area"] == mask.sum()
    with np.load(out / "picture.logits.npz", allow_pickle=False) as logits:
        assert logits["logits"].shape == (1, 1, 8, 8)


def test_masks_are_changed_as_asked(sa2va, picture, tmp_path):
    def mask(*changes):
        done = sa2va("segment", picture, "--prompt", "objects=2", "--save", "masks", "-o", "out", *changes)
        assert done.returncode == 0, done.stderr
        found = [mask_of(path) for path in sorted((tmp_path / "out").iterdir())]
        shutil.rmtree(tmp_path / "out")
        return found

    first, second = mask()
    assert (second <= first).all()
    (union,) = mask("--combine", "union")
    assert np.array_equal(union, first | second)
    grown = mask("--grow", "3")[0]
    assert (first <= grown).all()
    assert grown.sum() > first.sum()
    assert np.array_equal(mask("--invert")[0], ~first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--save", "mask"), "There is nothing to save of the kind 'mask'"),
        (("--process", "vitmatte:eroding=3"), "has no option 'eroding'"),
        (("--process", "vitmatte:erode"), "not of the form OPTION=VALUE"),
        (("--grow", "1000"), "grow is 1000"),
        (("--combine", "xor"), "There is no combination 'xor'"),
        (("--prompt", " "), "The prompt is empty"),
    ],
)
def test_what_is_wrong_with_an_option_is_said_before_anything_is_written(
    sa2va, picture, tmp_path, arguments, message
):
    done = sa2va("segment", picture, "--prompt", "objects=1", "-o", "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("name", "message"), [("empty", "has no images"), ("*.tiff", "No picture matches")])
def test_nothing_to_do_is_said(sa2va, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    done = sa2va("segment", name, "--prompt", "x")
    assert done.returncode == 2
    assert message in done.stderr


def test_a_folder_that_cannot_be_written_and_a_full_disk(sa2va, picture, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = sa2va("segment", picture, "--prompt", "objects=1", "-o", "file")
    assert done.returncode == 1
    assert "file" in done.stderr
    assert "Traceback" not in done.stderr


def test_turns_of_a_conversation(sa2va, picture):
    done = sa2va("chat", picture, "--prompt", "one?", "--prompt", "two?", "--json")
    document = json.loads(done.stdout)
    assert [turn["prompt"] for turn in document["turns"]] == ["one?", "two?"]
    assert document["text"] == document["turns"][1]["text"]


def test_a_broken_opencv_is_no_traceback_and_masks_do_without(sa2va, picture, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "cv2.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")')
    segment = ("segment", picture, "--prompt", "objects=1", "--save", "masks")
    done = sa2va(*segment, "-o", "masks", extra={"PYTHONPATH": str(broken)})
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(tmp_path / "masks" / "picture.0.png")).max() == 255
    done = sa2va(*segment, "-o", "grown", "--grow", "3", extra={"PYTHONPATH": str(broken)})
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "libGL.so.1" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--grow", 3),
        ("--save", "polygons"),
        ("--fill-holes",),
        ("--guide", 8),
        ("--save", "cutout"),
    ],
)
def test_what_needs_opencv_is_refused_before_a_worker_starts(sa2va, picture, environment, tmp_path, options):
    Image.fromarray(np.full((48, 64), 65535, np.uint16)).save(picture)
    done = sa2va(
        "segment", picture, "-p", "objects=1", *options, "-o", "out", extra=without_opencv(tmp_path / "site")
    )
    assert done.returncode == 2, done.stderr
    assert "needs the package OpenCV, which is not installed" in done.stderr
    assert "-m pip install 'opencv-python-headless>=4.8'" in done.stderr
    assert not (tmp_path / "out").exists()
    assert not list(Path(environment["SA2VA_RUN_DIR"]).glob("**/*.log"))


def test_light_that_opencv_reads_is_refused_in_a_sentence(sa2va, tmp_path):
    (tmp_path / "sky.hdr").write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n\x80\x80\x80\x81")
    done = sa2va(
        "segment", "sky.hdr", "-p", "objects=1", "-o", "out", extra=without_opencv(tmp_path / "site")
    )
    assert done.returncode != 0
    assert "sky.hdr, a Radiance HDR, needs the package OpenCV" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_every_image_fails_nothing_is_said_of_others(sa2va, tmp_path):
    (tmp_path / "shots").mkdir()
    for name in "ab":
        (tmp_path / "shots" / f"{name}.png").write_text("no image")
    done = sa2va("segment", "shots", "--prompt", "objects=1")
    assert done.returncode == 2
    assert done.stderr.endswith("sa2va: 2 of 2 images failed, as said above.\n")
