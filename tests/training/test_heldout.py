"""The second generator: its pictures are what their labels say, and no prompt can be read in two ways."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from training import heldout
from training.heldout.bodies import Body, Fill, Pose, label, outlined, paint, render
from training.heldout.colours import SHADES, tint
from training.heldout.facts import measure
from training.heldout.shapes import random_figure
from training.scene import COLOURS, SHAPES, Clip, Picture, Question, Thing

SCENES = 60
WORDS = {
    "largest": ("largest", "larger", "biggest", "bigger"),
    "smallest": ("smallest", "smaller"),
    "left": ("left", "leftmost"),
    "right": ("right", "rightmost"),
    "top": ("top", "topmost", "upper", "higher", "highest"),
    "bottom": ("bottom", "lower", "lowest", "down"),
}


def rng_of(*seed: int) -> np.random.Generator:
    return np.random.default_rng([71, *seed])


def scene(index: int) -> tuple[Picture, tuple[Question, ...]]:
    rng = rng_of(index)
    picture = heldout.draw_picture(rng, heldout.random_size(rng))
    return picture, heldout.ask(rng, picture, 6)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Picture, tuple[Question, ...]]]:
    return [scene(index) for index in range(SCENES)]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return heldout.draw_clip(rng_of(5), (120, 160), 30)


def read(phrase: str) -> tuple[str | None, str | None, str | None]:
    """Colour, shape and comparison in a phrase, read without any help from the generator."""
    words = set(re.findall(r"[a-z]+", phrase.lower()))
    words |= {word.removesuffix("s") for word in words}
    named = [next((name for name in names if name in words), None) for names in (COLOURS, SHAPES)]
    compared = next((key for key, forms in WORDS.items() if words & set(forms)), None)
    return named[0], named[1], compared


def candidates(things: tuple[Thing, ...], colour: str | None, shape: str | None) -> list[int]:
    return [i for i, t in enumerate(things) if colour in (None, t.colour) and shape in (None, t.shape)]


def best(masks: dict[int, NDArray[np.bool_]], compared: str) -> int:
    """Which mask is the largest, leftmost and so on, by nothing but its area or centre."""

    def rank(index: int) -> float:
        rows, columns = np.nonzero(masks[index])
        return {
            "largest": -float(len(rows)),
            "smallest": float(len(rows)),
            "left": float(columns.mean()),
            "right": -float(columns.mean()),
            "top": float(rows.mean()),
            "bottom": -float(rows.mean()),
        }[compared]

    return min(masks, key=rank)


def meant(things: tuple[Thing, ...], instances: NDArray[np.uint8], phrase: str) -> list[int]:
    """What the phrase picks out of a picture, by brute force."""
    colour, shape, compared = read(phrase)
    found = candidates(things, colour, shape)
    if compared is None:
        return found
    return [best({i: instances == i + 1 for i in found}, compared)]


def test_equal_seeds_draw_and_ask_the_same() -> None:
    (first, asked), (again, asked_again) = scene(3), scene(3)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.instances, again.instances)
    assert (first.things, asked) == (again.things, asked_again)
    other, _ = scene(4)
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


def test_equal_seeds_draw_the_same_clip() -> None:
    clips = [heldout.draw_clip(rng_of(9), (96, 128), 6) for _ in range(2)]
    assert np.array_equal(clips[0].frames, clips[1].frames)
    assert np.array_equal(clips[0].instances, clips[1].instances)


def test_sizes_keep_to_their_limits_both_ways() -> None:
    rng = rng_of(1)
    sizes = np.array([heldout.random_size(rng) for _ in range(2000)])
    ratio = sizes.max(axis=1) / sizes.min(axis=1)
    assert sizes.min() >= 96
    assert sizes.max() <= 640
    assert ratio.max() <= 16 / 9 + 1e-9
    assert ratio.min() < 1.02
    assert ratio.max() > 1.7
    assert 0.4 < (sizes[:, 0] > sizes[:, 1]).mean() < 0.6


def test_scenes_hold_one_to_six_things_and_show_each(scenes: list[tuple[Picture, object]]) -> None:
    assert {len(picture.things) for picture, _ in scenes} == set(range(1, 7))
    for picture, _ in scenes:
        assert picture.image.shape == (*picture.instances.shape, 3)
        assert picture.image.dtype == picture.instances.dtype == np.uint8
        assert set(np.unique(picture.instances)) - {0} == set(range(1, len(picture.things) + 1))


def test_a_things_pixels_have_its_hue(scenes: list[tuple[Picture, object]]) -> None:
    """Inside each mask most pixels are nearer to a shade of the thing's colour than to any other colour's."""
    names = [name for name in COLOURS for _ in SHADES[name]]
    shades = np.array([shade for name in COLOURS for shade in SHADES[name]], float)
    for picture, _ in scenes:
        for index, thing in enumerate(picture.things):
            pixels = picture.image[picture.mask((index,))].astype(float)
            pixels = pixels[np.ptp(pixels, axis=1) > 60]  # outlines are grey
            nearest = np.argmin(np.linalg.norm(pixels[:, None] - shades, axis=2), axis=1)
            votes = [names[int(i)] for i in nearest]
            assert max(set(votes), key=votes.count) == thing.colour, (index, thing)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_instance_map_is_what_was_painted(shape: str) -> None:
    """On black, without noise, a pixel is more than half lit exactly where the map says that the thing is."""
    figure, angle = random_figure(rng_of(2), shape)
    body = Body(Thing(shape, "yellow"), figure, (255, 230, 0), Fill("flat", 0.0, 1.0), None, 0.1)
    patch = render(body, Pose(31.3, 22.8, 14.0, angle))
    canvas = np.zeros((60, 64, 3), np.float32)
    paint([patch], canvas)
    drawn = label([patch], (60, 64)) == 1
    assert np.array_equal(drawn, canvas[..., 0] >= 127.4)
    assert drawn.sum() == patch.inside.sum()


def test_what_is_in_front_hides_what_is_behind() -> None:
    figure, _ = random_figure(rng_of(0), "circle")
    bodies = [
        Body(Thing("circle", c), figure, SHADES[c][0], Fill("flat", 0.0, 1.0), None, 0.1)
        for c in ("red", "blue")
    ]
    patches = [render(body, Pose(x, 20.0, 10.0, 0.0)) for body, x in zip(bodies, (15.0, 22.0), strict=True)]
    instances, canvas = label(patches, (40, 40)), np.zeros((40, 40, 3), np.float32)
    paint(patches, canvas)
    assert instances[20, 20] == 2
    assert instances[20, 8] == 1
    assert tuple(canvas[20, 20]) == SHADES["blue"][0]
    assert tuple(canvas[20, 8]) == SHADES["red"][0]
    assert outlined(bodies[0], [SHADES["red"][1]]).outline is not None


def test_shape_areas_are_those_of_the_shapes() -> None:
    """The share of its bounding box that it fills tells circle, square, triangle and star apart."""
    fills = {}
    for shape in SHAPES:
        figure, _ = random_figure(rng_of(8), shape)
        body = Body(Thing(shape, "red"), figure, (255, 0, 0), Fill("flat", 0.0, 1.0), None, 0.1)
        rows, columns = np.nonzero(render(body, Pose(100, 100, 60, 0.0)).inside)
        fills[shape] = len(rows) / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
    assert fills["square"] > 0.95
    assert fills["circle"] == pytest.approx(np.pi / 4, abs=0.01)
    assert fills["triangle"] == pytest.approx(0.5, abs=0.06)
    assert fills["star"] < 0.48


def test_darkening_keeps_the_hue() -> None:
    for colour, shades in SHADES.items():
        for shade in shades:
            dark, light = tint(colour, shade, np.array([-1.0, 1.0], np.float32))
            assert int(np.argmax(dark)) == int(np.argmax(shade)), colour
            assert np.ptp(light) > 75, colour


def test_clips_move_and_hold_the_map(clip: Clip) -> None:
    assert clip.frames.shape == (*clip.instances.shape, 3)
    assert len(clip.frames) == 30
    assert set(np.unique(clip.instances[0])) - {0} == set(range(1, len(clip.things) + 1))
    assert (clip.instances[0] != clip.instances[-8]).any()


def test_in_clips_things_leave_return_and_cross() -> None:
    left_and_back = crossed = 0
    for index in range(12):
        made = heldout.draw_clip(rng_of(40, index), (96, 96), 30)
        for thing in range(1, len(made.things) + 1):
            seen = (made.instances == thing).any(axis=(1, 2))
            assert seen[:7].all()
            left_and_back += bool(not seen.all() and seen[-1])
            sizes = (made.instances == thing).sum(axis=(1, 2))
            crossed += bool(sizes.min() < 0.7 * sizes.max())
    assert left_and_back >= 3
    assert crossed >= 6


def test_every_kind_is_asked(scenes: list[tuple[Picture, tuple[Question, ...]]]) -> None:
    kinds = [question.kind for _, asked in scenes for question in asked]
    assert set(kinds) == {"single", "two", "group", "absent", "question"}
    assert min(kinds.count(kind) for kind in set(kinds)) >= 15


def test_prompts_about_one_picture_differ(scenes: list[tuple[Picture, tuple[Question, ...]]]) -> None:
    for _, asked in scenes:
        assert len({question.prompt.lower() for question in asked}) == len(asked) == 6


def test_answers_have_a_seg_for_each_target(scenes: list[tuple[Picture, tuple[Question, ...]]]) -> None:
    expected = {"single": 1, "two": 2, "group": 1, "absent": 0, "question": 0}
    for _, asked in scenes:
        for question in asked:
            assert question.answer.count("[SEG]") == len(question.targets) == expected[question.kind]
            assert bool(question.accepted) == (question.kind == "question")


def test_prompts_are_clean_english(scenes: list[tuple[Picture, tuple[Question, ...]]]) -> None:
    for _, asked in scenes:
        for question in asked:
            assert not re.search(r"[{}]|\bNone\b|  |\ba orange", question.prompt), question.prompt


def test_brute_force_reads_each_prompt_in_one_way(
    scenes: list[tuple[Picture, tuple[Question, ...]]],
) -> None:
    for picture, asked in scenes:
        for question in asked:
            found = (
                meant(picture.things, picture.instances, question.prompt) if question.kind != "two" else []
            )
            if question.kind == "single":
                assert found == list(question.targets[0]), question
            elif question.kind == "group":
                assert tuple(found) == question.targets[0], question
                assert len(found) > 1
            elif question.kind == "absent":
                assert found == [], question


def test_brute_force_reads_both_of_two_in_order(
    scenes: list[tuple[Picture, tuple[Question, ...]]],
) -> None:
    for picture, asked in scenes:
        for question in (q for q in asked if q.kind == "two"):
            named = re.fullmatch(r"Here is (the .*): \[SEG\], and (the .*): \[SEG\]\.", question.answer)
            assert named is not None
            first, second = named.groups()
            prompt = question.prompt.lower()
            assert prompt.index(first) <= prompt.rindex(second), question
            found = [meant(picture.things, picture.instances, phrase) for phrase in (first, second)]
            assert tuple(map(tuple, found)) == question.targets, question
            assert question.targets[0] != question.targets[1]


def test_brute_force_answers_each_question(scenes: list[tuple[Picture, tuple[Question, ...]]]) -> None:
    for picture, asked in scenes:
        for question in (q for q in asked if q.kind == "question"):
            colour, shape, _ = read(question.prompt)
            if question.answer.startswith("There"):
                assert str(len(candidates(picture.things, colour, shape))) in question.accepted, question
            elif question.answer.startswith("It is"):
                (index,) = meant(picture.things, picture.instances, question.prompt)
                asked_for = "shape" if question.answer.startswith("It is a ") else "colou?r"
                assert re.search(asked_for, question.prompt), question
                told = picture.things[index].shape if asked_for == "shape" else picture.things[index].colour
                assert question.accepted == (told,), question
            else:
                assert ("yes" in question.accepted) == bool(candidates(picture.things, colour, shape)), (
                    question
                )


def test_absent_things_are_often_hard_negatives(
    scenes: list[tuple[Picture, tuple[Question, ...]]],
) -> None:
    hard = easy = 0
    for picture, asked in scenes:
        for question in (q for q in asked if q.kind == "absent"):
            colour, shape, _ = read(question.prompt)
            both = colour is not None and shape is not None
            near = candidates(picture.things, colour, None) and candidates(picture.things, None, shape)
            hard, easy = (hard + 1, easy) if both and near else (hard, easy + 1)
    assert hard >= 10
    assert easy >= 10


def test_comparisons_need_a_clear_margin() -> None:
    instances = np.zeros((1, 100, 100), np.uint8)
    instances[0, 10:30, 10:30] = 1
    instances[0, 40:63, 15:38] = 2  # a little larger, a little to the right
    facts = measure((Thing("square", "red"), Thing("square", "red")), instances)
    assert facts.extreme((0, 1), "largest") is None
    assert facts.extreme((0, 1), "left") is None
    assert facts.extreme((0, 1), "top") == 0
    assert facts.extreme((0, 1), "bottom") == 1
    assert facts.extreme((0,), "top") is None


def test_a_comparison_must_hold_in_every_seen_frame() -> None:
    instances = np.zeros((2, 100, 100), np.uint8)
    instances[0, 10:30, 10:30], instances[0, 10:30, 60:80] = 1, 2
    instances[1, 10:30, 60:80], instances[1, 10:30, 10:30] = 1, 2
    things = (Thing("star", "red"), Thing("star", "blue"))
    assert measure(things, instances[:1]).extreme((0, 1), "left") == 0
    assert measure(things, instances).extreme((0, 1), "left") is None
    instances[1][instances[1] == 1] = 0
    assert not measure(things, instances).shown((0,))


def test_clip_prompts_hold_in_the_seen_frames() -> None:
    asked = 0
    for index in range(10):
        rng = rng_of(60, index)
        made = heldout.draw_clip(rng, (96, 140), 12)
        for question in heldout.ask_clip(rng, made, 4, 5):
            asked += 1
            assert question.targets
            if question.kind == "two":
                continue
            for view in made.instances[:5]:
                assert tuple(meant(made.things, view, question.prompt)) == question.targets[0], question
    assert asked >= 30
