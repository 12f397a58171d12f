"""What is asked of a whole call, ours and upstream's: pictures, how many objects are found in them, and the words.

Random weights never say `[SEG]`, so the answer is dictated: the model computes every token, and a bias that is stored
in the checkpoint makes another one the likeliest. Read by upstream's interpreter too, so it needs nothing but numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .pictures import noise

Rules: TypeAlias = "list[tuple[list[int], float]]"
"""transformers' `sequence_bias`: how much likelier the last token is after those before it."""
PROMPTS: Mapping[int, str] = {1: "find one", 2: "find two", 4: "find four"}
"""By the number of objects that are then found. Their last tokens differ."""
WORD = "o"
"""Stands for the words around `[SEG]`, a single token."""
BEFORE = 2
"""Such words before the first `[SEG]`, as in "Sure, [SEG].", which published checkpoints say; after the last is one."""
FULL_HD = (1080, 1920)
KEY_FRAMES = 5
"""How many frames of a video the language model sees."""


@dataclass(frozen=True)
class Case:
    """So many frames of a size, and so many objects found."""

    name: str
    frames: int
    size: tuple[int, int]
    objects: int
    aim: float | None = None
    """The most seconds that it may take."""
    against_upstream: float | None = None
    """The most that it may take of upstream's time."""
    long: bool = False
    """It is asked once, and not of upstream."""

    @property
    def prompt(self) -> str:
        """What is asked."""
        return PROMPTS[self.objects]

    def pictures(self) -> list[NDArray[np.uint8]]:
        """uint8 `[height, width, 3]`, one for each frame; those after the key frames are these again."""
        seen = [noise(self.size, seed) for seed in range(min(self.frames, KEY_FRAMES))]
        return [seen[number % len(seen)] for number in range(self.frames)]


CASES = (
    Case("1080p image, 1 object", 1, FULL_HD, 1, against_upstream=1 / 2),
    Case("1080p image, 4 objects", 1, FULL_HD, 4, against_upstream=1 / 3),
    Case("five 448x448 frames, 1 object", 5, (448, 448), 1, aim=1.0),
    Case("32 frames of 1080p, 2 objects", 32, FULL_HD, 2, against_upstream=1 / 3),
    Case("300 frames of 1080p, 2 objects", 300, FULL_HD, 2, long=True),
)
TINY = (Case("image, 2 objects", 1, (60, 80), 2), Case("7 frames, 2 objects", 7, (60, 80), 2))
ONE = (Case("image, 1 object", 1, (60, 80), 1),)
"""As much as a processor does of SAM2's true size, where one encoding takes some ten seconds."""


def dictation(encode: Callable[[str], Sequence[int]], segment: int, end: int) -> Rules:
    """Rules by which a model says `o o [SEG] o` and the end token, with as many `[SEG]` as the prompt means.

    `encode` gives the ids of a text, in which special tokens are tokens; `segment` and `end` are two of these.
    """
    (word,) = encode(WORD)
    opening = [*encode("<|im_end|>\n<|im_start|>assistant\n"), *[word] * BEFORE]
    rules: Rules = [
        ([word], 50.0),
        ([*opening, segment], 100.0),
        ([segment, segment], 100.0),
        ([segment, word, end], 300.0),
    ]
    for objects, prompt in PROMPTS.items():
        # The prompt is part of what comes before, so one checkpoint answers all of them.
        rules.append(([encode(prompt)[-1], *opening, *[segment] * objects, word], 200.0))
    return rules
