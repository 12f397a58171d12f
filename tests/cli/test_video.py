"""`sa2va video` against a real worker process: what it writes, in constant steps."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_host import Sa2VA
from sa2va_host.config import load_settings
from sa2va_host.events import Progress
from sa2va_host.masks.masks import box
from sa2va_host.protocol.limits import MAX_PROMPTS
from sa2va_host.video.clip import open_clip
from sa2va_plugins.cli.display import Display
from sa2va_plugins.cli.main import main
from tests.clips import pictures, write_clip

from .conftest import contents, files
from .test_commands import mask_of


def test_a_video_leaves_masks_and_an_overlay_beside_it(sa2va, clip, tmp_path):
    done = sa2va("video", "clip.mp4", "--prompt", "objects=1 the Square!")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "clip-tracked"
    masks = {f"masks/objects-1-the-square/{number:05d}.png" for number in range(20)}
    assert files(out) == {*masks, "overlay.mp4", "run.json"}
    first, last = (mask_of(out / f"masks/objects-1-the-square/{number:05d}.png") for number in (0, 19))
    assert first[24, 20]
    assert not first[24, 45]
    assert last[24, 45]
    assert not last[24, 10]
    assert "in 20 of 20 frames" in done.stdout
    assert "20 frames in" in done.stdout
    overlay = open_clip(out / "overlay.mp4")
    assert [frame.time for frame in overlay] == [frame.time for frame in open_clip(clip)]
    assert overlay.audio is not None


def test_several_prompts_in_one_pass_have_names_and_colours(sa2va, clip, tmp_path):
    done = sa2va(
        "video", clip, "--prompt", "objects=2 presence=1", "--prompt", "objects=0", "--prompt", "objects=1",
        "--save", "masks,rle,davis", "--resolve-overlaps", "-o", "out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    names = ["objects-2-presence-1-1", "objects-2-presence-1-2", "objects-1"]
    assert [found["name"] for found in document["objects"]] == names
    assert [found["id"] for found in document["objects"]] == [1, 2, 3]
    assert len({tuple(found["colour"]) for found in document["objects"]}) == 3
    assert [answer["text"].split(" [")[0] for answer in document["answers"]] == [
        "objects=2 presence=1",
        "objects=0",
        "objects=1",
    ]
    assert (document["frames"], document["size"]) == (20, [48, 64])
    lines = [json.loads(line) for line in (tmp_path / "out/rle.jsonl").read_text().splitlines()]
    assert [found["presence"] for found in lines[7]["objects"]] == [0.5, 0.2689, 0.1192]
    masks = np.stack([mask_of(tmp_path / f"out/masks/{name}/00007.png") for name in names])
    assert masks.sum(axis=0).max() == 1, "no pixel belongs to two"
    with Image.open(tmp_path / "out/Annotations/clip/00007.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(
            np.asarray(image), (masks * np.array([1, 2, 3])[:, None, None]).sum(axis=0)
        )
    stored = json.loads((tmp_path / "out/run.json").read_text())
    assert stored["finished"]
    assert stored["objects"] == document["objects"]


def test_an_object_that_is_not_there_has_an_empty_mask(sa2va, clip, tmp_path):
    done = sa2va(
        "video",
        clip,
        "--prompt",
        "objects=2 presence=1",
        "--presence",
        "0.4",
        "--save",
        "masks",
        "-o",
        "out",
        "--json",
    )
    assert [found["frames"] for found in json.loads(done.stdout)["objects"]] == [20, 0]


def test_nothing_found_is_an_answer(sa2va, clip, tmp_path):
    done = sa2va("video", clip, "--prompt", "objects=0", "-o", "out", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["objects"], document["frames"], document["size"]) == ([], 20, [48, 64])
    assert document["answers"][0]["text"].startswith("objects=0")
    assert document["answers"][0]["objects"] == 0
    assert "--key-frames uniform:5" in done.stderr
    out = tmp_path / "out"
    assert files(out) == {"run.json", "overlay.mp4", *(f"masks/objects-0/{n:05d}.png" for n in range(20))}
    assert not np.stack([mask_of(path) for path in (out / "masks/objects-0").iterdir()]).any()
    assert len(list(open_clip(out / "overlay.mp4"))) == 20
    stored = json.loads((out / "run.json").read_text())
    assert (stored["finished"], stored["answers"]) == (True, document["answers"])
    less = sa2va("video", clip, "--prompt", "objects=0", "-o", "less", "--skip-empty")
    assert less.returncode == 0, less.stderr
    assert files(tmp_path / "less") == {"overlay.mp4", "run.json"}


def test_a_prompt_that_is_absent_beside_others_has_empty_files_and_no_label(sa2va, clip, tmp_path):
    how = (
        "--prompt",
        "objects=1",
        "--prompt",
        "objects=0 ghost",
        "--save",
        "masks,probability,cutout,rle,davis",
    )
    done = sa2va("video", clip, *how, "-o", "out", "--end", "3", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [found["name"] for found in document["objects"]] == ["objects-1"]
    assert [(answer["name"], answer["objects"]) for answer in document["answers"]] == [
        ("objects-1", 1),
        ("objects-0-ghost", 0),
    ]
    for kind in ("masks", "probability", "cutout"):
        empty = sorted((tmp_path / f"out/{kind}/objects-0-ghost").iterdir())
        assert [path.name for path in empty] == [f"{number:05d}.png" for number in range(4)]
        for path in empty:
            with Image.open(path) as image:
                assert image.size == (64, 48)
                assert not np.asarray(image).any()
    assert mask_of(tmp_path / "out/masks/objects-1/00000.png").any()
    lines = [json.loads(line) for line in (tmp_path / "out/rle.jsonl").read_text().splitlines()]
    assert [found["name"] for found in lines[0]["objects"]] == ["objects-1"]
    sa2va("video", clip, *how, "-o", "less", "--end", "3", "--skip-empty")
    assert [path.name for path in (tmp_path / "less/masks").iterdir()] == ["objects-1"]


def test_the_old_name_of_the_probability_is_still_taken(sa2va, clip, tmp_path):
    done = sa2va("video", clip, "--prompt", "objects=1", "--save", "matte", "-o", "out", "--end", "0")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == {"run.json", "probability/objects-1/00000.png"}


def test_spread_key_frames_are_read_ahead_and_every_frame_is_written_once(sa2va, clip, tmp_path):
    how = ("--key-frames", "uniform:3", "--condition-on", "masks")
    done = sa2va("video", clip, "--prompt", "objects=1", "--save", "masks", *how, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "at [0, 9, 19] on masks" in document["answers"][0]["text"]
    assert document["frames"] == 20
    plain = sa2va("video", clip, "--prompt", "objects=1", "--save", "masks", "-o", "plain")
    assert plain.returncode == 0, plain.stderr
    assert contents(tmp_path / "clip-tracked") == contents(tmp_path / "plain")


@pytest.mark.parametrize("muxer", [{}, {"live": "1"}])
def test_spread_key_frames_do_not_need_a_header_that_counts(sa2va, tmp_path, muxer):
    """A Matroska file names seconds, and one from a live recording not even these: its frames are counted first."""
    write_clip(tmp_path / "clip.mkv", pictures(20), **muxer)
    how = ("--key-frames", "uniform:3", "--save", "rle", "--json")
    done = sa2va("video", "clip.mkv", "--prompt", "objects=1", *how)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "at [0, 9, 19]" in document["answers"][0]["text"]
    assert document["frames"] == 20


def test_a_header_that_promises_too_much_does_not_lead_the_key_frames_astray(sa2va, tmp_path):
    noise = list(np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8))
    whole = write_clip(tmp_path / "whole.mp4", noise, movflags="faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    done = sa2va(
        "video", "cut.mp4", "--prompt", "objects=1", "--save", "rle", "--key-frames", "uniform:5", "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    there = document["frames"]
    assert 10 < there < 50
    assert f", {there - 1}]" in document["answers"][0]["text"], "the last frame that is there is a key frame"
    assert done.stderr.count(f"promises 60 frames; there are {there}") == 1


def test_asking_again_makes_one_object_of_a_prompt(sa2va, clip, tmp_path):
    done = sa2va(
        "video", clip, "--prompt", "objects=2", "--save", "masks", "--ask-again", "every:8", "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [found["name"] for found in document["objects"]] == ["objects-2"]
    assert document["frames"] == 20
    assert len(list((tmp_path / "clip-tracked" / "masks" / "objects-2").iterdir())) == 20
    refused = sa2va(
        "video", clip, "--prompt", "objects=2", "--ask-again", "cuts", "--key-frames", "uniform:3", "-o", "b"
    )
    assert refused.returncode == 2
    assert "first ones of each shot" in refused.stderr


def test_numbered_frames_keep_their_numbers(sa2va, tmp_path):
    (tmp_path / "shots").mkdir()
    for number in (1001, 1002, 1004, 1005):
        Image.fromarray(pictures(1)[0]).save(tmp_path / f"shots/shot.{number}.png")
    done = sa2va(
        "video", "shots/shot.####.png", "--prompt", "objects=1", "--start", "1002",
        "--fps", "29.97002997", "--save", "masks,overlay", "-o", "out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out" / "masks") == {f"objects-1/{number}.png" for number in (1002, 1004, 1005)}
    assert "1003" in json.loads(done.stdout)["warnings"][0]
    assert "1003" in done.stderr


def test_masks_are_changed_as_asked(sa2va, clip, tmp_path):
    def mask(*changes):
        done = sa2va(
            "video",
            clip,
            "--prompt",
            "objects=2",
            "--save",
            "masks",
            "-o",
            f"out{len(changes)}",
            "--end",
            "2",
            *changes,
        )
        assert done.returncode == 0, done.stderr
        folder = tmp_path / f"out{len(changes)}" / "masks"
        return [mask_of(path / "00001.png") for path in sorted(folder.iterdir())]

    first, second = mask()
    (combined,) = mask("--combine", "union")
    np.testing.assert_array_equal(combined, first | second)
    grown = mask("--grow", "2", "--invert")
    assert (grown[0] < ~first).any()


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text are Linux's")
def test_a_name_that_is_no_text_is_a_name(sa2va, clip, tmp_path):
    clip.rename(tmp_path / os.fsdecode(b"cl\xffip.mp4"))
    kinds = ("--save", "overlay,alpha,rle,davis", "--trace", "trace.json")
    done = sa2va("video", os.fsdecode(b"cl\xffip.mp4"), "--prompt", "objects=1", *kinds, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["input"] == os.fsdecode(b"cl\xffip.mp4")
    folder = tmp_path / os.fsdecode(b"cl\xffip-tracked")
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["input"] == document["input"]
    assert list(json.loads((folder / "meta.json").read_text(encoding="utf-8"))["videos"]) == [
        os.fsdecode(b"cl\xffip")
    ]


@pytest.mark.skipif(os.name != "posix", reason="modes of folders are POSIX's")
def test_an_error_lets_go_of_the_video(clip, tmp_path, monkeypatch, capsys):
    """At once: what a collection of garbage finds at the program's end is still reading, and that is reported."""
    (tmp_path / "open").mkdir(mode=0o755)
    monkeypatch.setenv("SA2VA_RUN_DIR", str(tmp_path / "open"))
    gc.disable()
    try:
        assert main(["video", str(clip), "--prompt", "objects=1", "--model", "scripted:"]) == 2
        assert "sa2va-readahead" not in {thread.name for thread in threading.enumerate()}
    finally:
        gc.enable()
    assert "open to other users" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--save", "mask"), "A video cannot be saved as 'mask'"),
        (("--stride", "0"), "The stride is 0"),
        (("--start", "9", "--end", "3"), "comes after the last one"),
        (("--fps", "0"), "is no number of frames per second"),
        (("--start", "-3"), "The first frame is -3"),
        (("--fps", "25"), "has a rate of its own"),
        (("--key-frames", "last:2"), "key_frames is 'last:2'"),
        (("--prompt", " "), "The prompt is empty"),
        (("--prompt", "x") * MAX_PROMPTS, f"{MAX_PROMPTS + 1} were given"),
        (("--resume", "--sample"), "--seed"),
        (("--start", "500"), "has 20 frames, from 0; none is from 500 on"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(sa2va, clip, tmp_path, arguments, message):
    done = sa2va("video", clip, "--prompt", "objects=1", "-o", "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_that_are_no_video_go_to_segment(sa2va, picture, tmp_path):
    (tmp_path / "album").mkdir()
    for number, size in enumerate([(40, 30), (30, 40)]):
        Image.new("RGB", size).save(tmp_path / f"album/{number}.png")
    for name in ("album", "picture.png"):
        done = sa2va("video", name, "--prompt", "objects=1")
        assert done.returncode == 2
        assert "sa2va segment" in done.stderr


def test_the_video_is_not_written_over_while_it_is_read(sa2va, clip, tmp_path):
    clip.rename(tmp_path / "overlay.mp4")
    done = sa2va("video", "overlay.mp4", "--prompt", "objects=1", "-o", ".")
    assert done.returncode == 2
    assert "written over while it is read" in done.stderr
    frames = tmp_path / "out/masks/objects-1"
    frames.mkdir(parents=True)
    Image.fromarray(pictures(1)[0]).save(frames / "00000.png")
    for source in ("out/masks/objects-1", "out/masks/*/*.png", "out/masks/objects-1/#.png"):
        done = sa2va("video", source, "--prompt", "objects=1", "-o", "out")
        assert done.returncode == 2
        assert "written over while it is read" in done.stderr


def test_progress_on_a_plain_stream_tells_frames_rate_and_time_left(capsys):
    now = 0.0
    with Display(clock=lambda: now) as display:
        for done, left in ((120, 15.0), (150, 700.0), (180, 9000.0), (300, 0.0)):
            now += 3
            display.event(Progress("tracking", done, 300, "frames", rate=12.04, seconds_left=left))
    assert capsys.readouterr().err.splitlines() == [
        "tracking 120 of 300 frames, 12.0/s, 15 s left ...",
        "tracking 150 of 300 frames, 12.0/s, 12 min left ...",
        "tracking 180 of 300 frames, 12.0/s, 2 h 30 min left ...",
        "tracking 300 of 300 frames, 12.0/s ...",
    ]


CASES = Path(__file__).parents[1] / "cases"


def test_a_damaged_frame_costs_itself_alone(sa2va, tmp_path):
    """It is named, the eleven others have masks, and a run that is resumed gets past it."""
    asked = (
        "video",
        CASES / "cut-frame",
        "--prompt",
        "objects=1",
        "--save",
        "masks,rle,overlay",
        "-o",
        "out",
    )
    done = sa2va(*asked)
    assert done.returncode == 0, done.stderr
    assert "f011.jpg" in done.stderr
    masks = tmp_path / "out/masks/objects-1"
    assert sorted(path.name for path in masks.iterdir()) == [f"{number:03d}.png" for number in range(11)]
    assert len(list(open_clip(tmp_path / "out/overlay.mp4"))) == 11
    (masks / "010.png").unlink()
    manifest = tmp_path / "out/run.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "finished": False}))
    resumed = sa2va(*asked, "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert (masks / "010.png").exists()
    document = json.loads(resumed.stdout)
    assert document["frames"] == 11
    assert "f011.jpg" in document["warnings"][0]


def test_stamps_in_names_are_no_times_of_the_overlay(sa2va, tmp_path):
    done = sa2va("video", CASES / "epoch-ns", "--prompt", "objects=1", "--save", "overlay", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot count frames") == 1
    times = [frame.time for frame in open_clip(tmp_path / "out/overlay.mp4")]
    assert [float(time) for time in times] == pytest.approx([number / 24 for number in range(6)], abs=1e-4)


def test_two_plausible_orders_end_the_command_before_the_model_is_asked(sa2va, tmp_path):
    (tmp_path / "frames").mkdir()
    for name in ("8.9", "8.10"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"frames/{name}.png")
    done = sa2va("video", "frames", "--prompt", "objects=1")
    assert done.returncode == 2
    assert "two plausible orders: 8.9.png, 8.10.png" in done.stderr
    assert not (tmp_path / "frames-tracked").exists()
    assert sa2va("video", "frames/8.#.png", "--prompt", "objects=1", "--save", "masks").returncode == 0


def test_deinterlacing_belongs_to_the_settings_of_a_run(sa2va, clip):
    asked = ("video", clip, "--prompt", "objects=1", "--save", "masks", "-o", "out")
    assert sa2va(*asked, "--deinterlace").returncode == 0
    other = sa2va(*asked, "--resume")
    assert other.returncode == 2
    assert "other settings: frames.deinterlace" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["order-suffix", "order-decimal", "epoch-ns", "animated.webp", "anamorphic.mp4"]
)
def test_the_circle_of_the_shared_cases_moves_right(case, connect_bundled):
    """The real small model, which sees all six frames, finds it where it is."""
    red = connect_bundled.segment_video(CASES / case, "the red circle", "first:6").masks()
    edges = [found[0] for found in map(box, red[0]) if found is not None]
    assert len(edges) == 6
    assert all(before < after for before, after in pairwise(edges)), edges


@pytest.fixture(scope="module")
def connect_bundled(tmp_path_factory):
    with tempfile.TemporaryDirectory(prefix="r-") as folder:
        settings = load_settings(run_dir=folder, model="sa2va-tiny", device="cpu")
        with Sa2VA(settings=settings) as sa:
            yield sa
            sa.unload(force=True)


def test_skip_empty_leaves_out_what_each_object_has_alone(sa2va, clip, tmp_path):
    """A video in which nothing is found: what shows or lists the objects together is there."""
    saved = "masks,probability,cutout,alpha,overlay,rle,davis,exr-layers"
    done = sa2va(
        "video", clip, "--prompt", "objects=0", "--save", saved, "--skip-empty", "-o", "out", "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["frames"], document["size"]) == (20, [48, 64])
    assert set(document["files"]) == {"overlay", "rle", "davis", "exr-layers"}
    assert len((tmp_path / "out/rle.jsonl").read_text().splitlines()) == 20
    assert len(list((tmp_path / "out/exr-layers").iterdir())) == 20
    meta = json.loads((tmp_path / "out/meta.json").read_text())
    assert meta == {"videos": {"clip": {"objects": {}}}}
