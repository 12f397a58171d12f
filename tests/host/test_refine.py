"""Each refinement does what its definition says, keeps what is soft soft, and crashes on nothing."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sa2va_host.errors import InvalidInput
from sa2va_host.masks.refine import combine, refine, to_mask
from sa2va_host.masks.refinement import LARGEST_RADIUS, Refinement
from sa2va_host.results import Segmentation

MAPS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=14),
    elements=st.integers(0, 16).map(lambda level: level / 16),
)
"""Maps whose values and their complements are exact in float32."""
ALL: dict[str, Any] = {
    "opening": 2,
    "closing": 3,
    "fill_holes": True,
    "smallest_area": 9,
    "largest_only": True,
    "guide_radius": 2,
    "grow": -2,
    "smooth": 1.5,
    "invert": True,
}


def picture_for(probability):
    return np.random.default_rng(0).integers(0, 256, (*probability.shape, 3), dtype=np.uint8)


def near(mask, radius):
    """Where a pixel of the mask is at most so far away: from the definition, pair by pair."""
    rows, columns = np.nonzero(mask)
    y, x = np.indices(mask.shape)
    distances = (y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2
    return (distances <= radius * radius).any(axis=-1)


def far(mask, radius):
    return ~near(~mask, radius)


def blob(size, *boxes, inside=0.9, outside=0.1):
    probability = np.full(size, outside, dtype=np.float32)
    for top, left, bottom, right in boxes:
        probability[top:bottom, left:right] = inside
    return probability


def test_by_default_nothing_happens():
    probability = blob((8, 9), (2, 2, 5, 5))
    assert refine(probability, Refinement(), 0.5) is probability


@given(MAPS, st.integers(-4, 4), st.sampled_from([0.0, 0.25, 0.5, 0.97]))
def test_growing_is_by_a_disc_at_every_threshold(probability, pixels, threshold):
    grown = refine(probability, Refinement(grow=pixels), threshold) > threshold
    mask = probability > threshold
    assert np.array_equal(grown, near(mask, pixels) if pixels >= 0 else far(mask, -pixels))


@given(MAPS, st.integers(1, 3))
def test_opening_and_closing_are_erosion_and_dilation(probability, radius):
    mask = probability > 0.5
    assert np.array_equal(
        refine(probability, Refinement(opening=radius), 0.5) > 0.5, near(far(mask, radius), radius)
    )
    assert np.array_equal(
        refine(probability, Refinement(closing=radius), 0.5) > 0.5, far(near(mask, radius), radius)
    )


def test_an_object_at_the_border_is_not_shrunk_from_there():
    shrunk = refine(blob((20, 20), (0, 0, 10, 20)), Refinement(grow=-3), 0.5) > 0.5
    assert np.array_equal(shrunk, blob((20, 20), (0, 0, 7, 20)) > 0.5)


@pytest.mark.parametrize("quarter_turns", range(4))
def test_holes_become_one_and_bays_stay(quarter_turns):
    probability = blob((30, 40), (5, 5, 25, 20), (5, 25, 25, 40))
    probability[12:15, 10:13] = 0.2
    probability[12:15, 30:40] = 0.3  # open to the picture's border
    refined = refine(np.rot90(probability, quarter_turns), Refinement(fill_holes=True), 0.5)
    filled = np.rot90(refined, -quarter_turns)
    assert (filled[12:15, 10:13] == 1).all()
    assert np.array_equal(filled[:, 20:], probability[:, 20:])
    assert np.array_equal(filled > 0.5, (probability > 0.5) | (filled == 1))


def test_a_hole_may_touch_the_outside_at_a_corner():
    probability = blob((7, 7), (1, 1, 6, 6))
    probability[2, 2] = probability[1, 1] = 0.1
    assert refine(probability, Refinement(fill_holes=True), 0.5)[2, 2] == 1
    assert refine(probability, Refinement(fill_holes=True), 0.5)[1, 1] == np.float32(0.1)


def test_small_parts_go_with_their_soft_surroundings_and_the_rest_stays_as_it_is():
    probability = blob((40, 60), (5, 5, 25, 25), (30, 50, 33, 53), outside=0.0)
    probability[28:35, 48:55] = np.maximum(probability[28:35, 48:55], np.float32(0.4))
    probability[3:27, 3:27] = np.maximum(probability[3:27, 3:27], np.float32(0.4))
    kept = refine(probability, Refinement(smallest_area=10), 0.5)
    assert (kept[28:35, 48:55] == 0).all()
    assert np.array_equal(kept[:27, :27], probability[:27, :27])
    assert np.array_equal(refine(probability, Refinement(smallest_area=9), 0.5), probability)


def test_a_part_holds_together_at_corners():
    probability = np.where(np.eye(12, dtype=bool), np.float32(0.8), np.float32(0))
    assert np.array_equal(refine(probability, Refinement(smallest_area=12), 0.5), probability)
    assert not refine(probability, Refinement(smallest_area=13), 0.5).any()


def test_only_the_largest_part():
    probability = blob((40, 60), (5, 5, 15, 15), (20, 30, 38, 55), (2, 50, 6, 55))
    kept = refine(probability, Refinement(largest_only=True), 0.5) > 0.5
    assert np.array_equal(kept, blob((40, 60), (20, 30, 38, 55)) > 0.5)


def test_smoothing_rounds_the_outline_and_keeps_what_is_even():
    probability = blob((60, 60), (20, 20, 40, 40), inside=1.0, outside=0.0)
    smooth = refine(probability, Refinement(smooth=3), 0.5)
    assert smooth.min() >= 0
    assert smooth.max() <= 1
    assert smooth.sum() == pytest.approx(probability.sum(), rel=1e-4)
    assert not (smooth > 0.5)[20, 20]
    assert (smooth > 0.5)[20, 30]
    even = np.full((9, 9), 0.3, dtype=np.float32)
    assert np.allclose(refine(even, Refinement(smooth=5), 0.5), even)


@given(MAPS, st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_inverted_masks_are_the_complement_at_every_threshold(probability, threshold):
    upright, inverted = Refinement(grow=1), Refinement(grow=1, invert=True)
    mask = to_mask(refine(probability, upright, threshold), upright, threshold)
    other = to_mask(refine(probability, inverted, threshold), inverted, threshold)
    assert np.array_equal(other, ~mask)


def test_holes_are_filled_before_parts_are_measured_and_growing_comes_after():
    probability = blob((30, 30), (4, 4, 10, 10), (20, 20, 22, 22))
    probability[5:9, 5:9] = 0.1
    refinement = Refinement(fill_holes=True, smallest_area=36, grow=1)
    assert np.array_equal(
        refine(probability, refinement, 0.5) > 0.5, near(blob((30, 30), (4, 4, 10, 10)) > 0.5, 1)
    )


@pytest.mark.parametrize("names", [*[[name] for name in ALL], [*ALL]], ids="+".join)
@pytest.mark.parametrize("size", [(1, 9), (9, 1), (3, 3), (12, 15)])
def test_empty_and_full_masks_pass_through_everything(names, size):
    refinement = Refinement(**{name: ALL[name] for name in names})
    for level in (0.0, 0.3, 0.5, 0.7, 1.0):
        probability = np.full(size, level, dtype=np.float32)
        refined = refine(probability, refinement, 0.5, picture_for(probability))
        assert refined.shape == size
        assert refined.dtype == np.float32
        assert np.allclose(refined, 1 - level if refinement.invert else level, atol=1e-6)
        assert (probability == np.float32(level)).all()


@given(MAPS)
def test_all_at_once_gives_probabilities_and_leaves_the_input(probability):
    given = probability.copy()
    refined = refine(probability, Refinement(**ALL), 0.5, picture_for(probability))
    assert refined.shape == probability.shape
    assert refined.min() >= 0
    assert refined.max() <= 1
    assert np.array_equal(probability, given)


def test_turned_and_mirrored_views_are_maps_too():
    probability = np.random.default_rng(3).random((14, 11), dtype=np.float32)
    picture, refinement = picture_for(probability), Refinement(**ALL)
    for view, guide in (
        (probability.T, picture.transpose(1, 0, 2)),
        (probability[:, ::-1], picture[:, ::-1]),
    ):
        copies = view.copy(order="C"), guide.copy(order="C")
        assert np.array_equal(
            refine(view, refinement, 0.5, guide), refine(copies[0], refinement, 0.5, copies[1])
        )


def test_every_field_has_its_part_in_the_test_of_all():
    assert {field.name for field in fields(Refinement)} - {"guide_epsilon"} == set(ALL)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("opening", -1),
        ("closing", LARGEST_RADIUS + 1),
        ("grow", 2.5),
        ("grow", -LARGEST_RADIUS - 1),
        ("grow", True),
        ("smallest_area", -1),
        ("smooth", -0.1),
        ("smooth", math.nan),
        ("smooth", "3"),
        ("guide_radius", 10**9),
        ("guide_epsilon", 0),
    ],
)
def test_impossible_values_are_refused_by_name(field, value):
    with pytest.raises(InvalidInput, match=rf"{field} is .* Use a (whole )?number"):
        Refinement(**{field: value})


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 4, 4), np.float32), ((4,), np.float32), ((4, 4), np.bool_), ((4, 4), np.float64)],
)
def test_what_is_not_a_map_is_refused(shape, dtype):
    with pytest.raises(InvalidInput, match=r"float32 \[height, width\], not"):
        refine(np.zeros(shape, dtype), Refinement(), 0.5)


def test_a_threshold_outside_0_to_1_is_refused():
    with pytest.raises(InvalidInput, match="0 to 1"):
        refine(np.zeros((4, 4), np.float32), Refinement(), 50)


def test_the_guided_filter_needs_its_picture():
    probability = blob((8, 9), (2, 2, 5, 5))
    with pytest.raises(InvalidInput, match="there is none"):
        refine(probability, Refinement(guide_radius=2), 0.5)
    with pytest.raises(InvalidInput, match=r"uint8 \[8, 9, 3\] is needed"):
        refine(probability, Refinement(guide_radius=2), 0.5, np.zeros((9, 8, 3), np.uint8))


STACKS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    elements=st.integers(0, 15).map(lambda level: (2 * level + 1) / 32),
)


@given(STACKS, st.sampled_from(["union", "intersection", "difference"]))
def test_combined_probabilities_are_combined_masks(stack, how):
    masks = combine(stack > 0.5, how)
    probabilities = combine(stack, how)
    assert masks.dtype == np.bool_
    assert probabilities.dtype == np.float32
    assert np.array_equal(probabilities > 0.5, masks)
    first, others = stack[0] > 0.5, (stack[1:] > 0.5)
    expected = {
        "union": first | others.any(axis=0),
        "intersection": first & others.all(axis=0),
        "difference": first & ~others.any(axis=0),
    }
    assert np.array_equal(masks, expected[how])


def test_combining_nothing_is_nothing_and_other_words_are_refused():
    for how in ("union", "intersection", "difference"):
        assert not combine(np.zeros((0, 3, 4), np.bool_), how).any()
        assert combine(np.zeros((0, 3, 4), np.float32), how).shape == (3, 4)
    with pytest.raises(InvalidInput, match=r"no combination 'xor'\. Use union, intersection, difference"):
        combine(np.zeros((1, 3, 4), np.bool_), "xor")  # type: ignore[arg-type]


def segmentation(objects, frames, *, is_video):
    logits = 4 * np.random.default_rng(1).standard_normal((objects, frames, 8, 8)).astype(np.float32)
    return Segmentation(text="", logits=logits, size=(20, 30), image_size=32, is_video=is_video)


def test_results_are_refined_one_map_at_a_time():
    result = segmentation(2, 1, is_video=False)
    refinement = Refinement(closing=2, largest_only=True, invert=True)
    expected = [refine(plain, refinement, 0.4) for plain in result.probabilities()]
    assert np.array_equal(result.probabilities(refinement, 0.4), expected)
    masks = result.masks(0.4, refinement)
    assert np.array_equal(masks, [to_mask(one, refinement, 0.4) for one in expected])
    x0, y0, x1, y1 = result.boxes(0.4, refinement)[0] or (0, 0, 0, 0)
    assert masks[0, y0:y1, x0:x1].sum() == masks[0].sum()
    assert np.array_equal(result.masks(0.4, Refinement()), result.masks(0.4))


def test_frames_of_a_video_are_refined_with_their_own_pictures():
    result = segmentation(2, 3, is_video=True)
    frames = np.random.default_rng(2).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    refinement = Refinement(guide_radius=2)
    refined = result.probabilities(refinement, guide=(frame for frame in frames))
    plain = result.probabilities()
    for index in range(2):
        for frame in range(3):
            expected = refine(plain[index, frame], refinement, 0.5, frames[frame])
            assert np.array_equal(refined[index, frame], expected)
    with pytest.raises(InvalidInput, match="there is none"):
        result.masks(refinement=refinement, guide=frames[:2])


def test_the_threshold_is_checked_also_without_objects():
    with pytest.raises(InvalidInput, match="0 to 1"):
        segmentation(0, 1, is_video=False).masks(1.5, Refinement(grow=1))
