"""What an answer is worth, and the table and file that a measurement ends in."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.scene import Clip, Picture, Question

_RIGHT_IOU = 0.5
_BOUNDARY_REACH = 0.008
"""How far apart two outlines may be, as a share of the image's diagonal; DAVIS's value."""
_MARKS = "<!-- scores: written by training.evaluate -->\n", "<!-- end of scores -->\n"

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    text: str
    masks: Mask
    """`[objects, frames, height, width]`; a picture is one frame."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    label: str
    aim: float | None
    percent: bool

    def show(self, value: float | None) -> str:
        """The value as it stands in the table."""
        if value is None:
            return "-"
        return f"{100 * value:.1f} %" if self.percent else f"{value:.3f}"


ROWS = (
    Row("right_object", "Single object: the right one", 0.95, True),
    Row("single_iou", "Single object: mean IoU", 0.85, False),
    Row("two", "Two objects: both right, in order", 0.85, True),
    Row("group_iou", "Groups: mean IoU", None, False),
    Row("refused", "Absent things refused", 0.95, True),
    Row("question", "Questions answered right", 0.80, True),
    Row("video", "Video: mean J over 30 frames", 0.75, False),
)


@dataclass
class Scores:
    """Every measured value, 0..1, by the key of its row."""

    values: dict[str, list[float]] = field(default_factory=lambda: {row.key: [] for row in ROWS})

    def add(self, key: str, value: float) -> None:
        """Count one measurement."""
        self.values[key].append(float(value))

    def mean(self, key: str) -> float | None:
        """The mean of a row, None when nothing was measured."""
        return sum(self.values[key]) / len(self.values[key]) if self.values[key] else None


def score_answer(scores: Scores, picture: Picture, question: Question, answer: Answer) -> None:
    """Add what this answer is worth to the row, or rows, that it belongs to."""
    masks = answer.masks[:, 0]
    union = merged(answer.masks)[0]
    match question.kind:
        case "single":
            scores.add("right_object", _is_right_object(picture, question.targets[0], masks))
            scores.add("single_iou", iou(union, picture.mask(question.targets[0])))
        case "two":
            truths = [picture.mask(target) for target in question.targets]
            right = len(masks) == len(truths) and all(
                iou(mask, truth) > _RIGHT_IOU for mask, truth in zip(list(masks), truths, strict=True)
            )
            scores.add("two", right)
        case "group":
            scores.add("group_iou", iou(union, picture.mask(question.targets[0])))
        case "absent":
            scores.add("refused", len(masks) == 0)
        case "question":
            scores.add("question", len(masks) == 0 and _says(answer.text, question.accepted))


def _is_right_object(picture: Picture, target: tuple[int, ...], masks: Mask) -> bool:
    """One mask, that overlaps the target well and better than any other thing. `masks`: `[objects, h, w]`."""
    if len(masks) != 1:
        return False
    overlap = iou(masks[0], picture.mask(target))
    others = [index for index in range(len(picture.things)) if index not in target]
    return overlap > _RIGHT_IOU and all(overlap > iou(masks[0], picture.mask((i,))) for i in others)


def _says(text: str, accepted: Sequence[str]) -> bool:
    return any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in accepted)


def iou(found: Mask, truth: Mask) -> float:
    """DAVIS's J: intersection over union of two masks of one shape, 0..1; 1 when both are empty.

    Source: J in Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, 2016.
    """
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else 1.0


def boundary_f(found: Mask, truth: Mask) -> float:
    """DAVIS's F: how well the outlines of two masks `[height, width]` fit, 0..1; 1 when neither mask has an outline.

    The harmonic mean of the precision and the recall of the outlines' pixels, where a pixel counts as right if the
    other outline passes within 0.8 % of the diagonal, rounded up to whole pixels.

    Source: F in Perazzi et al., 2016, as davis2017-evaluation computes it (commit ac7c43f); equal to it bit for bit.
    """
    import cv2

    reach = int(np.ceil(_BOUNDARY_REACH * np.linalg.norm(truth.shape)))
    steps = np.arange(-reach, reach + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= reach**2).astype(np.uint8)
    outlines = [_outline(mask) for mask in (found, truth)]
    lengths = [int(outline.sum()) for outline in outlines]
    if not all(lengths):
        return float(not any(lengths))
    near = [cv2.dilate(outline.astype(np.uint8), disk) > 0 for outline in outlines]
    precision = int((outlines[0] & near[1]).sum()) / lengths[0]
    recall = int((outlines[1] & near[0]).sum()) / lengths[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _outline(mask: Mask) -> Mask:
    """`[height, width]`: the pixels that differ from their neighbour to the right, below or diagonally below.

    The image's frame is no outline: a pixel of the last row is compared to the right alone, one of the last column
    downwards alone.
    """
    outline = np.zeros(mask.shape, np.bool_)
    outline[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    outline[:-1] |= mask[:-1] != mask[1:]
    outline[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return outline


def merged(masks: Mask) -> Mask:
    """`[frames, height, width]`: the union of the masks `[objects, frames, height, width]`."""
    return np.asarray(masks.any(axis=0))


def video_score(clip: Clip, question: Question, answer: Answer) -> float:
    """Mean IoU over objects and frames; an object that was not found, or found too many, counts 0."""
    masks = answer.masks
    if question.kind == "group" and len(masks):
        masks = merged(masks)[None]
    total = 0.0
    for mask, target in zip(list(masks), question.targets, strict=False):
        truth = np.isin(clip.instances, [index + 1 for index in target])
        total += float(np.mean([iou(f, t) for f, t in zip(list(mask), list(truth), strict=True)]))
    return total / max(len(masks), len(question.targets))


def table(own: Scores, second: Scores) -> str:
    """The scores as one Markdown table."""
    lines = ["| | Aim | Own generator | Second generator |", "| --- | --- | --- | --- |"]
    for row in ROWS:
        cells = [f"{row.show(s.mean(row.key))} (n = {len(s.values[row.key])})" for s in (own, second)]
        aim = "-" if row.aim is None else f"{100 * row.aim:.0f} %" if row.percent else f"{row.aim:.2f}"
        lines.append(f"| {row.label} | {aim} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def as_json(own: Scores, second: Scores, settings: dict[str, object]) -> str:
    """Everything that was measured."""
    parts = {
        name: {
            key: {"mean": scores.mean(key), "n": len(values), "values": values}
            for key, values in scores.values.items()
        }
        for name, scores in (("own", own), ("second", second))
    }
    aims = {row.key: row.aim for row in ROWS}
    return json.dumps({"settings": settings, "aims": aims, **parts}, indent=1) + "\n"


def put_table(page: str, block: str) -> str:
    """The Markdown page with the table between its two marks."""
    return put_block(page, block, _MARKS)


def put_block(page: str, block: str, marks: tuple[str, str]) -> str:
    """The page with the block between two marks, at the end where it has none."""
    begin, end = marks
    if begin not in page or end not in page:
        return (page.rstrip("\n") + "\n\n" if page else "") + begin + block + end
    head, rest = page.split(begin, 1)
    return head + begin + block + end + rest.split(end, 1)[1]
