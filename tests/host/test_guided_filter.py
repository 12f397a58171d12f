"""The guided filter against its definition, window by window, and what people use it for."""

from __future__ import annotations

import numpy as np
import pytest

from sa2va_host.masks.guided_filter import guided_filter


def reference(probability, picture, radius, epsilon):
    """He et al. 2013: a ridge regression of the map on the colours in each window, then the mean of all fits."""
    padded = [(2 * radius, 2 * radius)] * 2
    values = np.pad(probability.astype(np.float64), padded, mode="symmetric")
    colours = np.pad(picture / 255, [*padded, (0, 0)], mode="symmetric")
    rows, columns = probability.shape
    fits = np.empty((rows + 2 * radius, columns + 2 * radius, 4))
    for y in range(fits.shape[0]):
        for x in range(fits.shape[1]):
            window = np.s_[y : y + 2 * radius + 1, x : x + 2 * radius + 1]
            points, targets = colours[window].reshape(-1, 3), values[window].ravel()
            centred = points - points.mean(axis=0)
            slope = np.linalg.solve(
                centred.T @ centred / len(points) + epsilon * np.eye(3),
                centred.T @ (targets - targets.mean()) / len(points),
            )
            fits[y, x] = [*slope, targets.mean() - slope @ points.mean(axis=0)]
    result = np.empty_like(probability)
    for y in range(rows):
        for x in range(columns):
            fit = fits[y : y + 2 * radius + 1, x : x + 2 * radius + 1].mean(axis=(0, 1))
            result[y, x] = fit[:3] @ (picture[y, x] / 255) + fit[3]
    return result.clip(0, 1)


@pytest.mark.parametrize(("radius", "epsilon"), [(1, 1e-2), (2, 1e-4), (3, 1e-3)])
def test_it_is_the_definition(radius, epsilon):
    generator = np.random.default_rng(radius)
    picture = generator.integers(0, 256, (14, 17, 3), dtype=np.uint8)
    probability = generator.random((14, 17), dtype=np.float32)
    found = guided_filter(probability, picture, radius, epsilon)
    assert np.abs(found - reference(probability, picture, radius, epsilon)).max() < 1e-3


def test_a_blurred_edge_returns_to_where_the_picture_has_it():
    picture = np.full((40, 60, 3), (30, 90, 60), dtype=np.uint8)
    picture[:, 32:] = (90, 60, 200)
    ramp = np.clip((np.arange(60, dtype=np.float32) - 24) / 12, 0, 1)  # its middle is at column 30
    found = guided_filter(np.tile(ramp, (40, 1)), picture, 8, 1e-5)
    steps = np.diff(found, axis=1)
    assert (steps.argmax(axis=1) == 31).all()
    assert (steps.max(axis=1) > 0.5).all()


def test_without_edges_in_the_picture_it_is_a_blur():
    probability = np.zeros((21, 21), dtype=np.float32)
    probability[10, 10] = 1
    found = guided_filter(probability, np.full((21, 21, 3), 128, dtype=np.uint8), 2, 1e-4)
    tent = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25
    expected = np.zeros((21, 21))
    expected[6:15, 6:15] = np.outer(tent, tent)
    assert np.abs(found - expected).max() < 2e-3


def test_a_grey_picture_and_the_smallest_epsilon_are_no_trouble():
    grey = np.random.default_rng(5).integers(0, 256, (30, 30, 1), dtype=np.uint8).repeat(3, axis=2)
    probability = np.zeros((30, 30), dtype=np.float32)
    probability[8:20, 9:24] = 1
    found = guided_filter(probability, grey, 3, 1e-6)
    assert np.abs(found - reference(probability, grey, 3, 1e-6)).max() < 5e-3
