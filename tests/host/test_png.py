"""PNG files hold what was written, as any other program reads it; what is no picture leaves none."""

import numpy as np
import pytest
from PIL import Image

from sa2va_host import InvalidInput, media


def test_masks_are_written_as_black_and_white(tmp_path):
    mask = np.zeros((5, 6), dtype=np.bool_)
    mask[1:3, 2:4] = True
    path = media.write_mask(tmp_path / "new" / "folder" / "m.png", mask)
    with Image.open(path) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), mask * 255)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5, 6, 3), np.uint8), ((5, 6, 4), np.uint8), ((5, 6), np.uint8), ((5, 6), np.uint16)],
)
def test_pictures_are_read_by_others_as_they_were_written(tmp_path, shape, dtype):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    for picture in (values, values[::-1, 1:]):
        with Image.open(media.write_image(tmp_path / "p.png", picture)) as image:
            assert np.array_equal(np.asarray(image), picture)


def test_either_byte_order_is_written_as_the_same_numbers(tmp_path):
    values = np.arange(30, dtype=">u2").reshape(5, 6) * 1000
    with Image.open(media.write_image(tmp_path / "p.png", values)) as image:
        assert np.array_equal(np.asarray(image), values)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((5, 6), np.float32),
        np.zeros((5, 6), np.int16),
        np.zeros((5, 6, 2), np.uint8),
        np.zeros((5, 6, 2), np.uint16),
        np.zeros((0, 6, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((1, 1_000_001), np.uint8),
    ],
    ids=lambda picture: f"{picture.dtype} {picture.shape}",
)
def test_what_is_no_picture_is_not_written(tmp_path, picture):
    with pytest.raises(InvalidInput, match=r"cannot be written|pixels a side"):
        media.write_image(tmp_path / "p.png", picture)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(5,), (5, 6, 3), (0, 6), (1, 1_000_001)], ids=str)
def test_what_is_no_mask_is_not_written(tmp_path, shape):
    with pytest.raises(InvalidInput, match=r"is no mask|pixels a side"):
        media.write_mask(tmp_path / "p.png", np.zeros(shape, np.bool_))
    assert not list(tmp_path.iterdir())
