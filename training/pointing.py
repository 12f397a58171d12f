"""Phrases that single out one thing by comparing it: largest, leftmost, beside another, unlike the others."""

from __future__ import annotations

import numpy as np

from training.facts import SIDES, Facts
from training.phrases import BIGGEST, SMALLEST, colour_word, noun_phrase, pick, shape_word

EXTREMES = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "bottommost"}
PLACES = {
    "left": (
        "on the left",
        "at the left",
        "on the far left",
        "to the left",
        "on the left side",
        "furthest left",
    ),
    "right": (
        "on the right",
        "at the right",
        "on the far right",
        "to the right",
        "on the right side",
        "furthest right",
    ),
    "top": ("at the top", "at the very top", "highest up", "near the top"),
    "bottom": ("at the bottom", "at the very bottom", "lowest down", "near the bottom"),
}
RELATIONS = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "top": ("above", "above", "higher than", "higher up than"),
    "bottom": ("below", "below", "lower than", "lower down than"),
}


def point_out(rng: np.random.Generator, facts: Facts) -> tuple[str, int] | None:
    """A phrase that fits one thing only, and its index; None where the kind drawn does not apply."""
    if not facts.clear:
        return None
    draw = rng.random()
    if draw < 0.35:
        return _by_size(rng, facts)
    if draw < 0.65:
        return _by_side(rng, facts)
    if draw < 0.75:
        return _by_corner(rng, facts)
    if draw < 0.9:
        return _by_neighbour(rng, facts)
    return _by_exclusion(rng, facts)


def _rivals(rng: np.random.Generator, facts: Facts) -> tuple[str | None, str | None, tuple[int, ...]]:
    """A shape, a colour or neither, and the two or more seen things that fit."""
    thing = facts.things[facts.clear[int(rng.integers(len(facts.clear)))]]
    draw = rng.random()
    shape = thing.shape if draw < 0.55 else None
    colour = thing.colour if draw < 0.2 or 0.55 <= draw < 0.75 else None
    matching = facts.matching(shape, colour)
    return shape, colour, matching if set(matching) <= set(facts.clear) else ()


def _by_size(rng: np.random.Generator, facts: Facts) -> tuple[str, int] | None:
    shape, colour, rivals = _rivals(rng, facts)
    largest = rng.random() < 0.55
    best = [
        one
        for one in rivals
        if all(
            facts.larger(one, other) if largest else facts.larger(other, one)
            for other in rivals
            if other != one
        )
    ]
    if len(rivals) < 2 or len(best) != 1:
        return None
    word = pick(rng, BIGGEST if largest else SMALLEST)
    if len(rivals) == 2 and rng.random() < 0.4:
        word = pick(
            rng,
            ("larger", "bigger", "big", "large", "huge")
            if largest
            else ("smaller", "small", "little", "tiny"),
        )
    article = pick(rng, ("the ", "the ", "the ", ""))
    return article + word + " " + _qualified(rng, shape, colour), best[0]


def _by_side(rng: np.random.Generator, facts: Facts) -> tuple[str, int] | None:
    shape, colour, rivals = _rivals(rng, facts)
    side = pick(rng, SIDES)
    best = [one for one in rivals if all(facts.beyond(one, other, side) for other in rivals if other != one)]
    if len(rivals) < 2 or len(best) != 1:
        return None
    named = _qualified(rng, shape, colour)
    article = pick(rng, ("the ", "the ", "the ", ""))
    if rng.random() < 0.4:
        return f"{article}{EXTREMES[side]} {named}", best[0]
    if side in ("left", "right") and rng.random() < 0.15:
        return f"{article}{side} {named}" if len(
            rivals
        ) == 2 else f"{article}{named} furthest to the {side}", best[0]
    return f"{article}{named} {pick(rng, PLACES[side])}", best[0]


def _by_corner(rng: np.random.Generator, facts: Facts) -> tuple[str, int] | None:
    vertical, horizontal = pick(rng, ("top", "bottom")), pick(rng, ("left", "right"))
    inside = [index for index in facts.clear if facts.in_corner(index, vertical, horizontal, 0.36)]
    near = [index for index in facts.seen if not _surely_outside(facts, index, vertical, horizontal)]
    if len(inside) != 1 or near != inside:
        return None
    word = pick(rng, ("upper", "top") if vertical == "top" else ("lower", "bottom"))
    noun = shape_word(rng, pick(rng, (facts.things[inside[0]].shape, "")) or None)
    corner = pick(rng, (f"{word} {horizontal} corner", f"{word}-{horizontal} corner", f"{word} {horizontal}"))
    return f"the {noun} {pick(rng, ('in the', 'at the'))} {corner}", inside[0]


def _surely_outside(facts: Facts, index: int, vertical: str, horizontal: str) -> bool:
    x, y = facts.x[:, index] / facts.reach[0], facts.y[:, index] / facts.reach[1]
    across = x > 0.5 if horizontal == "left" else x < 0.5
    down = y > 0.5 if vertical == "top" else y < 0.5
    return bool(across.all() or down.all())


def _by_neighbour(rng: np.random.Generator, facts: Facts) -> tuple[str, int] | None:
    anchor = facts.clear[int(rng.integers(len(facts.clear)))]
    mark = facts.things[anchor]
    if facts.matching(mark.shape, mark.colour) != (anchor,):
        return None
    by_shape = rng.random() < 0.3 and len(facts.matching(mark.shape, None)) == 1
    side = pick(rng, SIDES)
    one = facts.clear[int(rng.integers(len(facts.clear)))]
    if one == anchor or not facts.beside(one, anchor, side):
        return None
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[side]
    draw = rng.random()
    shape = facts.things[one].shape if draw < 0.8 else None
    colour = facts.things[one].colour if draw < 0.35 else None
    others = [other for other in facts.matching(shape, colour) if other not in (one, anchor)]
    if not all(facts.beyond(other, anchor, opposite) for other in others):
        return None
    named = _qualified(rng, shape, colour)
    mark_phrase = noun_phrase(rng, mark.shape, None if by_shape else mark.colour, plain=True)
    mark_phrase = mark_phrase if mark_phrase.startswith(("the ", "that ")) else "the " + mark_phrase
    return f"the {named} {pick(rng, RELATIONS[side])} {mark_phrase}", one


def _by_exclusion(rng: np.random.Generator, facts: Facts) -> tuple[str, int] | None:
    if len(facts.seen) == 1:
        noun = shape_word(rng, None)
        return pick(
            rng, (f"the only {noun}", "the object", "the shape", f"the only {noun} there is")
        ), facts.seen[0]
    thing = facts.things[facts.clear[int(rng.integers(len(facts.clear)))]]
    by_shape = rng.random() < 0.6
    left = [
        index
        for index in facts.seen
        if (
            facts.things[index].shape != thing.shape
            if by_shape
            else facts.things[index].colour != thing.colour
        )
    ]
    if len(left) != 1 or left[0] not in facts.clear:
        return None
    noun = shape_word(rng, None)
    if by_shape:
        return f"the {noun} that is not a {thing.shape}", left[0]
    return f"the {noun} that is not {colour_word(rng, thing.colour)}", left[0]


def _qualified(rng: np.random.Generator, shape: str | None, colour: str | None) -> str:
    noun = shape_word(rng, shape)
    return f"{colour_word(rng, colour)} {noun}" if colour else noun
