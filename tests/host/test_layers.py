"""Objects of a frame as they are written: names of their own, no overlaps on request, nothing where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from sa2va_host.masks.refinement import Refinement
from sa2va_host.output.layers import Layer, make_layers, object_names, resolve_overlaps

PICTURE = np.zeros((6, 8, 3), np.uint8)


def test_a_layer_is_the_refined_probability_and_its_mask() -> None:
    probabilities = np.zeros((2, 6, 8), np.float32)
    probabilities[0, 2:4, 2:4] = 0.6
    first, second = make_layers(
        ["a", "b"], probabilities, None, PICTURE, threshold=0.5, refinement=Refinement(grow=1)
    )
    assert (first.name, first.presence, int(first.mask.sum())) == ("a", None, 12)
    np.testing.assert_array_equal(first.mask, first.probability > 0.5)
    assert not second.mask.any()


def test_an_object_that_is_not_there_is_empty() -> None:
    layers = make_layers(
        ["a", "b"],
        np.ones((2, 6, 8), np.float32),
        np.array([0.9, 0.2], np.float32),
        PICTURE,
        least_presence=0.5,
    )
    assert [layer.mask.all() for layer in layers] == [True, False]
    assert not layers[1].probability.any()
    assert layers[1].presence == pytest.approx(0.2)


def test_the_surer_object_has_the_pixel() -> None:
    near, far = np.zeros((6, 8), np.float32), np.zeros((6, 8), np.float32)
    near[:, :5], far[:, 3:] = 0.7, 0.8
    one, two = resolve_overlaps([Layer("near", near, near > 0.5), Layer("far", far, far > 0.5)])
    assert not (one.mask & two.mask).any()
    np.testing.assert_array_equal(one.mask | two.mask, (near > 0.5) | (far > 0.5))
    assert two.mask[:, 3:].all()
    assert not one.probability[:, 3:].any()


@pytest.mark.parametrize(
    ("stems", "counts", "names"),
    [
        (["cat", "dog"], [1, 2], ["cat", "dog-1", "dog-2"]),
        (["dog", "dog-1"], [2, 1], ["dog-1-", "dog-2", "dog-1"]),
        (["cat", "dog"], [0, 1], ["dog"]),
        ([], [], []),
    ],
)
def test_names_are_the_prompts_and_never_the_same(
    stems: list[str], counts: list[int], names: list[str]
) -> None:
    assert object_names(stems, counts) == names
