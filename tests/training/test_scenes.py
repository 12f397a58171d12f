"""The scenes that the bundled model learns from: what is drawn, what is asked, what is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("tokenizers")

from training.colours import to_hsv
from training.draw import draw_clip, draw_picture
from training.phrases import COLOUR_WORDS, SHAPE_WORDS
from training.scene import Picture, Question, Thing
from training.vocabulary import SPECIAL_TOKENS, write_tokenizer
from training.wording import ask, ask_clip

SIZE = (96, 128)
COMPARING = re.compile(
    r"(est|most|left|right|top|bottom|above|below|larger|bigger|smaller|lower|higher|big|large|huge|small|little|tiny|"
    r"highest up|lowest down|not|only)\b"
)
HUES = {"red": (-14, 10), "orange": (15, 42), "yellow": (44, 66), "green": (85, 160), "blue": (195, 250)}


def pictures(count: int, seed: int = 5) -> list[Picture]:
    rng = np.random.default_rng(seed)
    return [draw_picture(rng, SIZE) for _ in range(count)]


def said(prompt: str, words: Mapping[str, tuple[str, ...]]) -> set[str]:
    """The canonical names that a prompt mentions."""
    return {
        name
        for name, forms in words.items()
        if any(re.search(rf"\b{re.escape(form)}(e?s|-?colou?red)?\b", prompt.lower()) for form in forms)
    }


def asked(questions: list[Question], kind: str) -> list[Question]:
    return [question for question in questions if question.kind == kind]


def fitting(things: tuple[Thing, ...], prompt: str) -> tuple[int, ...]:
    shapes, colours = said(prompt, SHAPE_WORDS), said(prompt, COLOUR_WORDS)
    return tuple(
        index
        for index, thing in enumerate(things)
        if (not shapes or thing.shape in shapes) and (not colours or thing.colour in colours)
    )


def test_one_seed_gives_one_scene() -> None:
    first, second = (pictures(6)[-1] for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert first.things == second.things
    assert np.array_equal(first.instances, second.instances)
    clips = [draw_clip(np.random.default_rng(8), SIZE, 6) for _ in range(2)]
    assert np.array_equal(clips[0].frames, clips[1].frames)
    prompts = [[question.prompt for question in ask(np.random.default_rng(1), first, 9)] for _ in range(2)]
    assert prompts[0] == prompts[1]


def test_every_thing_is_visible_and_has_its_colour() -> None:
    for picture in pictures(60):
        assert picture.image.shape == (*SIZE, 3)
        assert picture.image.dtype == np.uint8
        assert 1 <= len(picture.things) <= 7
        assert set(np.unique(picture.instances)) - {0} == set(range(1, len(picture.things) + 1))
        for index, thing in enumerate(picture.things):
            pixels = picture.image[picture.mask((index,))]
            if thing.colour in HUES:
                hues = np.array([to_hsv((float(r), float(g), float(b)))[0] for r, g, b in pixels[::3]])
                low, high = HUES[thing.colour]
                assert ((hues >= low) & (hues <= high) | (hues - 360 >= low)).mean() > 0.35, thing


def test_a_circle_covers_what_a_circle_covers() -> None:
    for picture in pictures(80):
        for index, thing in enumerate(picture.things):
            rows, columns = np.nonzero(picture.mask((index,)))
            inside = (
                rows.min() > 0
                and columns.min() > 0
                and rows.max() < SIZE[0] - 1
                and columns.max() < SIZE[1] - 1
            )
            if thing.shape == "circle" and len(picture.things) == 1 and inside:
                box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
                assert len(rows) / box == pytest.approx(np.pi / 4, rel=0.08)


def test_answers_have_one_mask_per_mark() -> None:
    rng = np.random.default_rng(3)
    for picture in pictures(60):
        for question in ask(rng, picture, 8):
            assert question.answer.count("[SEG]") == len(question.targets)
            assert all(picture.mask(target).any() for target in question.targets)
            assert bool(question.accepted) == (question.kind == "question")
            expected = {"single": 1, "group": 1, "absent": 0, "question": 0}.get(question.kind)
            assert len(question.targets) == expected or (
                question.kind == "two" and len(question.targets) in (2, 3)
            )
            if question.kind == "question":
                words = [rf"\b{re.escape(word)}\b" for word in question.accepted]
                assert any(re.search(word, question.answer, re.IGNORECASE) for word in words)


def test_a_named_thing_is_the_only_one_of_that_name() -> None:
    rng, checked = np.random.default_rng(4), 0
    for picture in pictures(150):
        for question in asked(ask(rng, picture, 8), "single"):
            if not COMPARING.search(question.prompt.lower()):
                checked += 1
                assert (fitting(picture.things, question.prompt),) == question.targets, question.prompt
    assert checked > 150


def test_a_group_is_everything_of_that_name() -> None:
    rng = np.random.default_rng(6)
    for picture in pictures(100):
        for question in asked(ask(rng, picture, 8), "group"):
            if not re.search(r"\b(except|but|not)\b", question.prompt.lower()):
                assert (fitting(picture.things, question.prompt),) == question.targets, question.prompt


def test_what_is_called_absent_is_absent() -> None:
    rng = np.random.default_rng(7)
    for picture in pictures(100):
        for question in asked(ask(rng, picture, 8), "absent"):
            assert question.answer.startswith("There is no ")
            if "such" not in question.answer:
                assert fitting(picture.things, question.answer.replace(" thing", "")) == (), question


def test_things_in_clips_move_and_questions_fit_the_frames_seen() -> None:
    rng = np.random.default_rng(9)
    moved = 0
    for _ in range(12):
        clip = draw_clip(rng, SIZE, 10)
        assert clip.frames.shape == (10, *SIZE, 3)
        assert clip.instances.shape == (10, *SIZE)
        moved += int((clip.instances[0] != clip.instances[-1]).mean() > 0.01)
        for question in ask_clip(rng, clip, 6, 4):
            assert question.kind != "question"
            for target in question.targets:
                assert all((clip.instances[:4] == index + 1).any() for index in target)
    assert moved >= 9


def test_the_tokenizer_loads_and_gives_back_any_text(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_tokenizer(tmp_path, seed=0)
    tokenizer = transformers.Qwen2Tokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 900
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(16))
    for text in (
        "Segment the red circle!",
        "naïve \u2013 日本語 🙂\t\n\x00 ﷺ",
        "They are [SEG] and [SEG].",
        " a  b ",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("please segment the yellow triangle")) <= 6
