"""Questions answered in words: how many, which colour, which shape, is there one, which is larger."""

from __future__ import annotations

import numpy as np

from training.facts import SIDES, Facts
from training.phrases import colour_word, pick, pluralised, shape_word, styled
from training.pointing import EXTREMES
from training.scene import COLOURS, SHAPES, Question

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOUR_NAMES = {"purple": ("purple", "violet")}
SHAPE_NAMES = {"circle": ("circle", "disc", "disk", "round"), "square": ("square", "box")}
PLACES = ("", "", "", " in this image", " in the picture", " here", " in the image", " in this picture")


def quiz(rng: np.random.Generator, facts: Facts) -> Question | None:
    """One question whose answer has no mask; None where the kind drawn does not apply."""
    draw = rng.random()
    if draw < 0.3:
        return _how_many(rng, facts)
    if draw < 0.5:
        return _which_colour(rng, facts)
    if draw < 0.62:
        return _which_shape(rng, facts)
    if draw < 0.82:
        return _is_there(rng, facts)
    return _which_is_larger(rng, facts) if draw < 0.91 else _what_is_at(rng, facts)


def _question(rng: np.random.Generator, prompt: str, answer: str, accepted: tuple[str, ...]) -> Question:
    asking = not prompt.startswith(("count", "tell", "name", "describe"))
    return Question("question", styled(rng, prompt, asking), answer, (), accepted)


def _how_many(rng: np.random.Generator, facts: Facts) -> Question:
    draw = rng.random()
    shape = pick(rng, SHAPES) if draw < 0.55 else None
    colour = pick(rng, COLOURS) if draw < 0.25 or 0.55 <= draw < 0.85 else None
    if facts.seen and rng.random() < 0.6:
        thing = facts.things[facts.seen[int(rng.integers(len(facts.seen)))]]
        shape, colour = shape and thing.shape, colour and thing.colour
    count = len(facts.matching(shape, colour))
    noun = shape_word(rng, shape, plural=True).replace("ones", "objects")
    named = f"{colour_word(rng, colour)} {noun}" if colour else noun
    place = pick(rng, PLACES)
    prompt = pick(rng, (f"how many {named} are there{place}", f"how many {named} are there{place}",
                        f"how many {named} do you see{place}", f"count the {named}{place}",
                        f"how many {named}{place}",
                        f"what is the number of {named}{place}", f"number of {named}{place}",
                        f"how many {named} does the image show", f"could you count the {named}{place}",
                        f"how many {named} can you see{place}",
                        f"tell me how many {named} there are{place}"))  # fmt: skip
    accepted = (str(count), NUMBERS[count]) if count else ("0", "zero", "no", "none")
    return _question(rng, prompt, f"There {'is' if count == 1 else 'are'} {count}.", accepted)


def _which_colour(rng: np.random.Generator, facts: Facts) -> Question | None:
    shape = pick(rng, SHAPES)
    found = facts.matching(shape, None)
    if len(found) != 1:
        return None
    colour, noun = facts.things[found[0]].colour, shape_word(rng, shape)
    hue = pick(rng, ("colour", "color"))
    prompt = pick(rng, (f"what {hue} is the {noun}", f"what {hue} is the {noun}",
                        f"which {hue} is the {noun}",
                        f"what is the {hue} of the {noun}", f"the {noun} is what {hue}",
                        f"what {hue} does the {noun} have",
                        f"the {noun}: which {hue} is it", f"look at the {noun}, what {hue} is it",
                        f"tell me the {hue} of the {noun}", f"name the {hue} of the {noun}"))  # fmt: skip
    return _question(rng, prompt + pick(rng, PLACES), f"It is {colour}.", COLOUR_NAMES.get(colour, (colour,)))


def _which_shape(rng: np.random.Generator, facts: Facts) -> Question | None:
    colour = pick(rng, COLOURS)
    found = facts.matching(None, colour)
    if len(found) != 1:
        return None
    shape, hue = facts.things[found[0]].shape, colour_word(rng, colour)
    noun = pick(rng, ("object", "thing", "item", "one", "figure"))
    prompt = pick(rng, (f"what shape is the {hue} {noun}", f"which shape is the {hue} {noun}",
                        f"what shape does the {hue} {noun} have", f"what is the shape of the {hue} {noun}",
                        f"what kind of shape is the {hue} {noun}",
                        f"tell me the shape of the {hue} {noun}"))  # fmt: skip
    return _question(rng, prompt + pick(rng, PLACES), f"It is a {shape}.", SHAPE_NAMES.get(shape, (shape,)))


def _is_there(rng: np.random.Generator, facts: Facts) -> Question:
    shape: str | None = pick(rng, SHAPES)
    colour: str | None = pick(rng, COLOURS)
    if facts.seen and rng.random() < 0.8:
        present = [facts.things[index] for index in facts.seen]
        shape = present[int(rng.integers(len(present)))].shape
        colour = present[int(rng.integers(len(present)))].colour
    draw = rng.random()
    if draw < 0.15:
        shape = None
    elif draw < 0.35:
        colour = None
    noun = shape_word(rng, shape).replace("one", "object")
    named = f"{colour_word(rng, colour)} {noun}" if colour else noun
    article = "an" if named[0] in "aeiou" else "a"
    plural = pluralised(named) if not named.endswith("thing") else f"{named}s"
    prompt = pick(rng, (f"is there {article} {named}", f"is there {article} {named}", f"is there any {named}",
                        f"are there any {plural}", f"does this image contain {article} {named}",
                        f"is {article} {named} present",
                        f"is there at least one {named}", f"does the picture have {article} {named}",
                        f"do you see any {plural}", f"are there {plural}",
                        f"yes or no: is there {article} {named}", f"is there {article} {named}, yes or no",
                        f"can you see {article} {named}? answer yes or no",
                        f"do you see {article} {named}? yes or no"))  # fmt: skip
    yes = bool(facts.matching(shape, colour))
    place = pick(rng, PLACES) if "image" not in prompt and "picture" not in prompt else ""
    return _question(rng, prompt + place, "Yes." if yes else "No.", ("yes",) if yes else ("no",))


def _identified(rng: np.random.Generator, facts: Facts, index: int) -> str | None:
    """The shape, or colour and shape, that only this thing has."""
    thing = facts.things[index]
    if rng.random() < 0.3 and facts.matching(thing.shape, None) == (index,):
        return thing.shape
    return f"{thing.colour} {thing.shape}" if facts.matching(thing.shape, thing.colour) == (index,) else None


def _which_is_larger(rng: np.random.Generator, facts: Facts) -> Question | None:
    if len(facts.seen) < 2:
        return None
    first, second = rng.permutation(np.array(facts.seen))[:2].tolist()
    one, two = _identified(rng, facts, first), _identified(rng, facts, second)
    larger = facts.larger(first, second)
    if one is None or two is None or not (larger or facts.larger(second, first)):
        return None
    if rng.random() < 0.65:
        word, right = pick(rng, ("larger", "bigger")), one if larger else two
    else:
        word, right = pick(rng, ("smaller", "tinier")), two if larger else one
    prompt = pick(rng, (f"which is {word}, the {one} or the {two}",
                        f"which is {word}: the {one} or the {two}",
                        f"what is {word}, the {one} or the {two}", f"is the {one} or the {two} {word}",
                        f"which one is {word}, the {one} or the {two}"))  # fmt: skip
    return _question(rng, prompt, f"The {right}.", (right,))


def _what_is_at(rng: np.random.Generator, facts: Facts) -> Question | None:
    """What the leftmost, the largest, ... thing is."""
    relation = pick(rng, (*SIDES, "largest", "smallest"))
    best = [
        one
        for one in facts.seen
        if all(_ahead(facts, one, other, relation) for other in facts.seen if other != one)
    ]
    if len(facts.seen) < 2 or len(best) != 1:
        return None
    thing = facts.things[best[0]]
    noun = pick(rng, ("object", "thing", "shape", "item", "figure"))
    word = EXTREMES.get(relation, relation)
    prompt = pick(rng, (f"what is the {word} {noun}", f"what is the {word} {noun}",
                        f"describe the {word} {noun}",
                        f"name the {word} {noun}", f"what kind of thing is the {word} {noun}"))  # fmt: skip
    named = f"{thing.colour} {thing.shape}"
    return _question(rng, prompt + pick(rng, PLACES), f"The {named}.", (named,))


def _ahead(facts: Facts, one: int, other: int, relation: str) -> bool:
    if relation in SIDES:
        return facts.beyond(one, other, relation)
    return facts.larger(one, other) if relation == "largest" else facts.larger(other, one)
