"""The shapes, dtypes and words of a result."""

from __future__ import annotations

import numpy as np
import pytest

from sa2va_host.errors import InvalidInput
from sa2va_host.results import AnsweredBy, Segmentation


def result(objects, frames, *, is_video):
    logits = np.random.default_rng(0).standard_normal((objects, frames, 32, 32)).astype(np.float32)
    return Segmentation(
        text="It is [SEG].",
        logits=logits,
        size=(48, 72),
        image_size=128,
        is_video=is_video,
        worker=AnsweredBy(pid=1, started=2.0),
    )


@pytest.mark.parametrize(
    ("objects", "frames", "is_video", "shape"),
    [
        (2, 1, False, (2, 48, 72)),
        (0, 1, False, (0, 48, 72)),
        (2, 3, True, (2, 3, 48, 72)),
        (1, 1, True, (1, 1, 48, 72)),
        (0, 3, True, (0, 3, 48, 72)),
    ],
)
def test_shapes(objects, frames, is_video, shape):
    answer = result(objects, frames, is_video=is_video)
    assert len(answer) == objects
    assert answer  # also without objects
    probabilities, masks = answer.probabilities(), answer.masks()
    assert (probabilities.shape, probabilities.dtype) == (shape, np.float32)
    assert (masks.shape, masks.dtype) == (shape, np.bool_)
    assert np.array_equal(masks, probabilities > 0.5)
    assert np.array_equal(answer.masks(threshold=0.7), probabilities > 0.7)


def test_threshold_is_checked_also_without_objects():
    for objects in (0, 1):
        with pytest.raises(InvalidInput, match="0 to 1"):
            result(objects, 1, is_video=False).masks(threshold=1.5)


def test_boxes_are_those_of_the_masks():
    answer = result(2, 1, is_video=False)
    assert len(answer.boxes()) == 2
    assert answer.boxes(threshold=1.0) == [None, None]
    for mask, box in zip(answer.masks(), answer.boxes(), strict=True):
        assert box is not None
        x0, y0, x1, y1 = box
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert mask[y0].any()
        assert mask[:, x1 - 1].any()


def test_a_track_has_no_single_box():
    with pytest.raises(TypeError, match="each frame"):
        result(1, 2, is_video=True).boxes()


def test_repr_is_short():
    assert repr(result(2, 3, is_video=True)) == (
        "Segmentation(text='It is [SEG].', objects=2, frames=3, size=(48, 72))"
    )
