"""Run lengths and polygons give the mask back exactly, to this project and to COCO's own code."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from sa2va_host.errors import InvalidInput
from sa2va_host.masks import regions

MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))


def points(polygon):
    return np.array(polygon).reshape(-1, 2)


def signed_area(polygon):
    """The shoelace formula; positive where the outline runs clockwise on the screen, whose y points down."""
    here, there = points(polygon), np.roll(points(polygon), -1, axis=0)
    return int((here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]).sum()) // 2


@given(MASKS)
def test_run_lengths_give_the_mask_back_through_json(mask):
    runs = json.loads(json.dumps(regions.encode(mask)))
    assert runs["size"] == list(mask.shape)
    assert np.array_equal(regions.decode(runs), mask)


def test_run_lengths_go_down_the_columns():
    mask = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
    runs = regions.encode(mask)
    assert runs == {"size": [2, 3], "counts": "231"}  # 2 outside, 3 inside, 1 outside; a digit each
    assert coco.area({"size": [2, 3], "counts": b"231"}) == 3


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({"size": [2, 3], "counts": "23"}, "do not fill 2 x 3"),
        ({"size": [2, 3], "counts": ""}, "do not fill 2 x 3"),
        ({"size": [2, 3], "counts": "239"}, "do not fill 2 x 3"),
        ({"size": [2, 3], "counts": "2O5"}, "do not fill 2 x 3"),
        ({"size": [2, 3], "counts": "2z"}, "'z' does not belong"),
        ({"size": [2, 3], "counts": "2é"}, "'é' does not belong"),
        ({"size": [2, 3], "counts": "o" * 10**6}, "'o' does not belong"),
        ({"size": [2, 3], "counts": "23o"}, "cut short"),
        ({"size": [10**9, 10**9], "counts": "231"}, "do not fill"),
        ({"size": [0, 3], "counts": "0"}, "Run lengths are"),
        ({"size": [2, -3], "counts": "231"}, "Run lengths are"),
        ({"size": [2.0, 3], "counts": "231"}, "Run lengths are"),
        ({"size": [2, 3], "counts": [2, 3, 1]}, "Run lengths are"),
        ({"size": [2, 3]}, "Run lengths are"),
        ("231", "Run lengths are"),
    ],
)
def test_damaged_run_lengths_are_refused(runs, message):
    with pytest.raises(InvalidInput, match=message):
        regions.decode(runs)


@given(MASKS)
def test_filled_polygons_are_the_mask_for_coco(mask):
    height, width = mask.shape
    filled = np.zeros_like(mask)
    for polygon in regions.polygons(mask):
        (runs,) = coco.frPyObjects([polygon], height, width)
        filled ^= regions.decode({**runs, "counts": runs["counts"].decode()})
    assert np.array_equal(filled, mask)


@given(MASKS)
def test_polygons_are_exact_outlines(mask):
    found = regions.polygons(mask)
    assert sum(map(signed_area, found)) == mask.sum()
    for polygon in found:
        steps = np.roll(points(polygon), -1, axis=0) - points(polygon)
        is_level = steps[:, 1] == 0
        assert (np.count_nonzero(steps, axis=1) == 1).all()  # along the pixels' sides
        assert (is_level != np.roll(is_level, 1)).all()  # and every point is a corner


def test_outlines_run_clockwise_and_holes_the_other_way():
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:6, 2:7] = True
    mask[3, 4] = False
    hole, part = sorted(regions.polygons(mask), key=signed_area)
    assert (signed_area(part), signed_area(hole)) == (25, -1)
    assert {tuple(point) for point in points(part)} == {(2, 1), (7, 1), (7, 6), (2, 6)}
    assert {tuple(point) for point in points(hole)} == {(4, 3), (5, 3), (5, 4), (4, 4)}


def test_pixels_that_touch_at_a_corner_are_one_part_and_holes_two():
    assert len(regions.polygons(np.eye(2, dtype=bool))) == 1
    mask = np.ones((4, 4), dtype=bool)
    mask[1, 1] = mask[2, 2] = False
    assert len(regions.polygons(mask)) == 3


def test_an_empty_mask_has_no_polygons():
    assert regions.polygons(np.zeros((3, 4), dtype=bool)) == []


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_full_mask_is_its_frame(height, width):
    (polygon,) = regions.polygons(np.ones((height, width), dtype=bool))
    assert {tuple(point) for point in points(polygon)} == {(0, 0), (width, 0), (width, height), (0, height)}


def disc(radius, side=100):
    y, x = np.ogrid[:side, :side]
    return (x - side // 2) ** 2 + (y - side // 2) ** 2 <= radius**2


def filled(outlines, shape):
    """The mask that outlines enclose by the even-odd rule, drawn at eight times the size."""
    import cv2

    scaled = [np.array(outline).reshape(-1, 1, 2) * 8 for outline in outlines]
    drawn = np.zeros((shape[0] * 8, shape[1] * 8), np.uint8)
    cv2.fillPoly(drawn, scaled, 1)
    return drawn[4::8, 4::8].astype(bool)


def test_a_circle_has_tens_of_points_at_a_tolerance_of_one_pixel():
    mask = disc(40)
    (exact,) = regions.polygons(mask)
    (simple,) = regions.polygons(mask, tolerance=1)
    assert len(points(exact)) > 100
    assert 10 <= len(points(simple)) <= 50
    assert {tuple(point) for point in points(simple)} <= {tuple(point) for point in points(exact)}
    again = filled([simple], mask.shape)
    assert (again & mask).sum() / (again | mask).sum() > 0.98
    assert len(points(regions.polygons(mask, 3)[0])) < len(points(simple))


def test_simplified_holes_stay_holes():
    mask = disc(40) & ~disc(20)
    outlines = regions.polygons(mask, tolerance=1)
    assert sorted(np.sign([signed_area(outline) for outline in outlines])) == [-1, 1]
    again = filled(outlines, mask.shape)
    assert (again & mask).sum() / (again | mask).sum() > 0.95


def test_the_ring_of_the_docstring():
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert sorted(map(signed_area, regions.polygons(ring))) == [-1, 9]
    assert {frozenset(map(tuple, points(one).tolist())) for one in regions.polygons(ring)} == {
        frozenset({(0, 0), (3, 0), (3, 3), (0, 3)}),
        frozenset({(1, 1), (1, 2), (2, 2), (2, 1)}),
    }


@given(MASKS, st.floats(0, 20))
def test_no_part_and_no_hole_is_lost_however_large_the_tolerance(mask, tolerance):
    exact, simple = regions.polygons(mask), regions.polygons(mask, tolerance)
    assert len(simple) == len(exact)
    assert all(len(outline) >= 6 and signed_area(outline) for outline in simple)
    assert all(isinstance(value, int) for outline in simple for value in outline)
    if not tolerance:
        assert simple == exact


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf")])
def test_what_is_no_tolerance_is_refused(tolerance):
    with pytest.raises(InvalidInput, match="polygon tolerance"):
        regions.polygons(disc(3), tolerance)
