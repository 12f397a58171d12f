"""What the comparison of tracking modes measures, and on which clips."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from training.evaluate import FRAMES, SEEN_FRAMES
from training.modes import MARKS, MODES, SITUATIONS, draw_cases, score, table
from training.scores import Mask, boundary_f, iou, put_block

DAVIS = Path(__file__).parent / "davis.npz"
"""Pairs of masks (shapes, noise, degenerate and tiny ones, up to 1080 x 1920) and what davis2017-evaluation (commit
ac7c43f; NumPy 2.4.6, OpenCV 5.0.0, scikit-image 0.26.0) answers to each: `j` of `db_eval_iou`, `f` of
`db_eval_boundary`. `masks` holds their packed bits, the truth before what was found, pair by pair."""


def davis_pairs() -> Iterator[tuple[str, Mask, Mask, float, float]]:
    """(name, truth, found, J, F)."""
    with np.load(DAVIS) as stored:
        golden = dict(stored)
    left = golden["masks"]
    for name, shape, j, f in zip(
        golden["names"], golden["shapes"].tolist(), golden["j"], golden["f"], strict=True
    ):
        pixels = math.prod(shape)
        pair: list[Mask] = []
        for _ in range(2):
            length = -(-pixels // 8)
            bits, left = np.unpackbits(left[:length]), left[length:]
            pair.append(bits[:pixels].reshape(shape).astype(np.bool_))
        truth, found = pair
        yield str(name), truth, found, float(j), float(f)


def test_j_and_f_are_those_of_davis_to_the_last_bit() -> None:
    pairs = list(davis_pairs())
    assert len(pairs) == 349
    assert sum(0 < f < 1 for *_, f in pairs) > 100
    different = [
        (name, iou(found, truth), j, boundary_f(found, truth), f)
        for name, truth, found, j, f in pairs
        if (iou(found, truth), boundary_f(found, truth)) != (j, f)
    ]
    assert different == []


def test_outlines_that_lie_on_each_other_are_worth_one_and_far_ones_nothing() -> None:
    truth = np.zeros((100, 100), bool)
    truth[20:60, 20:60] = True
    assert boundary_f(truth, truth) == 1.0
    assert boundary_f(np.roll(truth, 1, axis=1), truth) == 1.0
    assert 0.3 < boundary_f(np.roll(truth, 9, axis=1), truth) < 0.7
    assert boundary_f(np.roll(truth, 9, axis=(0, 1)), truth) < 0.3
    nothing = np.zeros_like(truth)
    assert boundary_f(nothing, nothing) == 1.0
    assert boundary_f(nothing, truth) == boundary_f(truth, nothing) == 0.0


def test_a_frame_without_the_target_is_right_when_it_is_empty() -> None:
    truth = np.zeros((2, 20, 20), bool)
    truth[1, 5:10, 5:10] = True
    assert score(truth, truth) == (1.0, 1.0)
    assert score(np.zeros_like(truth), truth) == (0.5, 0.5)


@pytest.mark.parametrize("name", SITUATIONS)
def test_each_situation_is_what_it_is_called_and_comes_out_the_same_twice(name: str) -> None:
    (case,), (again,) = (list(draw_cases(SITUATIONS[name], 1, seed=3)) for _ in range(2))
    assert case.frames.shape == (*case.truth.shape, 3)
    assert (len(case.frames), case.prompt) == (FRAMES, again.prompt)
    np.testing.assert_array_equal(case.frames, again.frames)
    seen_early = case.truth[:SEEN_FRAMES].any()
    assert seen_early == (name in ("crossing, leaving", "hard cut"))
    assert case.truth[SEEN_FRAMES:].any()


def test_the_table_has_a_row_for_each_mode_and_replaces_itself() -> None:
    measured = {key: [((0.5, 0.25), (0.75, 0.125))] for key in itertools.product(SITUATIONS, MODES)}
    page = put_block(put_block("# Video\n", "old\n", MARKS), table(measured), MARKS)
    assert "old" not in page
    assert page.count("0.500 / 0.250") == len(MODES) * (len(SITUATIONS) + 1)
    assert page.count("0.750 / 0.125") == len(MODES)
