"""The words of a prompt: names of shapes and colours, ways to ask for a mask and to write a sentence."""

from __future__ import annotations

import numpy as np

from training.scene import COLOURS, SHAPES

SHAPE_WORDS = {
    "circle": ("circle",) * 7 + ("disc", "disk", "round shape", "ball", "dot"),
    "square": ("square",) * 7 + ("box", "block"),
    "triangle": ("triangle",),
    "star": ("star",),
}
COLOUR_WORDS = {colour: (colour,) for colour in COLOURS} | {"purple": ("purple",) * 5 + ("violet",)}
THING_WORDS = ("object", "thing", "shape", "item", "figure", "one")
PLURAL_THING_WORDS = ("objects", "things", "shapes", "items", "figures", "ones")
STRANGE_SHAPES = (
    "rabbit", "umbrella", "guitar", "elephant", "pizza", "sheep", "ladder",
    "hexagon", "heart", "dog", "car", "pentagon", "arrow", "crescent", "diamond ring",
    "oval", "cross", "bird", "horse", "bus", "octagon",
    "spiral", "cylinder", "cone", "boat", "fish", "apple", "banana", "book", "phone",
)  # fmt: skip
STRANGE_COLOURS = (
    "pink",
    "brown",
    "white",
    "black",
    "cyan",
    "grey",
    "gray",
    "turquoise",
    "golden",
    "silver",
    "beige",
)
BIGGEST = ("largest", "biggest", "largest", "biggest", "hugest")
SMALLEST = ("smallest", "tiniest", "littlest", "smallest")
LEADS = (
    "hi, ", "hello, ", "hey, ", "ok now ", "ok, ", "now ", "next, ", "so, ", "well, ", "right, ",
    "this time ", "then ",
    "good morning, ", "hello there, ", "alright, ", "okay, ", "hi! ", "one more: ", "task: ",
    "for this picture, ",
    "in this image, ", "look at the picture and ", "thanks. now ", "first, ", "and now ", "also, ", "again, ",
)  # fmt: skip
TAILS = (
    " in this image", " in the image", " in the picture", " in this picture", " here", " for me",
    " on the screen",
    " in the scene", " in the photo", " in this frame", " in the video", " on this picture", " now",
    " you see",
    " as a mask", " with a mask", " if you can", " shown here", " precisely", " in this image for me",
    " in all frames", " in each frame", " throughout", " throughout the video", " during the clip",
    " from start to end", " over the whole clip", " in this footage", " all the way through", " as it moves",
    " from the first frame to the last", " across the clip",
)  # fmt: skip
VERBS = (
    "segment", "segment", "segment", "segment", "find", "find", "locate", "show", "show me", "mark",
    "highlight",
    "outline", "mask", "mask out", "pick out", "select", "cut out", "extract", "detect", "point out",
    "give me",
    "identify", "label", "look for", "spot", "indicate", "isolate", "choose", "trace", "find me", "point to",
    "separate", "get", "get me", "grab", "segment out", "draw a mask on", "put a mask on", "paint over",
    "pick",
    "give me a mask of", "give me the mask for", "make a mask for", "make a mask of", "produce a mask of",
    "return the mask of", "give a segmentation mask for", "give me a segmentation mask for",
    "create a mask for",
    "generate a segmentation mask for", "provide the segmentation of", "do a segmentation of",
    "show me the mask of",
    "output the mask of", "cover", "delineate", "track", "focus on", "crop out", "catch", "tag", "output",
    "track", "follow", "follow", "keep track of", "keep following", "stay on", "keep an eye on",
)  # fmt: skip
MODALS = (
    "can you {} ", "could you {} ", "would you {} ", "will you {} ", "can you please {} ",
    "could you please {} ",
    "would you please {} ", "i want you to {} ", "i would like you to {} ", "i'd like you to {} ",
    "help me {} ",
    "let's {} ", "try to {} ", "your task is to {} ", "please try to {} ", "i need you to {} ",
    "are you able to {} ",
    "can we {} ", "may i ask you to {} ", "you should {} ", "go and {} ", "just {} ", "kindly {} ",
    "simply {} ",
)  # fmt: skip
AFTERTHOUGHTS = (
    ", nothing else", " only", " and nothing more", " alone", ", just that", " and mark it", " and show it to me",
    " and outline it", " and give me its mask", ", one mask",
)  # fmt: skip
PLURAL_AFTERTHOUGHTS = (
    ", nothing else",
    " only",
    ", a mask each",
    ", one mask for each",
    " and mark them",
    ", both of them",
)
QUESTIONING = ("can", "could", "would", "will", "are", "may", "where", "which", "what")
SINGULAR_QUERIES = (
    "where is {}", "where is {}", "where's {}", "where can i find {}", "where do you see {}",
    "which pixels belong to {}",
    "what part of the image is {}", "which region is {}", "show me where {} is", "tell me where {} is",
    "i want {}",
    "i need {}", "i'd like {}", "i would like {}", "i am looking for {}", "i'm looking for {}",
    "i want to see {}",
    "i need the mask of {}", "which area is covered by {}", "where exactly is {}", "i can't find {}",
    "what about {}",
    "mask of {}", "mask for {}", "the mask of {}", "segmentation of {}", "segmentation mask of {}",
    "a mask for {}",
    "segmentation mask for {}", "pixels of {}", "location of {}", "region of {}", "target: {}",
    "my target is {}", "a mask of {} for each frame", "keep {} masked in all frames", "track where {} goes",
    "where does {} go", "hold the mask on {} until the end", "watch {} and mask it in the clip",
)  # fmt: skip
PLURAL_QUERIES = (
    *(
        query
        for query in SINGULAR_QUERIES
        if not {"is", "where's", "goes", "does", "it"} & set(query.split())
    ),
    "where are {}",
    "where are {}",
    "show me where {} are",
    "tell me where {} are",
    "which pixels are {}",
)


def pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    """One of several texts."""
    return options[int(rng.integers(len(options)))]


def shape_word(rng: np.random.Generator, shape: str | None, plural: bool = False) -> str:
    """A name of a shape, or of any object for None."""
    if shape is None:
        return pick(rng, PLURAL_THING_WORDS if plural else THING_WORDS)
    word = pick(rng, SHAPE_WORDS.get(shape, (shape,)))
    return pluralised(word) if plural else word


def pluralised(word: str) -> str:
    """The plural of a name."""
    return word + ("es" if word.endswith(("x", "s", "ss", "sh", "ch")) else "s")


def colour_word(rng: np.random.Generator, colour: str) -> str:
    """A name of a colour."""
    return pick(rng, COLOUR_WORDS.get(colour, (colour,)))


def noun_phrase(rng: np.random.Generator, shape: str | None, colour: str | None, plain: bool = False) -> str:
    """A phrase such as "the red circle", for one thing of this shape or colour or both.

    `plain` keeps to forms without a comma or a clause, which can be listed.
    """
    noun = shape_word(rng, shape)
    if colour is None:
        return pick(rng, ("the ", "the ", "the ", "that ", "")) + (noun if noun != "one" else "object")
    word = colour_word(rng, colour)
    draw = rng.random()
    if plain or draw < 0.7 or (shape is None and draw < 0.85):
        return pick(rng, ("the ", "the ", "the ", "the ", "that ", "")) + f"{word} {noun}"
    hue = pick(rng, ("colour", "color"))
    forms = (
        f"the {noun} that is {word}", f"the {noun} which is {word}", f"the {noun} in {word}",
        f"the {noun} with {hue} {word}",
        f"the {word} {hue}ed {noun}", f"the {word}-{hue}ed {noun}", f"the {noun} that's {word}",
        f"{noun}, {word}",
        f"the {noun} of {word} {hue}", f"{word}, {noun}", f"the {noun} (the {word} one)",
        f"the {noun} painted {word}",
    )  # fmt: skip
    if noun == "one":
        return pick(rng, forms[:7])
    return pick(rng, forms)


def group_phrase(rng: np.random.Generator, shape: str | None, colour: str | None) -> str:
    """A phrase such as "all red circles", for every thing of this shape or colour or both."""
    plural, single = shape_word(rng, shape, plural=True), shape_word(rng, shape)
    hue = colour_word(rng, colour) if colour else ""
    if shape is None and colour is None:
        return pick(rng, ("everything", "every object", "all objects", "all the objects",
                          "all of the things", "all things",
                          "each object", "every shape", "all shapes", "all the shapes",
                          "every single thing"))  # fmt: skip
    spaced = f"{hue} " if hue else ""
    forms = [f"all {spaced}{plural}", f"all the {spaced}{plural}", f"all of the {spaced}{plural}",
             f"every {spaced}{single}",
             f"each {spaced}{single}", f"every single {spaced}{single}"]  # fmt: skip
    if colour:
        forms += [f"all {plural} that are {hue}", f"every {single} that is {hue}", f"all {plural} in {hue}"]
        if shape is None:
            forms += [f"everything that is {hue}", f"everything {hue}", f"anything {hue}",
                      f"all that is {hue}",
                      f"whatever is {hue}", f"everything in {hue}"]  # fmt: skip
    elif shape:
        forms += [f"everything that is a {single}", f"all {plural}", f"every {single}"]
    return pick(rng, tuple(forms))


def request(rng: np.random.Generator, phrase: str, plural: bool = False) -> str:
    """A prompt that asks for the mask of what the phrase names."""
    draw = rng.random()
    if draw < 0.15:
        text = phrase
    elif draw < 0.55:
        text = pick(rng, ("please ", "", "")) + f"{pick(rng, VERBS)} {phrase}"
    elif draw < 0.75:
        text = pick(rng, MODALS).format(pick(rng, VERBS)) + phrase
    elif draw < 0.79:
        mask = pick(
            rng,
            (
                "could you please give me a segmentation mask for {}",
                "please segment {}",
                "segment {}",
                "can you segment {}",
                "could you provide a segmentation mask for {}",
                "can you please segment {}",
                "could you provide segmentation masks for {}",
                "what is {}? please respond with a segmentation mask",
            ),
        )
        text = mask.format(phrase) + (
            pick(rng, (" in this image", " in the image", "")) if "?" not in mask else ""
        )
    else:
        text = pick(rng, PLURAL_QUERIES if plural else SINGULAR_QUERIES).format(phrase)
    if draw >= 0.15 and "?" not in text and rng.random() < 0.2:
        text += pick(rng, TAILS)
    elif 0.15 <= draw < 0.75 and rng.random() < 0.1:
        text += pick(rng, PLURAL_AFTERTHOUGHTS if plural else AFTERTHOUGHTS)
    return styled(rng, text, text.split(" ")[0].rstrip("'s") in QUESTIONING)


def styled(rng: np.random.Generator, text: str, question: bool) -> str:
    """The same prompt with a lead, politeness, capitals and final punctuation as people write them."""
    if rng.random() < 0.1:
        text = pick(rng, LEADS) + text
    if not question and "please" not in text and rng.random() < 0.12:
        text += pick(rng, (" please", ", please", ", thanks", ", thank you"))
    if text[-1] not in ".?!" and rng.random() < 0.62:
        text += "?" if question and rng.random() < 0.9 else pick(rng, (".", ".", ".", ".", "!"))
    draw = rng.random()
    if draw < 0.42:
        return text[0].upper() + text[1:].replace(" i ", " I ").replace(" i'", " I'")
    if draw < 0.46:
        return text.upper()
    if draw < 0.49:
        return text.title()
    return text


def known(shape: str | None, colour: str | None) -> bool:
    """Whether both words are among those that scenes are made of."""
    return (shape is None or shape in SHAPES) and (colour is None or colour in COLOURS)
