"""How well a model does what it was trained for, on scenes it has not seen, from two generators.

    python -m training.evaluate --model sa2va-tiny --out docs/sa2va-tiny.md --out scores.json

The core, `evaluate`, knows no model: it is given two functions that answer prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training import draw, heldout, wording
from training.scene import Clip, Picture, Question
from training.scores import (
    Answer,
    Mask,
    Scores,
    as_json,
    iou,
    merged,
    put_table,
    score_answer,
    table,
    video_score,
)

FRAMES = 30
SEEN_FRAMES = 5
"""How many leading frames of a clip the language model is shown."""
_SEED_TAG = 0x5EED_0EAD
"""First word of every seed here; training's seeds begin with small numbers, so no scene is drawn by both."""

Image8 = NDArray[np.uint8]
"""`[height, width, 3]`, or `[frames, height, width, 3]`, RGB."""


class Generator(Protocol):
    """A source of scenes and prompts: a module with these functions will do."""

    def random_size(self, rng: np.random.Generator, /) -> tuple[int, int]:
        """(height, width) in pixels."""

    def draw_picture(self, rng: np.random.Generator, size: tuple[int, int], /) -> Picture:
        """A still scene."""

    def draw_clip(self, rng: np.random.Generator, size: tuple[int, int], frames: int, /) -> Clip:
        """A moving scene."""

    def ask(self, rng: np.random.Generator, picture: Picture, count: int, /) -> Sequence[Question]:
        """Prompts about a picture."""

    def ask_clip(
        self, rng: np.random.Generator, clip: Clip, count: int, seen_frames: int, /
    ) -> Sequence[Question]:
        """Prompts about a clip that hold in its first `seen_frames` frames."""


@dataclass(frozen=True)
class Counts:
    """How much is measured."""

    pictures: int = 300
    prompts: int = 4
    """For each picture."""
    clips: int = 24


@dataclass(frozen=True)
class Case:
    """A single-object prompt that was answered."""

    image: Image8
    prompt: str
    text: str
    iou: float
    truth: Mask
    """`[height, width]`."""
    found: Mask
    """`[height, width]`: the union of the answer's masks."""


Segment = Callable[[Image8, str], Answer]


def evaluate(
    generator: Generator,
    segment: Segment,
    segment_video: Segment,
    counts: Counts,
    seed: int,
    *,
    on_single: Callable[[Case], None] | None = None,
) -> Scores:
    """Draw scenes, ask about them, and score the answers. One prompt is asked about each clip."""
    scores = Scores()
    for index in range(counts.pictures):
        rng = np.random.default_rng([_SEED_TAG, seed, 0, index])
        picture = generator.draw_picture(rng, generator.random_size(rng))
        for question in generator.ask(rng, picture, counts.prompts):
            answer = segment(picture.image, question.prompt)
            score_answer(scores, picture, question, answer)
            if question.kind == "single" and on_single is not None:
                on_single(_case(picture, question, answer))
    for index in range(counts.clips):
        rng = np.random.default_rng([_SEED_TAG, seed, 1, index])
        clip, question = _ask_about_clip(generator, rng)
        scores.add("video", video_score(clip, question, segment_video(clip.frames, question.prompt)))
    return scores


def _ask_about_clip(generator: Generator, rng: np.random.Generator) -> tuple[Clip, Question]:
    """A clip and a prompt that has targets in it."""
    for _ in range(50):
        clip = generator.draw_clip(rng, generator.random_size(rng), FRAMES)
        for question in generator.ask_clip(rng, clip, 3, SEEN_FRAMES):
            if question.targets:
                return clip, question
    raise RuntimeError("the generator asks for no target in any of 50 clips")


def _case(picture: Picture, question: Question, answer: Answer) -> Case:
    truth, found = picture.mask(question.targets[0]), merged(answer.masks)[0]
    return Case(picture.image, question.prompt, answer.text, iou(found, truth), truth, found)


class OwnGenerator:
    """The generator that training draws with."""

    def random_size(self, rng: np.random.Generator) -> tuple[int, int]:
        """(height, width), 128 to 320 pixels a side."""
        height, width = rng.integers(128, 321, 2).tolist()
        return height, width

    def draw_picture(self, rng: np.random.Generator, size: tuple[int, int]) -> Picture:
        """A still scene."""
        return draw.draw_picture(rng, size)

    def draw_clip(self, rng: np.random.Generator, size: tuple[int, int], frames: int) -> Clip:
        """A moving scene."""
        return draw.draw_clip(rng, size, frames)

    def ask(self, rng: np.random.Generator, picture: Picture, count: int) -> Sequence[Question]:
        """Prompts about a picture."""
        return wording.ask(rng, picture, count)

    def ask_clip(
        self, rng: np.random.Generator, clip: Clip, count: int, seen_frames: int
    ) -> Sequence[Question]:
        """Prompts about a clip."""
        return wording.ask_clip(rng, clip, count, seen_frames)


def save_worst(cases: Sequence[Case], count: int, folder: Path) -> None:
    """Write the `count` cases of lowest IoU as pictures: the truth framed green, the answer magenta."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, case in enumerate(sorted(cases, key=lambda case: case.iou)[:count]):
        pixels = case.image.copy()
        pixels[case.found] = (0.55 * pixels[case.found] + 0.45 * np.array([255, 0, 255])).astype(np.uint8)
        pixels[_edge(case.truth)] = (0, 255, 0)
        height, width = case.truth.shape
        sheet = Image.new("RGB", (max(width, 520), height + 34), "white")
        sheet.paste(Image.fromarray(pixels))
        write = ImageDraw.Draw(sheet).text
        write((4, height + 2), f"{case.iou:.2f}  {case.prompt}", fill="black")
        write((4, height + 17), case.text, fill="grey")
        sheet.save(folder / f"{rank:03}.png")


def _edge(mask: Mask) -> Mask:
    """`[height, width]`: the pixels of the mask that touch its outside."""
    padded = np.pad(mask, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~core)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a model on both generators, print the table, and write what is asked for."""
    from sa2va_host import Sa2VA

    options = _parse(arguments)
    generators: dict[str, Generator] = {"own": OwnGenerator(), "second": heldout}
    counts = Counts(options.pictures, options.prompts, options.clips)
    cases: dict[str, list[Case]] = {"own": [], "second": []}
    with Sa2VA(model=options.model) as sa:

        def segment(image: Image8, prompt: str) -> Answer:
            result = sa.segment(image, prompt)
            return Answer(result.text, result.masks(threshold=0.5)[:, None])

        def segment_video(frames: Image8, prompt: str) -> Answer:
            result = sa.segment_video(frames, prompt, key_frames=f"first:{SEEN_FRAMES}")
            return Answer(result.text, result.masks(threshold=0.5))

        own, second = (
            evaluate(
                generator,
                segment,
                segment_video,
                counts,
                options.seed,
                on_single=cases[name].append if options.worst else None,
            )
            for name, generator in generators.items()
        )
    print(table(own, second), end="")
    settings: dict[str, object] = {"model": Path(options.model).name, "seed": options.seed, **asdict(counts)}
    for path in options.out:
        if path.suffix == ".json":
            path.write_text(as_json(own, second, settings), encoding="utf-8")
        else:
            page = path.read_text(encoding="utf-8") if path.exists() else ""
            path.write_text(put_table(page, table(own, second)), encoding="utf-8")
    if options.worst:
        for name, seen in cases.items():
            save_worst(seen, int(options.worst[0]), Path(options.worst[1]) / name)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=main.__doc__)
    parser.add_argument("--model", default="sa2va-tiny", help="a bundled name or a folder")
    parser.add_argument("--pictures", type=int, default=Counts.pictures)
    parser.add_argument("--prompts", type=int, default=Counts.prompts, help="for each picture")
    parser.add_argument("--clips", type=int, default=Counts.clips)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument(
        "--out", type=Path, action="append", default=[], help=".json, or a .md page; repeatable"
    )
    parser.add_argument(
        "--worst", nargs=2, metavar=("N", "FOLDER"), help="write the worst single-object cases"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
