"""The measuring itself: models whose worth is known must get exactly the scores they deserve."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import sa2va_host
from training import evaluate as evaluation
from training import heldout
from training.evaluate import Case, Counts, Image8, OwnGenerator, evaluate, save_worst
from training.scene import Clip, Picture, Question, Thing
from training.scores import (
    ROWS,
    Answer,
    Mask,
    Scores,
    as_json,
    iou,
    put_table,
    score_answer,
    table,
    video_score,
)

COUNTS = Counts(pictures=25, prompts=5, clips=3)
KEYS = [row.key for row in ROWS]


class Teller:
    """The second generator, remembering what it asked, so that a model can answer with the truth."""

    def __init__(self) -> None:
        self.truth: dict[tuple[bytes, str], Answer] = {}

    def random_size(self, rng: np.random.Generator) -> tuple[int, int]:
        return int(rng.integers(96, 140)), int(rng.integers(96, 140))

    def draw_picture(self, rng: np.random.Generator, size: tuple[int, int]) -> Picture:
        return heldout.draw_picture(rng, size)

    def draw_clip(self, rng: np.random.Generator, size: tuple[int, int], frames: int) -> Clip:
        return heldout.draw_clip(rng, size, frames)

    def ask(self, rng: np.random.Generator, picture: Picture, count: int) -> tuple[Question, ...]:
        asked = heldout.ask(rng, picture, count)
        self._note(picture.image, picture.instances[None], asked)
        return asked

    def ask_clip(
        self, rng: np.random.Generator, clip: Clip, count: int, seen_frames: int
    ) -> tuple[Question, ...]:
        asked = heldout.ask_clip(rng, clip, count, seen_frames)
        self._note(clip.frames, clip.instances, asked)
        return asked

    def _note(self, pixels: Image8, instances: Image8, asked: tuple[Question, ...]) -> None:
        for question in asked:
            masks = [np.isin(instances, [i + 1 for i in target]) for target in question.targets]
            stack = np.stack(masks) if masks else nothing(instances.shape)
            self.truth[pixels.tobytes(), question.prompt] = Answer(question.answer, stack)

    def oracle(self, pixels: Image8, prompt: str) -> Answer:
        return self.truth[pixels.tobytes(), prompt]


def nothing(shape: tuple[int, ...]) -> Mask:
    """No object at all, over `[frames, height, width]`."""
    return np.zeros((0, *shape), bool)


def refuse(pixels: Image8, prompt: str) -> Answer:
    frames = pixels.shape[:-1] if pixels.ndim == 4 else (1, *pixels.shape[:-1])
    return Answer("", nothing(frames))


def means(answer: Callable[[Teller], Callable[[Image8, str], Answer]], seed: int = 1) -> dict[str, float]:
    teller = Teller()
    model = answer(teller)
    scores = evaluate(teller, model, model, COUNTS, seed)
    assert all(scores.values[key] for key in KEYS), "every row must be measured"
    return {key: float(scores.mean(key) or 0) for key in KEYS}


def changed(change: Callable[[Answer], Answer]) -> Callable[[Teller], Callable[[Image8, str], Answer]]:
    """A model that knows the truth and says something else."""
    return lambda teller: lambda pixels, prompt: change(teller.oracle(pixels, prompt))


def test_an_oracle_scores_full_marks_everywhere() -> None:
    assert means(lambda teller: teller.oracle) == dict.fromkeys(KEYS, 1.0)


def test_a_model_that_finds_nothing_only_refuses_well() -> None:
    assert means(lambda _: refuse) == {**dict.fromkeys(KEYS, 0.0), "refused": 1.0}


def test_swapping_two_masks_fails_two_and_nothing_single() -> None:
    found = means(changed(lambda answer: Answer(answer.text, answer.masks[::-1])))
    assert found["two"] == 0
    assert found["right_object"] == found["single_iou"] == found["group_iou"] == found["refused"] == 1


def test_a_mask_with_every_answer_fails_absent_things_and_questions() -> None:
    def also(answer: Answer) -> Answer:
        return Answer(
            answer.text, np.concatenate([answer.masks, np.ones((1, *answer.masks.shape[1:]), bool)])
        )

    found = means(changed(also))
    assert found["refused"] == found["question"] == found["two"] == found["right_object"] == 0


def test_empty_masks_are_not_refusals() -> None:
    def blank(answer: Answer) -> Answer:
        return Answer(answer.text, np.zeros((1, *answer.masks.shape[1:]), bool))

    found = means(changed(blank))
    assert found["refused"] == found["right_object"] == found["single_iou"] == found["group_iou"] == 0


def test_equal_seeds_measure_the_same_scenes_and_others_differ() -> None:
    def prompts(seed: int) -> list[str]:
        heard: list[str] = []

        def listen(pixels: Image8, prompt: str) -> Answer:
            heard.append(f"{pixels.shape} {prompt}")
            return refuse(pixels, prompt)

        evaluate(Teller(), listen, listen, Counts(6, 3, 1), seed)
        return heard

    assert prompts(4) == prompts(4)
    assert prompts(4) != prompts(5)


def test_no_seed_begins_like_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[list[int]] = []
    make = np.random.default_rng

    def note(seed: list[int]) -> np.random.Generator:
        seeds.append(seed)
        return make(seed)

    monkeypatch.setattr(np.random, "default_rng", note)
    evaluate(Teller(), refuse, refuse, Counts(3, 1, 2), 7)
    assert len({tuple(seed) for seed in seeds}) == 5
    assert all(seed[0] == 0x5EED_0EAD and seed[1] == 7 for seed in seeds)


def test_the_own_generator_can_be_measured() -> None:
    scores = evaluate(OwnGenerator(), refuse, refuse, Counts(12, 6, 1), 3)
    assert all(scores.values[key] for key in KEYS)
    assert scores.mean("refused") == 1
    assert scores.mean("video") == 0


def picture_of_two() -> Picture:
    instances = np.zeros((20, 20), np.uint8)
    instances[2:8, 2:8], instances[2:8, 10:16] = 1, 2
    image = np.zeros((20, 20, 3), np.uint8)
    return Picture(image, instances, (Thing("square", "red"), Thing("square", "blue")))


def worth(question: Question, text: str, *masks: Mask) -> dict[str, float]:
    picture = picture_of_two()
    stack = np.stack(masks)[:, None] if masks else nothing((1, 20, 20))
    scores = Scores()
    score_answer(scores, picture, question, Answer(text, stack))
    return {key: values[0] for key, values in scores.values.items() if values}


def test_the_right_object_needs_more_than_half() -> None:
    question = Question("single", "the red square", "[SEG]", ((0,),))
    truth = picture_of_two().mask((0,))
    half = truth & (np.arange(20)[:, None] < 5)
    more = truth & (np.arange(20)[:, None] < 6)
    assert worth(question, "", half) == {"right_object": 0, "single_iou": 0.5}
    assert worth(question, "", more) == {"right_object": 1, "single_iou": pytest.approx(2 / 3)}
    assert worth(question, "", picture_of_two().mask((1,)))["right_object"] == 0
    assert worth(question, "", truth, truth)["right_object"] == 0
    assert worth(question, "") == {"right_object": 0, "single_iou": 0}


@pytest.mark.parametrize(
    ("text", "right"), [("Two.", 1), ("there are 2 squares", 1), ("twofold", 0), ("12", 0), ("", 0)]
)
def test_accepted_words_must_be_whole(text: str, right: int) -> None:
    question = Question("question", "how many?", "Two.", accepted=("2", "two"))
    assert worth(question, text) == {"question": right}


def test_a_right_word_with_a_mask_is_wrong() -> None:
    question = Question("question", "how many?", "Two.", accepted=("2", "two"))
    assert worth(question, "two", picture_of_two().mask((0,))) == {"question": 0}


def test_a_group_found_in_pieces_counts_as_found() -> None:
    question = Question("group", "the squares", "[SEG]", ((0, 1),))
    picture = picture_of_two()
    assert worth(question, "", picture.mask((0,)), picture.mask((1,))) == {"group_iou": 1}
    assert worth(question, "", picture.mask((0,))) == {"group_iou": 0.5}


def test_a_videos_score_counts_absence() -> None:
    instances = np.zeros((4, 8, 8), np.uint8)
    instances[:2, :4] = 1
    clip = Clip(np.zeros((4, 8, 8, 3), np.uint8), instances, (Thing("square", "red"),))
    question = Question("single", "the square", "[SEG]", ((0,),))
    truth = (instances == 1)[None]
    late, early = truth.copy(), truth.copy()
    late[0, 3] = True
    early[0, 1] = False
    assert video_score(clip, question, Answer("", truth)) == 1
    assert video_score(clip, question, Answer("", late)) == 0.75
    assert video_score(clip, question, Answer("", early)) == 0.75
    assert video_score(clip, question, Answer("", nothing((4, 8, 8)))) == 0
    assert video_score(clip, question, Answer("", np.concatenate([truth, truth]))) == 0.5


def test_iou() -> None:
    empty, full = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert (iou(empty, empty), iou(empty, full), iou(full, full)) == (1, 0, 1)


def scored() -> Scores:
    scores = Scores()
    for value in (1, 0, 1, 1):
        scores.add("right_object", value)
    scores.add("video", 0.5)
    return scores


def test_the_table_shows_aims_means_and_counts() -> None:
    lines = table(scored(), Scores()).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert lines[2] == "| Single object: the right one | 95 % | 75.0 % (n = 4) | - (n = 0) |"
    assert lines[-1] == "| Video: mean J over 30 frames | 0.75 | 0.500 (n = 1) | - (n = 0) |"
    assert str(evaluation.FRAMES) in lines[-1]


def test_json_holds_every_value() -> None:
    data = json.loads(as_json(scored(), Scores(), {"seed": 7}))
    assert data["own"]["right_object"] == {"mean": 0.75, "n": 4, "values": [1, 0, 1, 1]}
    assert data["second"]["video"] == {"mean": None, "n": 0, "values": []}
    assert data["aims"]["two"] == 0.85
    assert data["settings"] == {"seed": 7}


def test_the_table_in_a_page_is_replaced_in_place() -> None:
    page = put_table("# Model\n", "old\n") + "\nAfter.\n"
    assert page.startswith("# Model\n\n<!--")
    assert put_table(page, "new\n") == page.replace("old\n", "new\n")


def test_the_worst_cases_are_written(tmp_path: Path) -> None:
    cases: list[Case] = []
    teller = Teller()
    evaluate(teller, teller.oracle, teller.oracle, Counts(6, 3, 0), 2, on_single=cases.append)
    assert len(cases) >= 3
    save_worst(cases, 2, tmp_path / "worst")
    assert sorted(path.name for path in (tmp_path / "worst").iterdir()) == ["000.png", "001.png"]


class Blind:
    """Stands in for `sa2va_host.Sa2VA` and its answers: nothing in pictures, all of each clip."""

    def segment(self, image: Image8, prompt: str) -> Blind:
        self.found = np.zeros((0, *image.shape[:2]), bool)
        return self

    def segment_video(self, frames: Image8, prompt: str, key_frames: str) -> Blind:
        assert key_frames == "first:5"
        self.found = np.ones((1, *frames.shape[:3]), bool)
        return self

    text = "Sorry, nothing."

    def masks(self, threshold: float) -> Mask:
        assert threshold == 0.5
        return self.found


def test_the_command_measures_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(vars(sa2va_host), "Sa2VA", lambda model: nullcontext(Blind()))
    page, numbers, worst = tmp_path / "page.md", tmp_path / "scores.json", tmp_path / "worst"
    few = ["--model", "some/folder", "--pictures", "4", "--prompts", "6", "--clips", "1"]
    evaluation.main([*few, "--out", str(page), "--out", str(numbers), "--worst", "1", str(worst)])
    printed = capsys.readouterr().out
    assert "| Absent things refused | 95 % | 100.0 % (n = " in printed
    assert printed in page.read_text(encoding="utf-8")
    data = json.loads(numbers.read_text(encoding="utf-8"))
    assert data["settings"] == {"model": "folder", "seed": 8, "pictures": 4, "prompts": 6, "clips": 1}
    assert 0 < data["own"]["video"]["mean"] < 1
    assert sorted(path.name for path in worst.glob("*/*.png")) == ["000.png", "000.png"]
