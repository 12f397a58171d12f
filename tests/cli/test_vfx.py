"""What compositing asks for, by the real command: EXR in and out, layers, depth, frame numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sa2va_host import media
from tests.exr_files import GREY, RED, corners, flat, pixels, read, rgb, window, write

from .conftest import contents, files

pytest.importorskip("OpenEXR", reason="an optional extra")

CASES = Path(__file__).parents[1] / "cases"
TINY = {"SA2VA_MODEL": "sa2va-tiny", "SA2VA_WORKER_PYTHON": sys.executable}


def square(left: int, top: int = 12, *, size: tuple[int, int] = (48, 64)) -> NDArray[np.float32]:
    """Black `[height, width, 3]` light with a white square of 24, which the script of the worker finds."""
    light = np.zeros((*size, 3), np.float32)
    light[top : top + 24, left : left + 24] = 2.5
    return light


def shot(folder: Path, count: int = 3) -> None:
    """Plates whose display window begins at (100, -20), with 4 pixels of overscan around it and pixels of 2:1."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        light = np.pad(square(8 + index), ((4, 4), (4, 4), (0, 0)), constant_values=9)
        write(
            folder / f"s.{1001 + index}.exr",
            rgb(light),
            displayWindow=window(100, -20, 64, 48),
            dataWindow=window(96, -24, 72, 56),
            pixelAspectRatio=2.0,
        )


def overlap(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((mask & other).sum() / (mask | other).sum())


def test_masks_of_cropped_plates_lie_where_the_plates_pixels_lie(sa2va, tmp_path):
    source = CASES / "exr-crop"
    done = sa2va(
        "video", source / "s.####.exr", "--prompt", "the red circle", "--save", "masks,probability,exr,cutout",
        "-o", "out",
        extra=TINY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = sa2va(
        "segment", source, "--prompt", "the red circle", "--save", "masks,exr", "-o", "alone", extra=TINY
    )
    assert alone.returncode == 0, alone.stderr
    for number in range(1001, 1007):
        light = np.zeros((120, 160, 3), np.float32)
        channels, _ = read(source / f"s.{number}.exr")
        light[20:, 10:] = np.dstack([channels[name] for name in "RGB"])  # where the case's data window lies
        red = (light[:, :, 0] > 0.5) & (light[:, :, 1] < 0.2)
        found = pixels(tmp_path / f"alone/s.{number}.0.png")
        assert found.shape == (120, 160)
        assert overlap(found > 0, red) > 0.9
        values, header = read(tmp_path / f"alone/s.{number}.0.probability.exr")
        assert corners(header["displayWindow"]) == [[0, 0], [159, 119]]
        np.testing.assert_array_equal(values["Y"] > 0.5, found > 0)
        name = f"the-red-circle/{number}"
        mask = pixels(tmp_path / f"out/masks/{name}.png") > 0
        matte = pixels(tmp_path / f"out/probability/{name}.png")
        assert mask.shape == matte.shape == (120, 160)
        if number < 1005:  # the small model's tracker loses it then, whatever the files are
            assert overlap(mask, red) > 0.9
        cut, header = read(tmp_path / f"out/cutout/{name}.exr")
        assert corners(header["displayWindow"]) == corners(header["dataWindow"]) == [[0, 0], [159, 119]]
        expected = (light * cut["A"].astype(np.float32)[:, :, None])[:, :, 0]
        np.testing.assert_allclose(cut["R"].astype(np.float32), expected, rtol=2e-3, atol=1e-4)


def test_outputs_of_plates_keep_their_display_window(sa2va, tmp_path):
    shot(tmp_path / "shot")
    done = sa2va(
        "video", "shot/s.####.exr", "--prompt", "objects=1", "--prompt", "objects=2",
        "--save", "masks,exr,exr-layers,cutout", "-o", "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for index in range(3):  # the same without windows
        media.write_image(
            tmp_path / f"p.{1001 + index}.png", (square(8 + index) > 0).astype(np.uint8) * np.uint8(255)
        )
    assert (
        sa2va("video", "p.####.png", "--prompt", "objects=1", "--save", "masks", "-o", "plain").returncode
        == 0
    )
    for index in range(3):
        layers, header = read(tmp_path / f"out/exr-layers/{1001 + index}.exr")
        assert set(layers) == {"objects_1.A", "objects_2_1.A", "objects_2_2.A"}
        assert corners(header["displayWindow"]) == corners(header["dataWindow"]) == [[100, -20], [163, 27]]
        assert header["pixelAspectRatio"] == 2.0
        values, header = read(tmp_path / f"out/exr/objects-1/{1001 + index}.exr")
        np.testing.assert_array_equal(values["Y"], layers["objects_1.A"])
        assert values["Y"].dtype == np.float16
        assert corners(header["dataWindow"]) == [[100, -20], [163, 27]]
        mask = pixels(tmp_path / f"out/masks/objects-1/{1001 + index}.png") > 0
        np.testing.assert_array_equal(
            mask, pixels(tmp_path / f"plain/masks/objects-1/{1001 + index}.png") > 0
        )
        cut, header = read(tmp_path / f"out/cutout/objects-1/{1001 + index}.exr")
        assert corners(header["dataWindow"]) == [[100, -20], [163, 27]]
        alpha = read(tmp_path / f"out/exr/objects-1/{1001 + index}.exr")[0]["Y"].astype(np.float32)
        expected = square(8 + index)[:, :, 0] * alpha
        np.testing.assert_allclose(cut["G"].astype(np.float32), expected, rtol=2e-3, atol=1e-4)
        assert float(cut["G"].max()) > 2  # light beyond white is kept


def test_a_resumed_run_writes_what_an_unbroken_one_does(sa2va, tmp_path):
    shot(tmp_path / "shot")
    command = (
        "video", "shot/s.####.exr", "--prompt", "objects=1", "--save", "exr,exr-layers,cutout", "--exr-depth", "float",
    )  # fmt: skip
    for folder in ("whole", "broken"):
        assert sa2va(*command, "-o", folder).returncode == 0
    whole = contents(tmp_path / "whole")
    assert {read(tmp_path / "whole" / name)[0].popitem()[1].dtype.name for name in whole} == {"float32"}
    for name in ("exr-layers/1002.exr", "cutout/objects-1/1003.exr"):
        (tmp_path / "broken" / name).unlink()
    manifest = tmp_path / "broken" / "run.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "finished": False}))
    again = sa2va(*command, "-o", "broken", "--resume")
    assert again.returncode == 0, again.stderr
    assert contents(tmp_path / "broken") == whole
    other = sa2va(*command[:-1], "half", "-o", "broken", "--resume")
    assert other.returncode == 2
    assert "other settings: outputs" in other.stderr


def test_a_picture_has_one_file_with_a_channel_for_each_object_of_all_prompts(sa2va, tmp_path):
    shot(tmp_path / "shot", 1)
    prompts = ("--prompt", "objects=2", "--prompt", "objects=0", "--prompt", "objects=1")
    done = sa2va("segment", "shot", *prompts, "--save", "exr,exr-layers,cutout", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("s.1001.layers.exr") == 1
    layers, header = read(tmp_path / "out/s.1001.layers.exr")
    assert set(layers) == {"objects_2_1.A", "objects_2_2.A", "objects_0.A", "objects_1.A"}
    assert not layers["objects_0.A"].any()
    assert corners(header["displayWindow"]) == [[100, -20], [163, 27]]
    values, header = read(tmp_path / "out/s.1001.objects-1.0.probability.exr")
    np.testing.assert_array_equal(values["Y"], layers["objects_1.A"])
    assert header["pixelAspectRatio"] == 2.0
    cut, _ = read(tmp_path / "out/s.1001.objects-1.0.cutout.exr")
    assert set(cut) == set("RGBA")


def test_layers_are_chosen_on_every_command(sa2va, tmp_path):
    channels = {**rgb(square(8), "ViewLayer.Combined."), **rgb(flat(GREY, (48, 64)), "ViewLayer.Env.")}
    for number in (1, 2):
        write(tmp_path / f"b.{number}.exr", channels)
    media.write_image(tmp_path / "plain.png", np.zeros((48, 64, 3), np.uint8))
    for command in (
        ("video", "b.#.exr", "--save", "none"), ("segment", "b.1.exr", "--save", "none"), ("chat", "b.1.exr"),
    ):  # fmt: skip
        refused = sa2va(*command, "--prompt", "objects=1")
        assert refused.returncode == 2
        assert "ViewLayer.Combined, ViewLayer.Env" in refused.stderr
        assert "Traceback" not in refused.stderr
        done = sa2va(*command, "--prompt", "objects=1", "--layer", "Combined")
        assert done.returncode == 0, done.stderr
        wrong = sa2va(*command, "--prompt", "objects=1", "--layer", "Diffuse")
        assert "no layer 'Diffuse'" in wrong.stderr
    mixed = sa2va(
        "segment",
        "b.1.exr",
        "plain.png",
        "--prompt",
        "objects=1",
        "--layer",
        "Env",
        "--save",
        "none",
        "--json",
    )
    document = json.loads(mixed.stdout)
    assert [result["image"] for result in document["results"]] == ["b.1.exr"]
    (failure,) = document["errors"]
    assert "plain.png has no layers" in failure["error"]


def test_a_damaged_plate_leaves_the_document_of_json_whole(sa2va, tmp_path):
    shot(tmp_path / "shot", 2)
    damaged = tmp_path / "shot/s.1002.exr"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    done = sa2va("segment", "shot", "--prompt", "objects=1", "--save", "none", "--json")
    document = json.loads(done.stdout)
    assert [len(document["results"]), len(document["errors"])] == [1, 1]
    assert "damaged" in document["errors"][0]["error"]


def test_an_output_is_not_written_over_an_exr_that_is_an_input(sa2va, tmp_path):
    shot(tmp_path / "shot", 1)
    for name in ("s.1001.layers.exr", "s.1001.0.probability.exr"):
        write(tmp_path / name, rgb(flat(RED)))
        done = sa2va("segment", "shot", name, "--prompt", "objects=1", "--save", "exr,exr-layers")
        assert done.returncode == 2
        assert f"written over {name}" in done.stderr


@pytest.mark.parametrize("command", ["segment", "video"])
def test_sixteen_bits_in_are_sixteen_bits_out(sa2va, tmp_path, command):
    deep = np.rint(np.clip(square(8), 0, 1) * 65535).astype(np.uint16)
    deep[deep > 0] -= np.arange(np.count_nonzero(deep), dtype=np.uint16) % 251
    cv2.imwrite(str(tmp_path / "d.1.png"), deep[:, :, ::-1])
    source = "d.1.png" if command == "segment" else "d.#.png"
    done = sa2va(command, source, "--prompt", "objects=1", "--save", "cutout", "-o", "out")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").rglob("*.png")
    made = pixels(path)
    assert made.dtype == np.uint16
    there = made[:, :, 3] > 0
    assert there.any()
    np.testing.assert_array_equal(made[there][:, 2::-1], deep[there])


def test_numbers_of_a_video_begin_where_they_are_told_to(sa2va, clip, tmp_path):
    common = ("--prompt", "objects=1", "--save", "masks,rle,davis,exr-layers", "--first-frame", "1001")
    done = sa2va("video", clip, *common, "--start", "1003", "--end", "1008", "--stride", "2", "-o", "out")
    assert done.returncode == 0, done.stderr
    numbers = [1003, 1005, 1007]
    assert files(tmp_path / "out" / "masks") == {f"objects-1/{number}.png" for number in numbers}
    assert files(tmp_path / "out" / "Annotations") == {f"clip/{number}.png" for number in numbers}
    assert files(tmp_path / "out" / "exr-layers") == {f"{number}.exr" for number in numbers}
    lines = [json.loads(line) for line in (tmp_path / "out/rle.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == numbers
    plain = sa2va(
        "video", clip, *common[:4], "--start", "2", "--end", "7", "--stride", "2", "-o", "plain"
    )  # fmt: skip
    assert plain.returncode == 0, plain.stderr
    for number in numbers:
        shown = tmp_path / f"plain/masks/objects-1/{number - 1001:05d}.png"
        assert shown.read_bytes() == (tmp_path / f"out/masks/objects-1/{number}.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clip.mp4", "--first-frame", "1001", "--end", "7"), "The last frame is 7, but the first one"),
        (("clip.mp4", "--first-frame", "1001", "--start", "2000"), "has 20 frames, from 1001"),
        (("clip.mp4", "--first-frame", "-1"), "The first frame's number is -1"),
        (("shot/s.####.exr", "--first-frame", "1"), "keep the numbers of their names"),
        (("clip.mp4", "--layer", "beauty"), "has no layers"),
        (("clip.mp4", "--decontaminate"), "none is saved"),
    ],
)
def test_what_does_not_go_together_is_said(sa2va, clip, tmp_path, arguments, message):
    shot(tmp_path / "shot")
    done = sa2va("video", *arguments, "--prompt", "objects=1", "--save", "masks", "-o", "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(400)  # the first import of pymatting compiles it
def test_soft_edges_of_cut_outs_and_alpha_videos_are_decontaminated(sa2va, clip, tmp_path):
    pytest.importorskip("pymatting", reason="an optional extra")
    command = ("video", clip, "--prompt", "objects=1", "--save", "cutout,alpha", "--end", "1")
    for name, more in (("plain", ()), ("clean", ("--decontaminate",))):
        done = sa2va(*command, *more, "-o", name)
        assert done.returncode == 0, done.stderr
    plain, clean = (pixels(tmp_path / f"{name}/cutout/objects-1/00000.png") for name in ("plain", "clean"))
    np.testing.assert_array_equal(plain[:, :, 3], clean[:, :, 3])
    soft = (plain[:, :, 3] > 64) & (plain[:, :, 3] < 255)
    # The square is white and its ground black, so what shines through at the edge darkens it.
    assert clean[soft][:, :3].mean() > plain[soft][:, :3].mean()
    assert (tmp_path / "clean/alpha/objects-1.mov").read_bytes() != (
        tmp_path / "plain/alpha/objects-1.mov"
    ).read_bytes()
