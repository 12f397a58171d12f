"""What more than 8 bits become: Radiance HDR and float TIFF as images, and cut-outs at the depth of the file."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from sa2va_host import media
from sa2va_host.errors import ConfigError, InvalidInput
from sa2va_host.masks.decontaminate import decontaminate
from sa2va_host.output.cutouts import Cutouts, cut_out
from sa2va_host.output.exr_layers import channel_names
from sa2va_host.output.recording import Recording
from sa2va_host.plate import Plate
from sa2va_host.video.clip import Selection, open_clip
from tests.exr_files import RED, corners, flat, pixels, read, rgb, window, write

LIGHT = np.array([[[0.0, 0.214, 1.0], [0.25, 0.5, 1.2]]], np.float32)
"""R, G, B of two pixels."""
SRGB = [[0, 127, 255], [137, 188, 255]]


def cut(path: Path, probability, folder: Path, **options):
    """The cut-out of an image file, written with its own suffix."""
    cutouts = Cutouts(media.read_image(path), Plate(path), **options)
    return cutouts.write(folder / f"cut{cutouts.suffix}", np.asarray(probability, np.float32))


@pytest.mark.parametrize("name", ["a.hdr", "a.tif", "a.tiff"])
def test_radiance_and_float_tiff_are_linear_light(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), LIGHT[:, :, ::-1])
    seen = media.read_image(tmp_path / name)
    assert np.abs(seen[0].astype(int) - SRGB).max() <= 2  # Radiance has 8 bits beside a shared exponent
    assert media.image_size(tmp_path / name) == (1, 2)
    (frame,) = open_clip(str(tmp_path / f"*{Path(name).suffix}"))
    np.testing.assert_array_equal(frame.picture, seen)


def test_64_bits_and_infinity_are_light_too(tmp_path):
    values = np.array([[[np.nan, -1.0, np.inf]]], np.float64)
    cv2.imwrite(str(tmp_path / "a.tif"), values[:, :, ::-1])
    assert media.read_image(tmp_path / "a.tif").tolist() == [[[0, 0, 255]]]


def test_a_float_tiff_with_alpha_is_on_white(tmp_path):
    values = np.zeros((1, 2, 4), np.float32)
    values[0, 1] = (*RED[::-1], 1)
    cv2.imwrite(str(tmp_path / "a.tif"), values)
    assert media.read_image(tmp_path / "a.tif")[0].tolist() == [[255] * 3, [231, 39, 39]]


def _tags(path: Path, **changed: int) -> None:
    """Put other values of two bytes into the first directory of a little-endian TIFF."""
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", content, place)
        if f"tag{tag}" in changed:
            struct.pack_into("<H", content, place + 8, changed[f"tag{tag}"])
    path.write_bytes(content)


def test_forms_that_are_not_read_are_said(tmp_path, capfd):
    planar = tmp_path / "planar.tif"
    cv2.imwrite(str(planar), LIGHT)
    _tags(planar, tag284=2)
    cv2.imwrite(str(tmp_path / "a.hdr"), LIGHT)
    whole = (tmp_path / "a.hdr").read_bytes()
    (tmp_path / "turned.hdr").write_bytes(whole.replace(b"-Y 1 +X 2", b"+Y 1 +X 2"))
    (tmp_path / "xyz.hdr").write_bytes(whole.replace(b"rle_rgbe", b"rle_xyze"))
    (tmp_path / "headless.hdr").write_bytes(whole[:15])
    (tmp_path / "cut.hdr").write_bytes(whole[:-4])
    cut_tiff = np.random.default_rng(0).random((40, 40, 3)).astype(np.float32)
    cv2.imwrite(str(tmp_path / "cut.tif"), cut_tiff)
    content = (tmp_path / "cut.tif").read_bytes()
    (start,) = struct.unpack_from("<I", content, 4)
    # The pixels lie before the directory: a directory that points behind the end is what a cut file has.
    (tmp_path / "cut.tif").write_bytes(content[:start])
    for name, said in {
        "planar.tif": "planar",
        "turned.hdr": "turned or mirrored",
        "xyz.hdr": "XYZ colours",
        "headless.hdr": "names no size",
        "cut.hdr": "damaged or cut short",
        "cut.tif": "cannot be read|is not a",
    }.items():
        with pytest.raises(InvalidInput, match=said):
            media.read_image(tmp_path / name)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_cut_out_of_exr_is_the_plates_light_times_its_alpha(tmp_path):
    pytest.importorskip("OpenEXR", reason="an optional extra")
    values = np.random.default_rng(0).random((6, 8, 3)).astype(np.float16) * np.float16(9)
    values[0, 0], values[0, 1] = np.inf, np.nan
    primaries = (0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767)
    path = write(
        tmp_path / "plate.exr",
        rgb(values),
        displayWindow=window(-4, 7, 10, 7),
        dataWindow=window(-3, 8, 8, 6),
        chromaticities=primaries,
        pixelAspectRatio=2.0,
    )
    probability = np.zeros((7, 10), np.float32)
    probability[1:, 1:5], probability[1:, 5:7] = 1, 0.25
    probability[1, 1:3] = 0
    channels, header = read(cut(path, probability, tmp_path))
    assert corners(header["displayWindow"]) == corners(header["dataWindow"]) == [[-4, 7], [5, 13]]
    assert header["pixelAspectRatio"] == 2.0
    np.testing.assert_allclose(header["chromaticities"], primaries, rtol=1e-6)
    expected = np.zeros((7, 10, 3), np.float32)
    expected[1:, 1:9] = values
    expected[probability == 0] = 0
    expected *= probability[:, :, None]
    for place, name in enumerate("RGB"):
        assert channels[name].dtype == np.float16
        np.testing.assert_array_equal(channels[name], expected[:, :, place].astype(np.float16))
    np.testing.assert_array_equal(channels["A"], probability)
    whole = read(cut(path, probability, tmp_path, exr_depth="float"))[0]
    np.testing.assert_array_equal(whole["G"], expected[:, :, 1])


def test_a_cut_out_of_a_render_keeps_its_own_alpha(tmp_path):
    pytest.importorskip("OpenEXR", reason="an optional extra")
    path = write(tmp_path / "cg.exr", rgb(flat((0.4, 0.2, 0.1, 0.5), (2, 2))))
    channels, _ = read(cut(path, [[1, 0.5], [0, 1]], tmp_path))
    assert channels["A"].tolist() == [[0.5, 0.25], [0, 0.5]]
    np.testing.assert_allclose(channels["R"], [[0.4, 0.2], [0, 0.4]], rtol=1e-3)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_cut_out_of_sixteen_bits_has_them(tmp_path, name):
    values = np.random.default_rng(0).integers(1, 65536, (4, 5, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / name), values[:, :, ::-1])
    probability = np.full((4, 5), 0.5, np.float32)
    probability[0], probability[1] = 0, 1
    path = cut(tmp_path / name, probability, tmp_path / "out")
    made = pixels(path)
    assert path.suffix == ".png"
    assert made.dtype == np.uint16
    assert made[:, 0, 3].tolist() == [0, 65535, 32768, 32768]
    np.testing.assert_array_equal(made[1:, :, 2::-1], values[1:])
    assert not made[0].any()


def test_a_cut_out_of_sixteen_bits_keeps_transparency_turn_and_profile(tmp_path):
    values = np.random.default_rng(0).integers(1, 65536, (4, 5, 4)).astype(np.uint16)
    values[0, :, 3] = 0
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    from sa2va_host import png

    path = tmp_path / "a.png"
    path.write_bytes(png.encode(values, profile=profile))
    with Image.open(path) as image:
        assert image.info["icc_profile"] == profile
        image.load()
    made = cut(path, np.ones((4, 5)), tmp_path / "out")
    read_back = pixels(made)
    np.testing.assert_array_equal(read_back[1:, :, [2, 1, 0, 3]], values[1:])
    assert not read_back[0].any()
    with Image.open(made) as image:
        assert image.info["icc_profile"] == profile
    tiff = tmp_path / "turned.tif"
    cv2.imwrite(str(tiff), values[:, :, 2::-1])
    with Image.open(tiff) as image:
        assert image.size == (5, 4)
    _tags(tiff, tag274=6)
    with Image.open(tiff) as image:
        turned = image.getexif().get(274, 1) == 6
    size = media.image_size(tiff)
    made = cut(tiff, np.ones(size), tmp_path / "out")
    expected = np.rot90(values[:, :, :3], -1) if turned else values[:, :, :3]
    np.testing.assert_array_equal(pixels(made)[:, :, 2::-1], expected)


def test_a_grey_plate_with_a_transparent_value_has_it(tmp_path):
    import zlib

    grey = np.array([[300, 1000]], ">u2")

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    path = tmp_path / "a.png"
    header = struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)
    content = zlib.compress(b"\0" + grey.tobytes())
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(">H", 300))
        + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )  # fmt: skip
    made = pixels(cut(path, [[1, 1]], tmp_path / "out"))
    assert made.tolist() == [[[0, 0, 0, 0], [1000, 1000, 1000, 65535]]]


def test_eight_bits_stay_eight(tmp_path):
    path = media.write_image(tmp_path / "a.png", np.full((4, 4, 3), 9, np.uint8))
    assert Plate(path).deep() is None
    made = cut(path, np.ones((4, 4)), tmp_path / "out")
    assert pixels(made).tolist() == [[[9, 9, 9, 255]] * 4] * 4


def test_a_scaled_plate_has_the_size_and_the_place_of_its_frame(tmp_path):
    pytest.importorskip("OpenEXR", reason="an optional extra")
    write(
        tmp_path / "s.1.exr",
        rgb(flat(RED, (40, 80))),
        displayWindow=window(100, -20, 80, 40),
        dataWindow=window(100, -20, 80, 40),
    )
    (frame,) = open_clip(tmp_path / "s.#.exr", Selection(max_size=20))
    assert frame.picture.shape == (10, 20, 3)
    cutouts = Cutouts(frame.picture, frame.plate)
    channels, header = read(cutouts.write(tmp_path / "cut.exr", np.ones((10, 20), np.float32)))
    assert corners(header["displayWindow"]) == [[25, -5], [44, 4]]
    np.testing.assert_allclose(channels["R"], RED[0], rtol=1e-3)


def test_a_plate_that_was_replaced_is_said(tmp_path):
    pytest.importorskip("OpenEXR", reason="an optional extra")
    path = write(tmp_path / "a.exr", rgb(flat(RED)))
    cutouts = Cutouts(media.read_image(path), Plate(path))
    write(path, rgb(flat(RED, (3, 3))))
    with pytest.raises(InvalidInput, match="changed its size"):
        cutouts.write(tmp_path / "cut.exr", np.ones((6, 8), np.float32))


def test_channels_have_legal_names_of_their_own():
    names = [
        "the-red-circle",
        "The red circle",
        "2 dogs",
        "Жук",
        "собака",
        "alpha",
        "the-red-circle-2",
        "é" * 200,
    ]
    made = channel_names(names)
    assert made[:4] == ["the_red_circle.A", "the_red_circle_3.A", "object_2_dogs.A", "object_1.A"]
    assert made[4:7] == ["object_2.A", "alpha_2.A", "the_red_circle_2.A"]
    assert len({name.casefold() for name in made}) == len(names)
    assert all(name.isascii() and len(name) < 64 for name in made)
    assert all(name[0].isalpha() and name.removesuffix(".A").replace("_", "").isalnum() for name in made)


def soft_disc(inside, outside):
    """An object of one colour on a ground of another, mixed where its edge is soft, and its alpha."""
    y, x = np.mgrid[:40, :40]
    alpha = np.clip((14 - np.hypot(y - 20, x - 20)) / 6, 0, 1).astype(np.float32)
    mixed = alpha[:, :, None] * np.float32(inside) + (1 - alpha[:, :, None]) * np.float32(outside)
    return mixed.astype(np.float32), alpha


@pytest.mark.timeout(400)  # the first import of pymatting compiles it
def test_soft_edges_are_freed_of_the_background(tmp_path):
    pytest.importorskip("pymatting", reason="an optional extra")
    for top in (1.0, 50.0):  # light has no upper end
        mixed, alpha = soft_disc(np.array([0.9, 0.1, 0.1]) * top, np.array([0.1, 0.1, 0.9]) * top)
        freed = decontaminate(mixed, alpha)
        edge = (alpha > 0.2) & (alpha < 1)
        before = np.abs(mixed[edge] / top - [0.9, 0.1, 0.1]).max()
        after = np.abs(freed[edge] / top - [0.9, 0.1, 0.1]).max()
        assert before > 0.5
        assert after < 0.1
        np.testing.assert_array_equal(
            freed[~((alpha > 0) & (alpha < 1))], mixed[~((alpha > 0) & (alpha < 1))]
        )
    mixed, alpha = soft_disc([230, 25, 25], [25, 25, 230])
    picture = np.rint(mixed).astype(np.uint8)
    plain, clean = cut_out(picture, alpha), cut_out(picture, alpha, decontaminated=True)
    np.testing.assert_array_equal(plain[:, :, 3], clean[:, :, 3])
    edge = (plain[:, :, 3] > 60) & (plain[:, :, 3] < 255)
    assert plain[edge][:, 2].max() > 120
    assert clean[edge][:, 2].max() < 60
    assert not clean[clean[:, :, 3] == 0].any()


@pytest.mark.timeout(400)  # the first import of pymatting compiles it
def test_soft_edges_of_plates_are_freed_at_full_depth(tmp_path):
    pytest.importorskip("pymatting", reason="an optional extra")
    pytest.importorskip("OpenEXR", reason="an optional extra")
    mixed, alpha = soft_disc([40, 1, 1], [1, 1, 40])
    mixed[0, 0] = np.inf
    path = write(tmp_path / "a.exr", rgb(mixed))
    channels, _ = read(cut(path, alpha, tmp_path, exr_depth="float", decontaminated=True))
    edge = alpha > 0.2
    assert np.abs(channels["R"][edge] - 40 * alpha[edge]).max() < 2
    assert np.abs(channels["B"][edge] - alpha[edge]).max() < 2
    assert np.isfinite(channels["R"]).all()


@pytest.mark.timeout(400)  # the first import of pymatting compiles it
def test_without_soft_edges_nothing_is_estimated():
    pytest.importorskip("pymatting", reason="an optional extra")
    picture = np.full((1, 1, 3), 9, np.uint8)
    assert decontaminate(picture, np.array([[0.5]], np.float32)).tolist() == [[[9, 9, 9]]]
    black = np.zeros((4, 4, 3), np.uint8)
    assert not decontaminate(black, np.full((4, 4), 0.5, np.float32)).any()


def test_without_pymatting_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymatting", None)
    with pytest.raises(ConfigError, match=r"pip install 'pymatting>="):
        decontaminate(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 0.5, np.float32))


def test_what_needs_openexr_says_so_before_anything_is_written(monkeypatch, tmp_path):
    cv2.imwrite(str(tmp_path / "a.hdr"), LIGHT)
    clip = open_clip(tmp_path / "*.hdr")
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(ConfigError, match=r"pip install 'OpenEXR>="):
        Recording(tmp_path / "out", clip, ["cutout"])
    with pytest.raises(ConfigError, match=r"pip install 'OpenEXR>="):
        Recording(tmp_path / "out", clip, ["exr-layers"])
    assert not (tmp_path / "out").exists()
    Recording(tmp_path / "out", clip, ["masks"]).close()
