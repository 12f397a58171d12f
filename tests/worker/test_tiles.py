"""InternVL's tiles: grids as upstream chooses them, cut row by row, and the regions in the last one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput
from sa2va_worker.models.tiles import Tiler, cut, grid

IMAGE_TOKEN = 15
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def tiler() -> Tiler:
    return Tiler(IMAGE_TOKEN, side=448, cells=16, least=1, most=12, thumbnail=True)


def flat(height: int, width: int, colour: tuple[int, int, int] = RED) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "columns", "rows"),
    [
        (448, 448, 1, 1),  # a square: 1 x 1, 2 x 2 and 3 x 3 are as near, and the larger ones too large
        (633, 633, 1, 1),  # 2 x 2 is taken from more than half its 802,816 pixels on
        (634, 634, 2, 2),
        (950, 950, 2, 2),  # 3 x 3 from more than half its 1,806,336
        (951, 951, 3, 3),
        (5000, 5000, 3, 3),  # 4 x 4 would be more than 12
        (144, 208, 3, 2),  # 1.44: 3 / 2 is nearer than 4 / 3
        (1080, 1920, 4, 2),  # 1.78: 2 / 1 is nearer than 3 / 2, and large enough for 4 x 2
        (1920, 1080, 2, 4),  # 0.56: 3 / 5 would be nearer than 1 / 2, and 15 tiles are too many
        (100, 1200, 12, 1),
        (1200, 100, 1, 12),
        (1, 5000, 12, 1),
    ],
)
def test_the_grid_is_the_nearest_in_shape(height: int, width: int, columns: int, rows: int) -> None:
    assert grid(height, width, least=1, most=12, side=448) == (columns, rows)


def test_a_grid_keeps_to_its_bounds() -> None:
    assert grid(100, 1200, least=1, most=1, side=448) == (1, 1)
    assert grid(448, 448, least=4, most=12, side=448) == (2, 2)


def test_tiles_are_cut_row_by_row() -> None:
    top = np.concatenate([flat(448, 448, RED), flat(448, 448, GREEN)], axis=1)
    bottom = np.concatenate([flat(448, 448, BLUE), flat(448, 448, WHITE)], axis=1)
    tiles = cut(np.concatenate([top, bottom]), columns=2, rows=2, side=448)
    assert tiles.shape == (4, 448, 448, 3)
    assert [tuple(tile[224, 224]) for tile in tiles] == [RED, GREEN, BLUE, WHITE]
    assert all((tile == tile[0, 0]).all() for tile in tiles)


def test_a_picture_of_several_tiles_ends_with_a_thumbnail_of_the_whole(tiler: Tiler) -> None:
    picture = np.concatenate([flat(100, 100, RED), flat(100, 100, GREEN)], axis=1)
    tiles = tiler([picture])
    assert tiles.counts == (3,)
    assert tiles.values.shape == (3, 3, 448, 448)
    red, green = tiles.values[0, :, 224, 100], tiles.values[1, :, 224, 300]
    thumbnail = tiles.values[2, :, 224]
    assert (thumbnail[:, 50] == red).all()
    assert (thumbnail[:, 400] == green).all()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    np.testing.assert_allclose(red, (np.array([1, 0, 0]) - mean) / std, rtol=1e-6)
    assert tiler([flat(100, 100)]).counts == (1,)


def test_of_several_pictures_each_is_one_tile(tiler: Tiler) -> None:
    assert tiler([flat(100, 300), flat(50, 20), flat(2000, 10)]).counts == (1, 1, 1)


def test_a_region_covers_its_share_of_the_cells(tiler: Tiler) -> None:
    left, dot = np.zeros((100, 300), bool), np.zeros((100, 300), bool)
    left[:, :150] = True
    dot[50, 225] = True  # row 8 of 16 starts at 50, column 12 at 225: where the nearest pixel is looked up
    regions = tiler([flat(100, 300)], [left, dot]).regions
    assert regions is not None
    assert regions.shape == (2, 16, 16)
    assert regions[0, :, :8].all()
    assert not regions[0, :, 8:].any()
    assert regions[1].nonzero().tolist() == [[8, 12]]


@pytest.mark.parametrize(
    ("pictures", "shape", "said"),
    [
        (0, (100, 300), "regions belong to one picture, and 0 were given"),
        (2, (100, 300), "regions belong to one picture, and 2 were given"),
        (1, (300, 100), r"region 1 has shape \(300, 100\), and the picture is 100 x 300"),
        (1, (100, 300), "region 1 is too small to be seen"),
    ],
)
def test_regions_that_cannot_be_seen_are_refused(
    tiler: Tiler, pictures: int, shape: tuple[int, int], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        tiler([flat(100, 300)] * pictures, [np.zeros(shape, bool)])
