"""What people name on the command line: folders of all kinds, streams, addresses, and the wrong kind of file."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from sa2va_host.machine.commands import sa2va_command
from sa2va_host.masks import masks
from sa2va_plugins.cli.main import main

from .conftest import PROGRAM
from .test_commands import mask_of

CASES = Path(__file__).parents[1] / "cases"
ONE = ("--prompt", "objects=1", "--save", "masks")


@pytest.fixture
def piped(environment, tmp_path):
    """Runs the command with bytes as its input: `piped(content, "segment", ...)`; stdout is bytes."""

    def run(content, *arguments, **more):
        return subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            check=False,
            timeout=60,
            **({"input": content} if content is not None else {}),
            **more,
        )

    return run


def images(done):
    assert done.returncode == 0, done.stderr
    return [result["image"] for result in json.loads(done.stdout)["results"]]


@pytest.mark.parametrize("source", ["appledouble", "appledouble/*", "appledouble/*.jpg"])
def test_apple_s_double_files_are_no_images(sa2va, source):
    done = sa2va("segment", CASES / source, *ONE, "-o", "out", "--json")
    assert [Path(image).name for image in images(done)] == ["f0000.jpg", "f0001.jpg", "f0002.jpg"]


def test_apple_s_double_files_are_no_frames(sa2va):
    done = sa2va("video", CASES / "appledouble", *ONE, "-o", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 3


def test_all_suffixes_of_jpeg(sa2va, tmp_path):
    done = sa2va("segment", CASES / "jfif", *ONE, "-o", "out", "--json")
    assert [Path(image).name for image in images(done)] == ["a.jpg", "b.jfif", "c.jpe"]
    for source in ("jfif", "jfif/*"):
        frames = sa2va("video", CASES / source, *ONE, "-o", f"out-{source[-1]}", "--json")
        assert json.loads(frames.stdout)["frames"] == 3, frames.stderr


def test_what_is_passed_over_is_said_in_one_line(sa2va, picture, tmp_path):
    (tmp_path / "shots").mkdir()
    shutil.copy(picture, tmp_path / "shots" / "a.png")
    for name in ("b.psd", "c.nef", "._a.png", "notes.txt"):
        (tmp_path / "shots" / name).write_bytes(b"x")
    done = sa2va("segment", "shots", *ONE, "-o", "out", "--json")
    note = "shots: 2 files that look like images are passed over: b.psd, c.nef."
    assert images(done) == ["shots/a.png"]
    assert json.loads(done.stdout)["notes"] == [note]
    assert done.stderr.splitlines().count(f"sa2va: {note}") == 1
    (tmp_path / "shots" / "a.png").unlink()
    for command in ("segment", "video", "chat"):
        done = sa2va(command, "shots", "--prompt", "objects=1")
        assert done.returncode == 2
        assert f"The folder shots has no images in it. {note}" in done.stderr


def test_brackets_in_the_name_of_a_folder(sa2va, picture, tmp_path):
    folder = tmp_path / "shots [v2]"
    folder.mkdir()
    shutil.copy(picture, folder / "a1.png")
    shutil.copy(picture, folder / "a2.png")
    assert images(sa2va("segment", "shots [v2]/a*.png", *ONE, "-o", "out", "--json")) == [
        "shots [v2]/a1.png",
        "shots [v2]/a2.png",
    ]
    for source in ("shots [v2]/*.png", "shots [v2]/a#.png", "shots [v2]"):
        done = sa2va("video", source, *ONE, "-o", f"out{len(source)}", "--json")
        assert json.loads(done.stdout)["frames"] == 2, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_each_file_once_by_what_it_resolves_to(sa2va, picture, tmp_path):
    (tmp_path / "loop" / "a").mkdir(parents=True)
    shutil.copy(picture, tmp_path / "loop" / "a" / "x.png")
    (tmp_path / "loop" / "a" / "up").symlink_to("..")
    (tmp_path / "loop" / "y.png").symlink_to("a/x.png")
    for names in (
        ["loop/**/*.png"],
        ["loop/a/x.png", "./loop/../loop/a/x.png", tmp_path / "loop/a/up/a/x.png"],
    ):
        assert len(images(sa2va("segment", *names, *ONE, "-o", "out", "--json"))) == 1


def test_folders_of_a_folder_keep_their_places(sa2va, picture, tmp_path):
    for name in ("a.png", "inner/a.png", "inner/deep/b.png", ".cache/c.png"):
        (tmp_path / "shots" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / "shots" / name)
    wanted = ["shots/a.png", "shots/inner/a.png", "shots/inner/deep/b.png"]
    made = {"a.0.png", "inner/a.0.png", "inner/deep/b.0.png"}
    for output in ("out", "shots/masks", "shots/masks"):  # the third run finds what the second one wrote
        done = sa2va("segment", "shots", "--recursive", *ONE, "-o", output, "--overwrite", "--json")
        assert images(done) == wanted
        folder = tmp_path / output
        assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == made
    assert images(sa2va("segment", "shots", *ONE, "-o", "flat", "--json")) == ["shots/a.png"]
    both = sa2va("segment", "shots/inner", "shots", "--recursive", *ONE, "-o", "both", "--json")
    assert images(both) == [
        "shots/inner/a.png",
        "shots/inner/deep/b.png",
        "shots/a.png",
        *masks_of(tmp_path / "shots"),
    ]


def masks_of(folder):
    return [
        f"shots/{path.relative_to(folder)}" for path in sorted(folder.glob("masks/**/*.png"), key=by_folder)
    ]


def by_folder(path):
    return (str(path.parent), path.name)


def test_standard_input_to_standard_output(piped, picture, tmp_path):
    done = piped(picture.read_bytes(), "segment", "-", "--prompt", "objects=1", "-o", "-")
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert image.format == "PNG"
        mask = np.asarray(image) == 255
    piped(picture.read_bytes(), "segment", "-", *ONE, "-o", "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["stdin.0.png"]
    assert np.array_equal(mask, mask_of(tmp_path / "out" / "stdin.0.png"))
    assert mask.any()
    assert not (tmp_path / "-").exists()


def test_nothing_found_is_an_empty_mask_on_standard_output(piped, picture):
    done = piped(picture.read_bytes(), "segment", "-", "--prompt", "objects=0", "-o", "-")
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert image.size == (64, 48)
        assert not np.asarray(image).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("picture.png", "other.png", "--prompt", "objects=1"),
            "takes one mask, and 2 images with 1 prompts",
        ),
        (("picture.png", "--prompt", "objects=1", "--prompt", "objects=2"), "1 images with 2 prompts"),
        (("picture.png", "--prompt", "objects=2"), "2 objects were found"),
        (("picture.png", "--prompt", "objects=1", "--json"), "not the document of --json"),
        (("picture.png", "--prompt", "objects=1", "--save", "masks,overlay"), "not --save masks,overlay"),
        (("picture.png", "--prompt", "objects=1", "--save", "none"), "not --save none"),
        (("picture.png", "--prompt", "objects=0", "--skip-empty"), "and --skip-empty asks for none then"),
        (("nothing.png", "--prompt", "objects=1"), "There is no file nothing.png"),
    ],
)
def test_standard_output_takes_one_mask(piped, picture, tmp_path, arguments, message):
    shutil.copy(picture, tmp_path / "other.png")
    done = piped(b"", "segment", *arguments, "-o", "-")
    assert done.returncode == 2
    assert done.stdout == b""
    assert message in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_several_objects_can_be_one_mask_on_standard_output(piped, picture):
    done = piped(None, "segment", "picture.png", "--prompt", "objects=2", "--combine", "union", "-o", "-")
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert np.asarray(image).any()


def test_standard_input_that_is_no_image(piped):
    for content, message in ((b"", "<stdin> is empty"), (b"words", "<stdin> is not in an image format")):
        done = piped(content, "segment", "-", *ONE)
        assert done.returncode == 2
        assert message in done.stderr.decode()
    done = piped(b"x", "chat", "-")
    assert done.returncode == 2
    assert "cannot hold both the image and the questions" in done.stderr.decode()


def test_a_question_about_standard_input(piped, picture):
    done = piped(picture.read_bytes(), "chat", "-", "--prompt", "what?", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == ["stdin"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-",), "A video is not read from standard input."),
        (("clip.mp4", "-o", "-"), "standard output takes none of them"),
    ],
)
def test_a_video_goes_through_no_standard_stream(sa2va, clip, tmp_path, arguments, message):
    done = sa2va("video", *arguments, "--prompt", "objects=1")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "-").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
@pytest.mark.parametrize(
    ("arguments", "stream", "message"),
    [
        (["segment", "-", "--prompt", "x"], "stdin", "which is this terminal"),
        (["chat", "-", "--prompt", "x"], "stdin", "which is this terminal"),
        (["segment", "picture.png", "--prompt", "x", "-o", "-"], "stdout", "Redirect it: -o - > mask.png"),
    ],
)
def test_a_terminal_is_no_image_file(environment, picture, tmp_path, arguments, stream, message):
    ours, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env=environment,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            stdin=terminal if stream == "stdin" else subprocess.DEVNULL,
            stdout=terminal if stream == "stdout" else subprocess.PIPE,
        )
    finally:
        os.close(ours)
        os.close(terminal)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("command", ["segment", "chat", "video"])
def test_urls_are_refused(command, capsys):
    for url in ("https://host/a.jpg", "s3://bucket/*.png"):
        assert main([command, url, "--prompt", "x"]) == 2
        assert capsys.readouterr().err == f"sa2va: {url} is a URL; only files are read. Download it first.\n"


@pytest.mark.parametrize("command", ["segment", "chat"])
def test_a_video_is_sent_to_the_command_for_videos(sa2va, clip, command):
    done = sa2va(command, clip, "--prompt", "objects=1")
    assert done.returncode == 2
    assert f"{clip} is a video file, not an image. Use `{sa2va_command('video')}`." in done.stderr
    (clip.parent / "clips").mkdir()
    clip.rename(clip.parent / "clips" / "clip.mp4")
    done = sa2va(command, "clips", "--prompt", "objects=1")
    assert f"Videos go through `{sa2va_command('video')}`" in done.stderr


def test_the_home_folder_is_expanded(sa2va, picture, tmp_path):
    (tmp_path / "home" / "shots").mkdir(parents=True)
    shutil.copy(picture, tmp_path / "home" / "shots" / "a.png")
    home = {"HOME": str(tmp_path / "home")}
    file = str(tmp_path / "home" / "shots" / "a.png")
    for name in ("~/shots/a.png", "~/shots", "~/shots/*.png"):
        done = sa2va("segment", name, *ONE, "-o", "out", "--overwrite", "--json", extra=home)
        assert images(done) == [file]
        assert sa2va("chat", name, "--prompt", "x", extra=home).returncode == 0
    for number, name in enumerate(("~/shots", "~/shots/*.png")):
        done = sa2va("video", name, *ONE, "-o", f"video{number}", "--json", extra=home)
        assert json.loads(done.stdout)["frames"] == 1, done.stderr


def test_notes_are_printed_once_and_stand_beside_their_image(sa2va, tmp_path):
    (tmp_path / "shots").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (32, 32), "white").save(tmp_path / "shots" / f"{name}.jpg")
    path = tmp_path / "shots" / "a.jpg"
    path.write_bytes(path.read_bytes().removesuffix(b"\xff\xd9"))
    note = "shots/a.jpg lacks the mark that ends a JPEG file; its pixels are all there."
    done = sa2va(
        "segment", "shots", "--prompt", "objects=1", "--prompt", "objects=2", "--save", "none", "--json"
    )
    assert [result["notes"] for result in json.loads(done.stdout)["results"]] == [[note], [note], [], []]
    assert done.stderr.splitlines().count(f"sa2va: {note}") == 1
    done = sa2va("chat", "shots", "--prompt", "one?", "--prompt", "two?", "--json")
    assert json.loads(done.stdout)["notes"] == [note]
    assert done.stderr.splitlines().count(f"sa2va: {note}") == 1


def test_help_says_how_masks_lie(capsys):
    main(["segment", "--help"])
    assert "EXIF orientation" in capsys.readouterr().out


def test_overlay_and_cutout_have_the_colours_that_a_profile_means(sa2va, tmp_path):
    path = CASES / "icc-p3-like.jpg"
    done = sa2va(
        "segment", path, "--prompt", "objects=1", "--save", "masks,overlay,cutout", "-o", "out", "--json"
    )
    assert done.returncode == 0, done.stderr
    with Image.open(path) as image:
        theirs = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"])),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    shown = np.asarray(theirs).astype(int)
    mask = mask_of(tmp_path / "out" / "icc-p3-like.0.png")
    with Image.open(tmp_path / "out" / "icc-p3-like.0.cutout.png") as cutout:
        assert "icc_profile" not in cutout.info
        assert mask.any()
        assert np.abs(np.asarray(cutout)[mask][:, :3] - shown[mask]).max() == 0
    with Image.open(tmp_path / "out" / "icc-p3-like.overlay.png") as overlay:
        assert np.array_equal(np.asarray(overlay), masks.overlay(np.asarray(theirs), mask[None]))
