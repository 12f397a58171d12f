"""Everything that is a picture is read right; everything that is not says so in one sentence."""

from __future__ import annotations

import errno
import io
import mmap
import os
import stat
import sys

import numpy as np
import pytest
from PIL import Image

from sa2va_host import media
from sa2va_host.errors import InvalidInput

RED = (250, 10, 20)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)


def save(image, path, **options):
    image.save(path, **options)
    return path


def test_file_pil_and_array_agree(tmp_path, picture):
    path = save(Image.fromarray(picture), tmp_path / "a.png")
    for source in (path, str(path), Image.fromarray(picture), picture, picture[:, ::-1][:, ::-1]):
        read = media.read_image(source)
        assert read.dtype == np.uint8
        assert read.flags.c_contiguous
        assert np.array_equal(read, picture)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "RGBA", "LA", "I;16"])
def test_the_pixels_of_a_file_are_those_of_its_picture(tmp_path, picture, mode):
    if mode == "I;16":
        image = Image.fromarray(picture[:, :, 0].astype(np.uint16) * 256)
    else:
        image = Image.fromarray(picture).convert(mode)
    path = save(image, tmp_path / "a.tiff")
    pixels = media.read_pixels(path)
    assert np.array_equal(np.asarray(pixels), media.read_image(path))
    assert media.read_pixels(pixels) is pixels or isinstance(pixels, np.ndarray)
    assert np.array_equal(media.read_image(pixels), media.read_image(path))


def test_a_view_is_a_picture_if_an_array_of_its_shape_is(picture):
    view = picture.data
    assert media.read_pixels(view) is view
    assert np.array_equal(media.read_image(view[::2]), picture[::2])
    assert np.array_equal(media.read_image((picture.astype(np.uint16) * 257).data), picture)
    with pytest.raises(InvalidInput, match="not in an image format"):
        media.read_pixels(memoryview(bytes(9)))  # a file's content, as one row of bytes always is
    with pytest.raises(InvalidInput, match="no pixels"):
        media.read_pixels(np.zeros((0, 5, 3), np.uint8).data)
    with pytest.raises(InvalidInput, match="more than 1024 MiB"):
        media.read_pixels(memoryview(mmap.mmap(-1, 20000 * 20000 * 3)).cast("B", (20000, 20000, 3)))
    released = memoryview(bytearray(60)).cast("B", (4, 5, 3))
    released.release()
    with pytest.raises(InvalidInput, match="cannot be read"):
        media.read_pixels(released)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_are_0_to_1(picture, dtype):
    assert np.array_equal(media.read_image(picture.astype(dtype) / dtype(255)), picture)


def test_uint16_arrays_and_grey(picture):
    assert np.array_equal(media.read_image(picture.astype(np.uint16) * 257), picture)
    grey = picture[:, :, 0]
    for source in (grey, grey[:, :, None]):
        assert np.array_equal(media.read_image(source), np.repeat(grey[:, :, None], 3, 2))


def test_the_order_of_bytes_does_not_matter(picture):
    values = picture.astype(np.uint16) * 257
    assert np.array_equal(media.read_image(values.astype(">u2")), picture)


def test_torch_tensors_are_arrays(picture):
    torch = pytest.importorskip("torch", reason="the host works without torch")
    assert np.array_equal(media.read_image(torch.from_numpy(picture)), picture)


def test_exif_orientation_is_applied(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    path = save(Image.fromarray(picture), tmp_path / "turned.png", exif=exif)
    assert np.array_equal(media.read_image(path), np.rot90(picture, -1))


def test_alpha_is_shown_on_white(tmp_path):
    rgba = np.zeros((2, 3, 4), dtype=np.uint8)
    rgba[0] = (*RED, 255)
    rgba[1] = (*RED, 0)
    path = save(Image.fromarray(rgba), tmp_path / "alpha.png")
    for source in (path, rgba):
        read = media.read_image(source)
        assert (read[0] == RED).all()
        assert (read[1] == 255).all()


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 2), 1)
    path = save(image, tmp_path / "palette.png", transparency=0)
    read = media.read_image(path)
    assert tuple(read[0, 0]) == (255, 255, 255)
    assert tuple(read[2, 1]) == (0, 0, 255)


@pytest.mark.parametrize(("mode", "suffix"), [("1", "png"), ("L", "png"), ("LA", "png"), ("CMYK", "jpg")])
def test_other_modes_become_rgb(tmp_path, mode, suffix):
    image = Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode)
    read = media.read_image(save(image, tmp_path / f"white.{suffix}"))
    assert read.shape == (6, 8, 3)
    assert read.min() >= 250


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for suffix in ("png", "tif"):
        read = media.read_image(save(Image.fromarray(values), tmp_path / f"deep.{suffix}"))
        assert read[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_float_tiff_is_linear_light_in_grey_too(tmp_path):
    values = np.array([[0.0, 0.5, 1.0, 300.0, np.nan]], dtype=np.float32)
    read = media.read_image(save(Image.fromarray(values), tmp_path / "f.tif"))
    assert read[0, :, 0].tolist() == [0, 188, 255, 255, 0]  # sRGB shows half the light of white as 188


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    path = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (media.read_image(path) == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (20_000, 100)])
def test_extreme_sizes(tmp_path, size):
    path = save(Image.new("RGB", size, RED), tmp_path / "a.png")
    assert media.read_image(path).shape == (size[1], size[0], 3)


def png_bytes():
    stream = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file"),
        (b"", "is empty"),
        (b"hello, this is text", "not in an image format"),
        (png_bytes()[:4000], "damaged or cut short"),
        (png_bytes()[:40], "damaged or cut short|not in an image format"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as caught:
        media.read_image(path)
    assert str(path) in str(caught.value)


def test_a_folder_and_a_null_byte(tmp_path):
    with pytest.raises(InvalidInput, match="is a folder"):
        media.read_image(tmp_path)
    with pytest.raises(InvalidInput, match=r"cannot be read|no file"):
        media.read_image("a\0b.png")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 40, 50), np.uint8), "channels come last"),
        (np.zeros((1, 40, 50, 3), np.uint8), "one picture of a batch at a time"),
        (np.zeros((40, 50, 2), np.uint8), "has shape"),
        (np.zeros(5, np.uint8), "has shape"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((4, 5, 3), np.int64), "dtype int64"),
        (np.zeros((4, 5, 3), np.complex64), "dtype complex64"),
        (np.full((4, 5, 3), 255.0), r"0\.\.1 is needed"),
        (np.full((4, 5, 3), np.nan), "not numbers"),
        (np.full((4, 5, 3), np.inf), "not numbers"),
        ([[1, 2], [3, 4]], "not list"),
        (None, "not NoneType"),
        (b"bytes", "not in an image format"),
        (np.zeros((4, 5, 3), np.bool_), "dtype bool"),
        (7, "not int"),
    ],
)
def test_bad_arrays(array, message):
    with pytest.raises(InvalidInput, match=message):
        media.read_image(array)


def test_a_picture_of_more_than_a_message_holds_is_refused():
    huge = np.broadcast_to(np.uint8(0), (20_000, 20_000, 3))
    with pytest.raises(InvalidInput, match="20000 x 20000 pixels, more than 1024 MiB"):
        media.read_image(huge)


def test_more_pictures_than_a_message_holds_are_refused(picture, monkeypatch):
    assert len(media.read_images([picture] * 64)) == 64
    with pytest.raises(InvalidInput, match="More than 64 pictures"):
        media.read_images([picture] * 65)
    monkeypatch.setattr(media, "MAX_MESSAGE_BYTES", 2 * picture.nbytes)
    with pytest.raises(InvalidInput, match="first 3 pictures"):
        media.read_images([picture] * 4)


def closed(image):
    image.close()
    return image


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Image.open(io.BytesIO(png_bytes()[:4000])), "damaged or cut short"),
        (lambda: closed(Image.open(io.BytesIO(png_bytes()))), "cannot be read|damaged"),
        (lambda: Image.new("LA", (4, 4)).convert("La"), "cannot be read"),
    ],
)
def test_bad_pil_images(make, message):
    with pytest.raises(InvalidInput, match=message):
        media.read_image(make())


def test_damage_that_a_format_s_own_reader_reports(tmp_path):
    path = save(Image.new("RGBA", (8, 8)), tmp_path / "a.dds")
    content = bytearray(path.read_bytes())
    content[80:84] = bytes(4)  # the flags of the pixel format
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"a\.dds cannot be read: Unknown pixel format flags 0"):
        media.read_image(path)


@pytest.mark.skipif(os.name != "posix", reason="pipes with names are of POSIX systems")
def test_a_pipe_is_read_and_a_device_is_not(tmp_path):
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb") as stream:
        stream.write(png_bytes())
        stream.close()
        assert media.read_image(f"/dev/fd/{reader}").shape == (64, 64, 3)
        with pytest.raises(InvalidInput, match="is empty"):
            media.read_image(f"/dev/fd/{reader}")
    with pytest.raises(InvalidInput, match="device or a socket"):
        media.read_image("/dev/null")


def test_overlay_is_written(tmp_path, picture):
    path = media.write_overlay(tmp_path / "o.png", picture, np.ones((1, 13, 17), dtype=np.bool_))
    assert media.read_image(path).shape == picture.shape


def test_an_overlay_does_not_depend_on_how_the_picture_lies_in_memory(tmp_path, picture):
    mask = np.ones((1, 13, 17), dtype=np.bool_)
    plain, columns = (
        media.write_overlay(tmp_path / f"{name}.png", given, mask).read_bytes()
        for name, given in (("plain", picture), ("columns", np.asfortranarray(picture)))
    )
    assert plain == columns


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "m.png"
    target.write_bytes(b"old")

    def fail(stream):
        stream.write(b"half")
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match=os.strerror(28)):
        media.write_whole(target, fail)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX systems")
def test_a_failed_write_names_the_file_that_was_asked_for(tmp_path):
    def full(stream):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as raised:
        media.write_whole(tmp_path / "mask.png", full)
    assert raised.value.filename == str(tmp_path / "mask.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="pipes with names are POSIX's")
def test_a_pipe_takes_what_is_written_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        media.write_json(tmp_path / "pipe", {"a": "\udcff"})
        assert os.read(reader, 100) == rb'{"a": "\udcff"}'
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_written_files_have_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    written = media.write_mask(tmp_path / "m.png", np.ones((2, 2), dtype=np.bool_))
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts names in UTF-16")
@pytest.mark.parametrize("letter", ["\U0001f600", "圆", "é", "a"])
def test_a_temporary_name_is_bounded_in_bytes_and_an_error_names_the_file_that_was_meant(tmp_path, letter):
    width = len(letter.encode())
    fits = tmp_path / f"{letter * (251 // width)}.png"
    media.write_mask(fits, np.ones((2, 2), bool))
    assert list(tmp_path.iterdir()) == [fits]
    long = tmp_path / f"{letter * (252 // width + 1)}.png"
    with pytest.raises(OSError, match="too long") as caught:
        media.write_mask(long, np.ones((2, 2), bool))
    assert caught.value.filename == str(long)
    assert list(tmp_path.iterdir()) == [fits]
