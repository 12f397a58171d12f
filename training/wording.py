"""Prompts about scenes, with answers that are right and could not be otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.facts import Facts, facts_of_clip, facts_of_picture
from training.phrases import (
    STRANGE_COLOURS,
    STRANGE_SHAPES,
    colour_word,
    group_phrase,
    known,
    noun_phrase,
    pick,
    request,
    shape_word,
    styled,
)
from training.pointing import point_out
from training.quizzes import quiz
from training.scene import COLOURS, SHAPES, Clip, Kind, Picture, Question

SHARES: dict[Kind, float] = {"single": 0.33, "two": 0.19, "group": 0.08, "absent": 0.14, "question": 0.26}
CLIP_SHARES: dict[Kind, float] = {"single": 0.58, "two": 0.18, "group": 0.10, "absent": 0.14}
THREE_SHARE = 0.15
"""Of the prompts for several things, those that name three."""
NOTHING = "There is no such thing here."
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")
Asker = Callable[[np.random.Generator, Facts], Question | None]


def ask(rng: np.random.Generator, picture: Picture, count: int) -> list[Question]:
    """`count` questions on one picture, of all kinds, each with its one right answer."""
    return _asked(rng, facts_of_picture(picture), count, SHARES)


def ask_clip(rng: np.random.Generator, clip: Clip, count: int, seen_frames: int) -> list[Question]:
    """`count` prompts for masks, about the first `seen_frames` frames; `targets` index `clip.things`."""
    return _asked(rng, facts_of_clip(clip, seen_frames), count, CLIP_SHARES)


def _asked(rng: np.random.Generator, facts: Facts, count: int, shares: dict[Kind, float]) -> list[Question]:
    questions: list[Question] = []
    limits = np.cumsum(tuple(shares.values()))
    askers: dict[Kind, Asker] = {
        "single": _single, "two": _several, "group": _group, "absent": _absent, "question": quiz,
    }  # fmt: skip
    while len(questions) < count:
        kind = tuple(shares)[int(np.searchsorted(limits, rng.random() * 0.999))]
        for _ in range(6):
            question = askers[kind](rng, facts)
            if question is not None:
                questions.append(question)
                break
    return questions


def _single(rng: np.random.Generator, facts: Facts) -> Question | None:
    pointed = point_out(rng, facts) if rng.random() < 0.4 else _named(rng, facts, plain=False)
    if pointed is None:
        return None
    phrase, index = pointed
    return Question("single", request(rng, phrase), "It is [SEG].", ((index,),))


def _named(rng: np.random.Generator, facts: Facts, plain: bool) -> tuple[str, int] | None:
    """A phrase of shape, colour or both that fits one seen thing only, and that thing."""
    if not facts.clear:
        return None
    index = facts.clear[int(rng.integers(len(facts.clear)))]
    thing = facts.things[index]
    draw = rng.random()
    shape = thing.shape if draw < 0.85 else None
    colour = thing.colour if draw < 0.6 or draw >= 0.85 else None
    if facts.matching(shape, colour) != (index,):
        return None
    return noun_phrase(rng, shape, colour, plain), index


def _several(rng: np.random.Generator, facts: Facts) -> Question | None:
    wanted = 3 if rng.random() < THREE_SHARE else 2
    named: list[tuple[str, int]] = []
    for _ in range(4 * wanted):
        found = point_out(rng, facts) if rng.random() < 0.3 else _named(rng, facts, plain=True)
        if found is not None and found[1] not in [index for _, index in named]:
            named.append(found)
        if len(named) == wanted:
            break
    else:
        return None
    phrases = [phrase for phrase, _ in named]
    targets = tuple((index,) for _, index in named)
    if wanted == 3:
        one, two, three = phrases
        listed = pick(rng, (f"{one}, {two} and {three}", f"{one}, {two}, {three}",
                            f"{one}, {two}, and {three}",
                            f"{one} and {two} and {three}", f"{one} plus {two} plus {three}"))  # fmt: skip
        return Question("two", request(rng, listed, plural=True), "They are [SEG], [SEG] and [SEG].", targets)
    one, two = phrases
    if rng.random() < 0.3:
        verb = pick(rng, ("segment", "find", "mask", "show", "locate", "highlight", "give me"))
        prompt = pick(rng, (f"{verb} {one}, then {two}", f"{verb} {one} and then {two}",
                            f"first {one}, then {two}",
                            f"{one} and after that {two}", f"{verb} {one} and also {two}",
                            f"{verb} two things: {one} and {two}",
                            f"{verb} {one} first and {two} second",
                            f"{verb} {one} and {verb} {two}",
                            f"{verb} {one}. {verb} {two} as well", f"{verb} {one}, {two} too",
                            f"{verb} {one}. {verb} {two} too", f"{verb} {one}. also {verb} {two}",
                            f"{verb} {one}. then {verb} {two}", f"{verb} {one}, and {two} too",
                            f"{verb} {one}, and {two} as well", f"{verb} {one}, and also {two}",
                            f"{verb} {one}, and {verb} {two}", f"{verb} {one}; {two} too",
                            f"two masks: {one}, and {two}", f"{one} is one, {two} the other"))  # fmt: skip
        ordered = styled(rng, prompt, False) if prompt.startswith(verb) else request(rng, prompt, plural=True)
        return Question("two", ordered, "They are [SEG] and [SEG].", targets)
    joined = pick(rng, (f"{one} and {two}",) * 5 + (f"both {one} and {two}", f"{one} plus {two}",
                        f"{one}, {two}", f"{one}, and {two}",
                        f"{one} & {two}", f"{one} as well as {two}", f"{one} together with {two}",
                        f"{one} + {two}",
                        f"{one} and also {two}", f"{one} along with {two}"))  # fmt: skip
    return Question("two", request(rng, joined, plural=True), "They are [SEG] and [SEG].", targets)


def _group(rng: np.random.Generator, facts: Facts) -> Question | None:
    if not facts.clear:
        return None
    thing = facts.things[facts.clear[int(rng.integers(len(facts.clear)))]]
    draw = rng.random()
    shape = thing.shape if draw < 0.55 else None
    colour = thing.colour if draw < 0.15 or 0.55 <= draw < 0.85 else None
    targets = facts.matching(shape, colour)
    phrase = group_phrase(rng, shape, colour)
    if draw >= 0.93:
        targets = tuple(index for index in facts.seen if facts.things[index].shape != thing.shape)
        plural = shape_word(rng, thing.shape, plural=True)
        phrase = pick(rng, (f"everything except the {plural}", f"everything that is not a {thing.shape}",
                            f"all objects except {plural}", f"all but the {plural}",
                            f"everything but the {plural}"))  # fmt: skip
    elif len(targets) > 1 and (shape or colour) and rng.random() < 0.35:
        hue = f"{colour_word(rng, colour)} " if colour else ""
        plural = shape_word(rng, shape, plural=True)
        number = NUMBERS[len(targets)]
        forms = (f"the {hue}{plural}", f"the {number} {hue}{plural}", f"{hue}{plural}")
        phrase = pick(rng, (*forms, f"both {hue}{plural}") if len(targets) == 2 else forms)
    if not targets or not set(targets) <= set(facts.clear):
        return None
    singular = phrase.startswith(("every", "each", "any", "all that", "what"))
    return Question("group", request(rng, phrase, plural=not singular), "It is [SEG].", (targets,))


def _absent(rng: np.random.Generator, facts: Facts) -> Question | None:
    shape, colour = _absent_kind(rng, facts)
    if facts.matching(shape, colour):
        return None
    answer = (
        f"There is no {f'{colour} ' if colour else ''}{shape or 'thing'} here."
        if known(shape, colour)
        else NOTHING
    )
    draw = rng.random()
    if draw < 0.2:
        return Question("absent", request(rng, group_phrase(rng, shape, colour), plural=True), answer)
    if draw < 0.28:
        extreme = pick(rng, ("largest", "biggest", "smallest", "leftmost", "rightmost", "topmost"))
        spaced = f"{colour_word(rng, colour)} " if colour else ""
        return Question("absent", request(rng, f"the {extreme} {spaced}{shape_word(rng, shape)}"), answer)
    return Question("absent", request(rng, noun_phrase(rng, shape, colour)), answer)


def _absent_kind(rng: np.random.Generator, facts: Facts) -> tuple[str | None, str | None]:
    """A shape and a colour that may be absent; most often each is there, in different things."""
    present = [facts.things[index] for index in facts.seen]
    shapes = tuple(sorted({thing.shape for thing in present}))
    colours = tuple(sorted({thing.colour for thing in present}))
    draw = rng.random()
    if draw < 0.4 and len(present) > 1:
        return pick(rng, shapes), pick(rng, colours)
    if draw < 0.6:
        return pick(rng, SHAPES), pick(rng, COLOURS)
    if draw < 0.7:
        return pick(rng, SHAPES), None
    if draw < 0.8:
        return None, pick(rng, COLOURS)
    if draw < 0.92:
        return pick(rng, STRANGE_SHAPES), pick(rng, COLOURS) if rng.random() < 0.3 else None
    return pick(rng, SHAPES) if rng.random() < 0.7 else None, pick(rng, STRANGE_COLOURS)
