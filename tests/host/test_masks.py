"""Resizing and thresholds against independent references: float64 numpy here, torch where it is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa2va_host.errors import InvalidInput
from sa2va_host.masks import masks


def smooth(generator, side, scale=8.0):
    """Logits that look like a mask's: bumps of a few pixels, both signs."""
    noise = generator.standard_normal((side, side))
    for axis in (0, 1):
        for _ in range(4):
            noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) / 4
    return (noise / noise.std() * scale).astype(np.float32)


def reference_resize(values, size):
    """Bilinear, pixel centres aligned, no antialiasing: from the definition, in float64."""
    for axis, length in enumerate(size):
        source = values.shape[axis]
        position = np.clip((np.arange(length) + 0.5) * source / length - 0.5, 0, source - 1)
        low = np.floor(position).astype(int)
        weight = (position - low).reshape([-1 if axis == place else 1 for place in (0, 1)])
        high = np.minimum(low + 1, source - 1)
        values = np.take(values, low, axis) * (1 - weight) + np.take(values, high, axis) * weight
    return values


def reference(logits, image_size, size):
    square = reference_resize(logits.astype(np.float64), (image_size, image_size))
    return reference_resize(square, size)


SIZES = [(1080, 1920), (333, 517), (97, 1), (1, 1), (64, 64), (2000, 10), (1024, 1024), (511, 513)]


@pytest.mark.parametrize("size", SIZES)
def test_resize_is_the_definition(size):
    logits = smooth(np.random.default_rng(1), 256)
    assert np.abs(masks.resize(logits, 1024, size) - reference(logits, 1024, size)).max() < 1e-4


@pytest.mark.parametrize("size", [(96, 101), (427, 640), (31, 33)])
def test_resize_of_a_small_model(size):
    logits = smooth(np.random.default_rng(2), 32)
    assert np.abs(masks.resize(logits, 128, size) - reference(logits, 128, size)).max() < 1e-4


def test_resize_of_4k():
    logits = smooth(np.random.default_rng(3), 256)
    full = masks.resize(logits, 1024, (2160, 3840))
    assert full.dtype == np.float32
    assert np.abs(full - reference(logits, 1024, (2160, 3840))).max() < 1e-4


@pytest.mark.parametrize("size", [(720, 1280), (333, 517), (100, 60)])
def test_masks_are_those_of_torch(size):
    """torch computes positions in float32, so a pixel on the edge may differ: at most 1 in 10,000."""
    torch = pytest.importorskip("torch", reason="the host works without torch; it is the reference here")
    logits = smooth(np.random.default_rng(4), 256)
    tensor = torch.from_numpy(logits)[None, None]
    for step in ((1024, 1024), size):
        tensor = torch.nn.functional.interpolate(tensor, size=step, mode="bilinear", align_corners=False)
    theirs = (tensor.sigmoid() > 0.5)[0, 0].numpy()
    ours = masks.binarise(logits[None, None], 1024, size)[0, 0]
    assert 0.2 < theirs.mean() < 0.8
    assert (ours != theirs).mean() <= 1e-4


def test_one_resize_is_not_two():
    """The intermediate square matters: a shortcut would be seen."""
    logits = smooth(np.random.default_rng(5), 256)
    short = reference_resize(logits.astype(np.float64), (333, 517)) > 0
    assert (short != (masks.resize(logits, 1024, (333, 517)) > 0)).mean() > 5e-4


@given(st.floats(-200, 200, width=32))
def test_sigmoid(logit):
    probability = masks.sigmoid(np.array([logit], dtype=np.float32))[0]
    assert math.isclose(probability, 1 / (1 + math.exp(-logit)), rel_tol=1e-5, abs_tol=1e-38)


def test_sigmoid_of_very_sure_logits_is_silent_and_exact():
    values = masks.sigmoid(np.array([-1024.0, 1024.0, -np.inf, np.inf], dtype=np.float32))
    assert values.tolist() == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("threshold", [0.0, 1e-6, 0.05, 0.3, 0.5, 0.7, 0.95, 1 - 1e-6, 1.0])
def test_masks_are_probabilities_above_the_threshold(threshold):
    logits = np.stack([[smooth(np.random.default_rng(seed), 32)] for seed in (6, 7)])
    logits[0, 0, :8] = -1024.0
    logits[1, 0, :8] = 40.0
    size = (75, 50)
    expected = np.stack([[masks.probability(low[0], 128, size) > threshold] for low in logits])
    assert np.array_equal(masks.binarise(logits, 128, size, threshold), expected)


@pytest.mark.parametrize("threshold", [-0.01, 1.01, math.nan, math.inf, "0.5", None, True])
def test_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(InvalidInput, match="0 to 1"):
        masks.threshold_logit(threshold)


def test_no_objects():
    nothing = np.zeros((0, 1, 32, 32), dtype=np.float32)
    assert masks.binarise(nothing, 128, (20, 30)).shape == (0, 1, 20, 30)


def test_box_has_exclusive_ends():
    mask = np.zeros((10, 20), dtype=np.bool_)
    assert masks.box(mask) is None
    mask[3:5, 7:11] = True
    assert masks.box(mask) == (7, 3, 11, 5)
    assert masks.box(np.ones((10, 20), dtype=np.bool_)) == (0, 0, 20, 10)


def test_the_mean_inside_is_of_the_mask_alone():
    probability = np.full((32, 32), 0.1, dtype=np.float32)
    probability[:, 16:] = 0.75
    mask = np.zeros((32, 32), dtype=np.bool_)
    assert masks.mean_inside(probability, mask) == 0.0
    mask[:, 20:] = True
    assert masks.mean_inside(probability, mask) == 0.75


def test_overlay_brings_the_objects_out_and_leaves_the_input():
    picture = np.full((60, 80, 3), 200, dtype=np.uint8)
    stack = np.zeros((2, 60, 80), dtype=np.bool_)
    stack[0, 10:20, 10:20] = True
    stack[1, 30:50, 40:70] = True
    drawn = masks.overlay(picture, stack)
    assert (picture == 200).all()
    assert (drawn[13:17, 13:17] == 200).all()
    assert (drawn[:5] < 150).all()
    for place, colour in (((10, 15), masks.PALETTE[0]), ((30, 55), masks.PALETTE[1])):
        assert np.abs(drawn[place].astype(int) - colour).max() < 40


def test_overlay_of_no_objects_is_the_picture():
    picture = np.random.default_rng(8).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert np.array_equal(masks.overlay(picture, np.zeros((0, 9, 7), dtype=np.bool_)), picture)
