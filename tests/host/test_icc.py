"""Embedded colour profiles: what a colour-managed viewer shows is what the model sees and what is written."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from sa2va_host import media
from tests import profiles

CASES = Path(__file__).parents[1] / "cases"


def saved(image: Image.Image, kind: str, profile: bytes) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, icc_profile=profile)
    return stream.getvalue()


def read(content: bytes) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    return media.read_image(content, notes=notes), notes


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light as sRGB, after IEC 61966-2-1."""
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def test_a_wide_gamut_photo_is_what_littlecms_makes_of_it():
    path = CASES / "icc-p3-like.jpg"
    notes: list[str] = []
    found = media.read_image(path, notes=notes)
    with Image.open(path) as image:
        plain = np.asarray(image)
        theirs = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"])),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    assert np.array_equal(found, np.asarray(theirs))
    assert 55 <= np.abs(found.astype(int) - plain).max() <= 60
    assert notes == []


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_primaries_that_are_swapped_are_swapped_back(colours, kind):
    """By arithmetic of our own: with red and blue exchanged in the profile, the channels are exchanged."""
    red, green, blue = profiles.SRGB
    swapped = profiles.matrix((blue, green, red))
    stream = io.BytesIO()
    Image.fromarray(colours).save(
        stream, kind, icc_profile=swapped, **({"lossless": True} if kind == "WEBP" else {})
    )
    found, notes = read(stream.getvalue())
    assert np.abs(found.astype(int) - colours[:, :, ::-1]).max() <= 1
    assert notes == []


def test_a_gamma_is_applied(colours):
    found, _ = read(saved(Image.fromarray(colours), "PNG", profiles.matrix(gamma=1.0)))
    assert np.abs(found - encoded(colours / 255)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_grey_profiles(mode):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    image = (
        Image.fromarray(ramp.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(ramp).convert(mode)
    )
    found, notes = read(saved(image, "PNG", profiles.grey(1.0)))
    light = np.asarray(image.convert("L")) / 255 if mode != "I;16" else ramp / 255
    assert np.abs(found - encoded(light)[:, :, None]).max() <= 1
    assert notes == []


def test_cmyk_goes_through_the_tables_of_its_profile():
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    found, notes = read(saved(image, "TIFF", profiles.cmyk()))
    assert np.abs(found.astype(int) - 119).max() <= 2  # Lab (50, 0, 0) in sRGB
    assert notes == []
    assert (
        np.abs(read(saved(Image.new("CMYK", (8, 8)), "TIFF", profiles.cmyk()))[0].astype(int) - 255).max()
        <= 2
    )


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparency_stays(colours, mode):
    red, green, blue = profiles.SRGB
    image = Image.fromarray(colours).quantize(64) if mode == "P" else Image.fromarray(colours).convert(mode)
    shown = np.asarray(image.convert("RGB"))
    if mode == "P":
        hidden = np.asarray(image) == 5
        image.info["transparency"] = 5
    else:
        hidden = np.tile([True, False], (40, 25))
        image.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    found, _ = read(saved(image, "PNG", profiles.matrix((blue, green, red))))
    assert 0 < hidden.sum() < hidden.size
    assert (found[hidden] == 255).all()
    assert np.abs(found[~hidden].astype(int) - shown[~hidden][:, ::-1]).max() <= 1


def test_an_srgb_profile_changes_no_bit_and_needs_no_littlecms(colours, tmp_path):
    for number, profile in enumerate(
        (
            profiles.matrix(),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
            with_curve_table(),
        )
    ):
        path = tmp_path / f"{number}.png"
        path.write_bytes(saved(Image.fromarray(colours), "PNG", profile))
        assert np.array_equal(media.read_image(path), colours)
        code = (
            f"import sys; from sa2va_host import media; media.read_pixels({str(path)!r});"
            "print('PIL.ImageCms' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["False"]


def with_curve_table() -> bytes:
    """sRGB with a curve of 1024 points, as Hewlett-Packard's profile, which cameras embed."""
    values = np.linspace(0, 1, 1024)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    table = np.rint(linear * 65535).astype(">u2").tobytes()
    curve = b"curv" + bytes(4) + (1024).to_bytes(4, "big") + table
    primaries = zip((b"rXYZ", b"gXYZ", b"bXYZ"), profiles.SRGB, strict=True)
    tags = {name: profiles._xyz(*xyz) for name, xyz in primaries}
    return profiles._profile(
        b"mntr", b"RGB ", b"XYZ ", {**tags, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    )


@pytest.mark.parametrize(
    "profile", [b"no profile", profiles.matrix()[:200], bytes(500), profiles.matrix(gamma=1.0)[:300]]
)
def test_a_broken_profile_is_a_note(colours, profile):
    found, notes = read(saved(Image.fromarray(colours), "PNG", profile))
    assert np.array_equal(found, colours)
    (note,) = notes
    assert note == "The ICC profile of The image cannot be used; its colours are taken as sRGB."


def test_a_profile_that_a_png_does_not_unpack_to_is_a_note(colours, tmp_path):
    content = saved(Image.fromarray(colours), "PNG", profiles.matrix(gamma=1.0))
    start = content.index(b"iCCP")
    length = int.from_bytes(content[start - 4 : start], "big")
    chunk = b"iCCPICC Profile\0\0" + b"no zlib stream".ljust(length - 13, b"!")
    broken = content[:start] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + content[start + length + 8 :]
    path = tmp_path / "a.png"
    path.write_bytes(broken)
    notes: list[str] = []
    assert np.array_equal(media.read_image(path, notes=notes), colours)
    assert notes == [f"The ICC profile of {path} cannot be used; its colours are taken as sRGB."]


def test_a_profile_for_another_kind_of_image_is_a_note(colours):
    found, notes = read(saved(Image.fromarray(colours), "PNG", profiles.grey(1.0)))
    assert np.array_equal(found, colours)
    assert notes == [
        "The ICC profile of The image is for grey images, and this one is RGB; its colours are taken as sRGB."
    ]


def test_images_of_pillow_have_their_profile_applied_too(colours):
    with Image.open(io.BytesIO(saved(Image.fromarray(colours), "PNG", profiles.matrix(gamma=1.0)))) as image:
        assert np.abs(media.read_image(image) - encoded(colours / 255)).max() <= 1


def test_a_large_image_is_converted_in_strips_as_a_small_one(colours, monkeypatch):
    from sa2va_host import opening

    content = saved(Image.fromarray(colours), "PNG", profiles.matrix(gamma=1.8))
    whole = media.read_image(content)
    monkeypatch.setattr(opening, "STRIP_PIXELS", 50 * 7)
    assert np.array_equal(media.read_image(content), whole)
