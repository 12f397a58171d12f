"""Regions: what a caller may give, and what it becomes."""

from __future__ import annotations

import numpy as np
import pytest

from sa2va_host.errors import InvalidInput
from sa2va_host.protocol import arrays
from sa2va_host.region_prompts import MAX_REGIONS, region_masks

PICTURE = np.zeros((20, 30, 3), np.uint8)


def test_a_box_has_exclusive_ends() -> None:
    (mask,) = region_masks([(2, 3, 10, 5)], [PICTURE])
    assert mask.shape == (20, 30)
    assert mask.sum() == 8 * 2
    assert mask[3, 2]
    assert mask[4, 9]


def test_a_mask_stays_what_it_is() -> None:
    given = np.zeros((20, 30), bool)
    given[5:9] = True
    np.testing.assert_array_equal(region_masks([given, [0, 0, 30, 20]], [PICTURE])[0], given)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ((0, 0, 31, 20), "not inside the picture of 30 x 20"),
        ((5, 5, 5, 9), "is empty or not inside"),
        ((-1, 0, 5, 5), "is empty or not inside"),
        (np.ones((30, 20), bool), r"bool \[30, 20\]"),
        (np.ones((20, 30), np.uint8), r"uint8 \[20, 30\]"),
        (np.zeros((20, 30), bool), "empty mask"),
        ((0.5, 0, 5, 5), "float64"),
        ([1, [2]], r"\[1, \[2\]\]"),
        ("abc", "<U3"),
    ],
)
def test_what_is_no_region_of_the_picture(region: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        region_masks([region], [PICTURE])  # type: ignore[list-item]


@pytest.mark.parametrize("count", [0, 2])
def test_regions_need_one_picture(count: int) -> None:
    with pytest.raises(InvalidInput, match=f"There are {count} pictures"):
        region_masks([(0, 0, 5, 5)], [PICTURE] * count)
    assert region_masks([], [PICTURE] * count) == []


def test_no_more_regions_than_travel_with_their_picture() -> None:
    box = (0, 0, 5, 5)
    assert len(arrays.pack([PICTURE, *region_masks([box] * MAX_REGIONS, [PICTURE])])[0]) == MAX_REGIONS + 1
    with pytest.raises(InvalidInput, match=f"{MAX_REGIONS + 1} regions"):
        region_masks([box] * (MAX_REGIONS + 1), [PICTURE])
