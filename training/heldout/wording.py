"""Prompts about the second generator's scenes, and what a right answer to each is."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from training.heldout import phrases
from training.heldout.facts import EXTREMES, Facts, measure
from training.scene import COLOURS, SHAPES, Clip, Kind, Picture, Question

Rng = np.random.Generator
Reference = tuple[str, int]
"""A phrase such as "the largest star", and the one thing it names."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")


def ask(rng: Rng, picture: Picture, count: int) -> tuple[Question, ...]:
    """Up to `count` different prompts about the picture; fewer only where no more are found."""
    kinds: dict[Kind, float] = {"single": 0.36, "two": 0.24, "group": 0.12, "absent": 0.14, "question": 0.14}
    return _gather(rng, measure(picture.things, picture.instances[None]), count, kinds, phrases.SINGLE)


def ask_clip(rng: Rng, clip: Clip, count: int, seen_frames: int) -> tuple[Question, ...]:
    """Up to `count` different prompts with targets that hold in each of the first `seen_frames` frames."""
    kinds: dict[Kind, float] = {"single": 0.66, "two": 0.17, "group": 0.17}
    facts = measure(clip.things, clip.instances[:seen_frames])
    return _gather(rng, facts, count, kinds, phrases.SINGLE[1:6] + phrases.CLIP_ONLY)


def _gather(
    rng: Rng, facts: Facts, count: int, kinds: dict[Kind, float], single: tuple[str, ...]
) -> tuple[Question, ...]:
    makers: dict[Kind, Callable[[], Question | None]] = {
        "single": lambda: _single(rng, facts, single),
        "two": lambda: _two(rng, facts),
        "group": lambda: _group(rng, facts),
        "absent": lambda: _absent(rng, facts),
        "question": lambda: _question(rng, facts),
    }
    names, weights = list(kinds), np.array(list(kinds.values()))
    found: dict[str, Question] = {}
    for _ in range(20 * count):
        if len(found) == count:
            break
        made = makers[names[rng.choice(len(names), p=weights / weights.sum())]]()
        if made is not None:
            found.setdefault(made.prompt.lower(), made)
    return tuple(found.values())


def _single(rng: Rng, facts: Facts, templates: tuple[str, ...]) -> Question | None:
    if (reference := _reference(rng, facts)) is None:
        return None
    phrase, index = reference
    answer = _pick(rng, ("Here it is: [SEG].", "This is {x}: [SEG].", "Sure, [SEG].")).format(x=phrase)
    return Question("single", _typed(rng, _pick(rng, templates).format(x=phrase)), answer, ((index,),))


def _two(rng: Rng, facts: Facts) -> Question | None:
    first, second = _reference(rng, facts), _reference(rng, facts)
    if first is None or second is None or first[1] == second[1]:
        return None
    prompt = _typed(rng, _pick(rng, phrases.TWO).format(a=first[0], b=second[0]))
    answer = f"Here is {first[0]}: [SEG], and {second[0]}: [SEG]."
    return Question("two", prompt, answer, ((first[1],), (second[1],)))


def _group(rng: Rng, facts: Facts) -> Question | None:
    """All things of a colour, of a shape or of both, of which there are at least two."""
    classes = [(c, s) for c in (None, *COLOURS) for s in (None, *SHAPES) if len(facts.matching(c, s)) > 1]
    classes = [key for key in classes if facts.shown(facts.matching(*key))]
    if len(classes) > 1 and rng.random() < 0.7:
        classes = [key for key in classes if key != (None, None)]
    if not classes:
        return None
    colour, shape = classes[rng.integers(len(classes))]
    if shape is None and colour is not None and rng.random() < 0.6:
        phrase = _pick(rng, phrases.WHOLE_COLOUR).format(colour=colour)
    else:
        one, many = _noun(rng, colour, shape)
        phrase = _pick(rng, phrases.WHOLE_PLURAL).format(one=one, many=many)
    prompt = _typed(rng, _pick(rng, phrases.GROUP).format(all=phrase))
    return Question("group", prompt, f"One mask for {phrase}: [SEG].", (facts.matching(colour, shape),))


def _absent(rng: Rng, facts: Facts) -> Question | None:
    """A thing that is not there; mostly one whose colour and whose shape are there, on different things."""
    missing = [(c, s) for c in COLOURS for s in SHAPES if not facts.matching(c, s)]
    hard = [(c, s) for c, s in missing if facts.matching(c, None) and facts.matching(None, s)]
    plain: list[tuple[str | None, str | None]] = [(c, None) for c in COLOURS if not facts.matching(c, None)]
    plain += [(None, s) for s in SHAPES if not facts.matching(None, s)]
    draw = rng.random()
    options = hard if hard and draw < 0.6 else plain if plain and draw < 0.7 else missing
    if not options:
        return None
    colour, shape = options[rng.integers(len(options))]
    one, _ = _noun(rng, colour, shape)
    prompt = _typed(rng, _pick(rng, phrases.SINGLE).format(x=f"the {one}"))
    return Question("absent", prompt, f"There is no {one} in the picture.")


def _question(rng: Rng, facts: Facts) -> Question | None:
    makers = (_how_many, _how_many, _what_colour, _what_shape, _is_there)
    return makers[rng.integers(len(makers))](rng, facts)


def _how_many(rng: Rng, facts: Facts) -> Question | None:
    options = [(c, s) for c in (None, *COLOURS) for s in (None, *SHAPES)]
    present = [key for key in options if facts.matching(*key)]
    pool = present if rng.random() < 0.85 else options
    colour, shape = pool[rng.integers(len(pool))]
    one, many = _noun(rng, colour, shape)
    number = len(facts.matching(colour, shape))
    prompt = _typed(rng, _pick(rng, phrases.HOW_MANY).format(many=many))
    accepted = (str(number), _NUMBERS[number], *(("no", "none") if number == 0 else ()))
    verb, noun = ("is", one) if number == 1 else ("are", many)
    return Question("question", prompt, f"There {verb} {_NUMBERS[number]} {noun}.", accepted=accepted)


def _what_colour(rng: Rng, facts: Facts) -> Question | None:
    """The colour of the one star, or of the largest star."""
    reference = _reference(rng, facts, with_colour=False)
    if reference is None:
        return None
    colour = facts.things[reference[1]].colour
    word = "colour" if rng.random() < 0.5 else "color"
    prompt = _typed(rng, _pick(rng, phrases.WHAT_COLOUR).format(x=reference[0], colour=word))
    return Question("question", prompt, f"It is {colour}.", accepted=(colour,))


def _what_shape(rng: Rng, facts: Facts) -> Question | None:
    """The shape of the one red thing, or of the largest red thing."""
    reference = _reference(rng, facts, with_shape=False)
    if reference is None:
        return None
    shape = facts.things[reference[1]].shape
    prompt = _typed(rng, _pick(rng, phrases.WHAT_SHAPE).format(x=reference[0].replace("shape", "thing")))
    return Question("question", prompt, f"It is a {shape}.", accepted=(shape,))


def _is_there(rng: Rng, facts: Facts) -> Question | None:
    options = [(c, s) for c in COLOURS for s in (*SHAPES, None)]
    wanted = rng.random() < 0.5
    pool = [key for key in options if bool(facts.matching(*key)) == wanted]
    colour, shape = pool[rng.integers(len(pool))]
    one, _ = _noun(rng, colour, shape)
    some = ("an " if one[0] in "aeiou" else "a ") + one
    prompt = _typed(rng, _pick(rng, phrases.IS_THERE).format(some=some))
    answer = f"Yes, there is {some}." if wanted else f"No, there is no {one}."
    return Question("question", prompt, answer, accepted=("yes",) if wanted else ("no", "not"))


def _reference(rng: Rng, facts: Facts, with_colour: bool = True, with_shape: bool = True) -> Reference | None:
    """A phrase that names exactly one visible thing; `with_...` says which words may be in it."""
    colours = (None, *COLOURS) if with_colour else (None,)
    shapes = (None, *SHAPES) if with_shape else (None,)
    classes = [(c, s) for c in colours for s in shapes if with_shape or c is not None]
    if rng.random() < 0.65:
        lone = [key for key in classes if key != (None, None) and len(facts.matching(*key)) == 1]
        lone = [key for key in lone if facts.shown(facts.matching(*key))]
        full = [key for key in lone if None not in key]
        pool = full if full and rng.random() < 0.6 else lone
        if pool:
            key = pool[rng.integers(len(pool))]
            return f"the {_noun(rng, *key)[0]}", facts.matching(*key)[0]
    crowds = [key for key in classes if len(facts.matching(*key)) > 1]
    if not crowds:
        return None
    key = crowds[rng.integers(len(crowds))]
    members = facts.matching(*key)
    which = EXTREMES[rng.integers(len(EXTREMES))]
    index = facts.extreme(members, which)
    if index is None:
        return None
    forms = phrases.AMONG_MANY[which] + (phrases.BETWEEN_TWO[which] if len(members) == 2 else ())
    one, many = _noun(rng, *key)
    return _pick(rng, forms).format(one=one, many=many), index


def _noun(rng: Rng, colour: str | None, shape: str | None) -> tuple[str, str]:
    """One and many: "red star" and "red stars"; a general word for any shape.

    That word is "shape" where no colour narrows it: a photograph in the background shows objects too, so that
    "the largest object" would be in doubt.
    """
    noun = shape or (_pick(rng, phrases.THING_WORDS) if colour else "shape")
    one = f"{colour} {noun}" if colour else noun
    return one, one + "s"


def _typed(rng: Rng, text: str) -> str:
    """As people type: a capital to begin with or none at all, the full stop sometimes left out."""
    if rng.random() < 0.35:
        text = text[0].lower() + text[1:]
        text = re.sub(r"\bi\b", "I", text) if rng.random() < 0.5 else text
    elif rng.random() < 0.7:
        text = text[0].upper() + text[1:]
    return text.removesuffix(".") if rng.random() < 0.3 else text


def _pick(rng: Rng, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]
