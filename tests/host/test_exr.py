"""OpenEXR as it comes: windows, layers, parts, alpha, and what is not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sa2va_host import media
from sa2va_host.errors import ConfigError, InvalidInput
from sa2va_host.exr import read_exr, write_exr
from sa2va_host.light import Light, Window
from sa2va_host.video.clip import open_clip
from tests.exr_files import GREY, RED, WHITE, corners, flat, read, rgb, window, write, write_parts

OpenEXR = pytest.importorskip("OpenEXR", reason="an optional extra")

CASES = Path(__file__).parents[1] / "cases"
RED_SRGB, GREY_SRGB = [231, 39, 39], [118, 118, 118]
"""What the curve of IEC 61966-2-1 makes of half floats of `RED` and `GREY`."""


def light(path: Path, layer: str | None = None) -> Light:
    return read_exr(path, layer, str(path))


@pytest.mark.parametrize(
    ("x", "y", "size", "seen"),
    [
        (10, 20, (100, 150), (slice(20, 120), slice(10, 160))),  # inside
        (-5, -7, (140, 180), (slice(0, 120), slice(0, 160))),  # larger: overscan
        (150, 110, (50, 60), (slice(110, 120), slice(150, 160))),  # over a corner
        (-30, 40, (20, 40), (slice(40, 60), slice(0, 10))),  # over the left edge
        (500, 500, (4, 4), (slice(0, 0), slice(0, 0))),  # outside
        (-9, 0, (4, 4), (slice(0, 0), slice(0, 0))),
    ],
)
def test_an_image_has_the_display_window_and_is_black_outside_the_data(tmp_path, x, y, size, seen):
    values = np.random.default_rng(0).random((*size, 3)).astype(np.float32) + 1
    for left, top in ((0, 0), (100, -50)):  # where the display window begins
        path = write(
            tmp_path / "a.exr",
            rgb(values),
            displayWindow=window(left, top, 160, 120),
            dataWindow=window(left + x, top + y, size[1], size[0]),
        )
        expected = np.zeros((120, 160, 3), np.float32)
        rows, columns = seen
        expected[rows, columns] = values[
            rows.start - y if rows.stop else 0 : rows.stop - y if rows.stop else 0,
            columns.start - x if columns.stop else 0 : columns.stop - x if columns.stop else 0,
        ]
        read_back = light(path)
        np.testing.assert_array_equal(read_back.rgb, expected)
        assert read_back.window == Window(left, top)
        assert media.image_size(path) == (120, 160)
        assert media.read_image(path).shape == (120, 160, 3)


def test_the_plates_of_a_crop_have_their_display_window():
    for frame in open_clip(CASES / "exr-crop" / "s.####.exr"):
        assert frame.picture.shape == (120, 160, 3)
        # The case's data window: 150 x 100 from (10, 20).
        assert not frame.picture[:20].any()
        assert not frame.picture[:, :10].any()
        assert frame.picture[20:, 10:].any(axis=2).all()


def test_a_data_window_that_moves_and_grows_is_one_video(tmp_path):
    for number in range(1, 5):
        path = tmp_path / f"s.{number:04d}.exr"
        data = window(3 * number, 2, 6 + number, 5)
        write(path, rgb(flat(WHITE, (5, 6 + number))), displayWindow=window(0, 0, 40, 20), dataWindow=data)
    clip = open_clip(tmp_path / "s.####.exr")
    for frame in clip:
        lit = np.argwhere(frame.picture.any(axis=2))
        assert frame.picture.shape == (20, 40, 3)
        low, high = [2, 3 * frame.number], [6, 4 * frame.number + 5]
        assert (lit.min(axis=0).tolist(), lit.max(axis=0).tolist()) == (low, high)


def test_display_windows_that_differ_are_no_video(tmp_path):
    for number, width in ((1, 40), (2, 41)):
        path = tmp_path / f"s.{number}.exr"
        write(path, rgb(flat(WHITE)), displayWindow=window(0, 0, width, 20), dataWindow=window(0, 0, 8, 6))
    with pytest.raises(InvalidInput, match=r"40 x 20 pixels and s\.2\.exr 41 x 20"):
        open_clip(tmp_path / "s.#.exr")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint32])
def test_half_float_and_whole_numbers_are_the_same_light(tmp_path, dtype):
    values = np.array([[[0, 1, 7]]], dtype)
    np.testing.assert_array_equal(light(write(tmp_path / "a.exr", rgb(values))).rgb, [[[0, 1, 7]]])


def test_tiles_are_read(tmp_path):
    values = np.random.default_rng(0).random((70, 90, 3)).astype(np.float32)
    header = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
    np.testing.assert_array_equal(light(write(tmp_path / "t.exr", rgb(values), **header)).rgb, values)


def test_what_is_transparent_is_white_also_outside_the_data(tmp_path):
    premultiplied = np.zeros((2, 3, 4), np.float32)
    premultiplied[:, 1] = (*RED, 1)
    premultiplied[:, 2] = (*(0.5 * np.array(RED)), 0.5)
    path = write(
        tmp_path / "cg.exr",
        rgb(premultiplied),
        displayWindow=window(0, 0, 5, 2),
        dataWindow=window(1, 0, 3, 2),
    )
    seen = media.read_image(path)[0]
    assert seen[[0, 1, 4]].tolist() == [[255] * 3] * 3
    assert seen[2].tolist() == RED_SRGB
    # Half of red and half of white, added as light: 0.9 and 0.51.
    assert seen[3].tolist() == [243, 189, 189]


def test_alpha_that_was_left_empty_is_said(tmp_path):
    path = write(tmp_path / "plate.exr", {**rgb(flat(RED)), "A": np.zeros((6, 8), np.float16)})
    notes: list[str] = []
    assert (media.read_image(path, notes=notes) == 255).all()
    (note,) = notes
    assert "alpha of" in note
    assert "0 everywhere" in note
    clip = open_clip(tmp_path / "plate*.exr")
    list(clip)
    assert clip.warnings == notes
    opaque = write(tmp_path / "b.exr", {**rgb(flat(RED)), "A": np.ones((6, 8), np.float16)})
    assert media.read_image(opaque, notes=notes)[0, 0].tolist() == RED_SRGB
    assert len(notes) == 1


def test_one_layer_with_colours_is_taken_whatever_it_is_called(tmp_path):
    depth = {"ViewLayer.Depth.Z": np.ones((6, 8), np.float32)}
    normal = {f"ViewLayer.Normal.{axis}": np.ones((6, 8), np.float32) for axis in "XYZ"}
    for prefix in ("beauty.", "ViewLayer.Combined.", "left."):
        path = write(tmp_path / "a.exr", {**rgb(flat((*RED, 1)), prefix), **depth, **normal})
        assert media.read_image(path)[0, 0].tolist() == RED_SRGB
    nuke = {
        f"beauty.{name}": flat(RED)[:, :, place].copy() for place, name in enumerate(("red", "green", "blue"))
    }
    assert media.read_image(write(tmp_path / "n.exr", nuke))[0, 0].tolist() == RED_SRGB


def test_the_plain_colours_come_before_other_layers(tmp_path):
    path = write(tmp_path / "a.exr", {**rgb(flat(RED)), **rgb(flat(GREY), "diffuse.")})
    assert media.read_image(path)[0, 0].tolist() == RED_SRGB
    assert media.read_image(path, layer="rgba")[0, 0].tolist() == RED_SRGB
    assert media.read_image(path, layer="diffuse")[0, 0].tolist() == GREY_SRGB


def test_of_several_layers_one_is_chosen_and_the_error_lists_them(tmp_path):
    channels = {**rgb(flat((*RED, 1)), "ViewLayer.Combined."), **rgb(flat(GREY), "ViewLayer.DiffCol.")}
    path = write(tmp_path / "blender.exr", channels)
    with pytest.raises(
        InvalidInput, match=r"ViewLayer\.Combined, ViewLayer\.DiffCol\. Choose one with --layer"
    ):
        media.read_image(path)
    for name in ("ViewLayer.Combined", "Combined", "viewlayer.combined"):
        assert media.read_image(path, layer=name)[0, 0].tolist() == RED_SRGB
    assert media.read_image(path, layer="DiffCol")[0, 0].tolist() == GREY_SRGB
    with pytest.raises(
        InvalidInput, match=r"no layer 'Spec'.*It has ViewLayer\.Combined, ViewLayer\.DiffCol"
    ):
        media.image_size(path, layer="Spec")
    with pytest.raises(InvalidInput, match="several layers called 'ViewLayer'"):
        media.read_image(path, layer="ViewLayer")
    (frame,) = open_clip(tmp_path / "blender*.exr", layer="DiffCol")
    assert frame.picture[0, 0].tolist() == GREY_SRGB


def test_cryptomatte_is_no_image_unless_it_is_named(tmp_path):
    ids = {f"ViewLayer.CryptoObject00.{name}": np.ones((6, 8), np.float32) for name in "rgba"}
    header = {"cryptomatte/f834d0a/name": "ViewLayer.CryptoObject"}
    path = write(tmp_path / "a.exr", {**rgb(flat(RED), "ViewLayer.Combined."), **ids}, **header)
    assert media.read_image(path)[0, 0].tolist() == RED_SRGB
    assert (media.read_image(path, layer="CryptoObject00") == 255).all()


def test_parts_are_chosen_by_their_names(tmp_path):
    path = write_parts(
        tmp_path / "stereo.exr",
        {"left": rgb(flat(RED)), "right": rgb(flat(GREY), "right."), "z": {"Z": flat(RED)[:, :, 0].copy()}},
    )
    with pytest.raises(InvalidInput, match="several layers: left, right"):
        media.read_image(path)
    assert media.read_image(path, layer="left")[0, 0].tolist() == RED_SRGB
    assert media.read_image(path, layer="right")[0, 0].tolist() == GREY_SRGB
    main = write_parts(tmp_path / "nuke.exr", {"diffuse": rgb(flat(GREY)), "rgba": rgb(flat(RED))})
    assert media.read_image(main)[0, 0].tolist() == RED_SRGB


def test_the_first_view_of_a_stereo_file_has_plain_channels(tmp_path):
    channels = {**rgb(flat(RED)), **rgb(flat(GREY), "right.")}
    path = write(tmp_path / "stereo.exr", channels, multiView=["left", "right"])
    assert media.read_image(path)[0, 0].tolist() == RED_SRGB
    assert media.read_image(path, layer="left")[0, 0].tolist() == RED_SRGB
    assert media.read_image(path, layer="right")[0, 0].tolist() == GREY_SRGB


def test_what_is_not_read_is_said_in_words(tmp_path):
    deep = np.empty((2, 2), object)
    for place in np.ndindex(2, 2):
        deep[place] = np.array([1.0, 2.0], np.float32)
    write(
        tmp_path / "deep.exr",
        dict.fromkeys("RGBA", deep),
        type=OpenEXR.deepscanline,
        compression=OpenEXR.ZIPS_COMPRESSION,
    )
    chroma = {name: np.ones((4, 4), np.float32) for name in ("Y", "RY", "BY")}
    write(tmp_path / "chroma.exr", chroma)
    write(tmp_path / "z.exr", {"Z": np.ones((4, 4), np.float32)})
    write(
        tmp_path / "huge.exr",
        rgb(flat(RED)),
        displayWindow=window(0, 0, 2**15, 2**15),
        dataWindow=window(0, 0, 8, 6),
    )
    (tmp_path / "none.exr").write_bytes(b"no image at all")
    for name, said in {
        "deep": "holds deep data",
        "chroma": "luminance and chroma",
        "z": "has the channels Z; R, G and B or Y are needed",
        "huge": "more than 1024 MiB",
        "none": "damaged or not an OpenEXR image",
    }.items():
        with pytest.raises(InvalidInput, match=said):
            media.read_image(tmp_path / f"{name}.exr")


def test_subsampled_channels_are_refused(tmp_path):
    channels = {
        "R": OpenEXR.Channel(np.ones((4, 4), np.float32), 1, 1),
        "G": OpenEXR.Channel(np.ones((4, 4), np.float32), 2, 2),
        "B": OpenEXR.Channel(np.ones((4, 4), np.float32), 2, 2),
    }
    try:
        path = write(tmp_path / "s.exr", channels, dataWindow=window(0, 0, 4, 4))
    except (RuntimeError, ValueError):
        pytest.skip("this version of OpenEXR writes none")
    with pytest.raises(InvalidInput, match="subsampled"):
        media.read_image(path)


def test_a_cut_file_is_damaged_and_prints_nothing(tmp_path, capsys):
    whole = write(tmp_path / "a.exr", rgb(np.random.default_rng(0).random((120, 160, 3)).astype(np.float32)))
    content = whole.read_bytes()
    for length in (20, 400, len(content) // 2, len(content) - 5):
        cut = tmp_path / "cut.exr"
        cut.write_bytes(content[:length])
        with pytest.raises(InvalidInput, match="damaged"):
            media.read_image(cut)
    assert capsys.readouterr().out == ""


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch, tmp_path):
    path = write(tmp_path / "a.exr", rgb(flat(RED)))
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(ConfigError, match=r"pip install 'OpenEXR>="):
        media.read_image(path)


def test_other_files_have_no_layers(tmp_path):
    media.write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    for call in (media.read_image, media.image_size):
        with pytest.raises(InvalidInput, match="has no layers"):
            call(tmp_path / "a.png", layer="beauty")
    with pytest.raises(InvalidInput, match="has no layers, which only OpenEXR files have"):
        media.read_image(np.zeros((4, 4, 3), np.uint8), layer="beauty")


def test_what_is_written_keeps_window_and_aspect_and_holds_what_half_floats_can(tmp_path):
    values = np.array([[1e6, -1e6, np.inf, 0.1]], np.float32)
    path = write_exr(tmp_path / "a.exr", {"Y": values}, window=Window(-7, 1000, 2.0))
    channels, header = read(path)
    assert channels["Y"].dtype == np.float16
    assert channels["Y"].tolist() == [[65504, -65504, np.inf, np.float16(0.1)]]
    assert corners(header["displayWindow"]) == corners(header["dataWindow"]) == [[-7, 1000], [-4, 1000]]
    assert header["pixelAspectRatio"] == 2.0
    whole = read(write_exr(tmp_path / "b.exr", {"Y": values}, depth="float"))[0]
    np.testing.assert_array_equal(whole["Y"], values)
