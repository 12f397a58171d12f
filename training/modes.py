"""What each way of conditioning the tracker is worth, on videos of which the first five frames do not tell enough.

    python -m training.modes --model sa2va-tiny --out docs/video.md

Prompts name one thing by colour and shape, such that no other thing in the clip fits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from training import draw, heldout
from training.evaluate import FRAMES, SEEN_FRAMES, Image8
from training.scene import Clip
from training.scores import Mask, boundary_f, iou, put_block

if TYPE_CHECKING:
    from sa2va_host import Sa2VA


@dataclass(frozen=True)
class Mode:
    """A way to follow things through a clip."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `Sa2VA.track`; without any it is upstream's way."""
    backwards: bool = False
    """Whether the clip is tracked from its end."""


_MASKS = {"condition_on": "masks"}
MODES: Mapping[str, Mode] = {
    "`first:5`": Mode(),
    "`uniform:3`": Mode({"key_frames": "uniform:3"}),
    "`uniform:3`, backwards": Mode({"key_frames": "uniform:3"}, backwards=True),
    "`uniform:5`": Mode({"key_frames": "uniform:5"}),
    "`uniform:5`, backwards": Mode({"key_frames": "uniform:5"}, backwards=True),
    "`uniform:12`": Mode({"key_frames": "uniform:12"}),
    "`first:5`, masks": Mode(_MASKS),
    "`uniform:5`, masks": Mode({"key_frames": "uniform:5", **_MASKS}),
    "`every:5`": Mode({"ask_again": "every:5"}),
    "`every:10`": Mode({"ask_again": "every:10"}),
    "`cuts`": Mode({"ask_again": "cuts"}),
}
PRESENCE = 0.5
"""What `sa2va video` has as the least presence of an object in a frame, where nobody says otherwise."""
MARKS = "<!-- modes: written by training.modes -->\n", "<!-- end of modes -->\n"
_SEED_TAG = 0x5EED_30DE
"""First word of every seed here, as in `training.evaluate`."""
_LEAST_SEEN = 8
"""In how many frames the target has to be."""


@dataclass(frozen=True)
class Case:
    """A clip and the one thing in it that is asked for."""

    frames: Image8
    truth: Mask
    """`[frames, height, width]`"""
    prompt: str


Situation = Callable[[np.random.Generator], Iterator[Case]]


def moving(rng: np.random.Generator) -> Iterator[Case]:
    """Things that cross, leave and come back; the target is there from the start (second generator)."""
    for case in _targets(heldout.draw_clip(rng, heldout.random_size(rng), FRAMES)):
        if case.truth[:SEEN_FRAMES].any(axis=(1, 2)).all():
            yield case


def late(rng: np.random.Generator) -> Iterator[Case]:
    """The target enters after the frames that upstream shows the language model (training's generator)."""
    height, width = rng.integers(128, 321, 2).tolist()
    for case in _targets(draw.draw_clip(rng, (height, width), FRAMES)):
        if not case.truth[:SEEN_FRAMES].any():
            yield case


def cut(rng: np.random.Generator) -> Iterator[Case]:
    """A hard cut in the middle, to another scene that has such a thing too (second generator)."""
    size, half = heldout.random_size(rng), FRAMES // 2
    before, after = (list(_targets(heldout.draw_clip(rng, size, half))) for _ in range(2))
    for one in before:
        for other in after:
            if one.prompt == other.prompt and one.truth[:SEEN_FRAMES].any(axis=(1, 2)).all():
                frames = np.concatenate([one.frames, other.frames])
                yield Case(frames, np.concatenate([one.truth, other.truth]), one.prompt)


def late_cut(rng: np.random.Generator) -> Iterator[Case]:
    """Ten frames of another scene without the target, then a cut to it (second generator)."""
    size, before = heldout.random_size(rng), FRAMES // 3
    opening = heldout.draw_clip(rng, size, before)
    others = {(thing.colour, thing.shape) for thing in opening.things}
    clip = heldout.draw_clip(rng, size, FRAMES - before)
    for case in _targets(clip):
        if not any(case.prompt == f"the {colour} {shape}" for colour, shape in others):
            nothing = np.zeros((before, *case.truth.shape[1:]), np.bool_)
            yield Case(
                np.concatenate([opening.frames, case.frames]),
                np.concatenate([nothing, case.truth]),
                case.prompt,
            )


SITUATIONS: Mapping[str, Situation] = {
    "crossing, leaving": moving,
    "entering late": late,
    "hard cut": cut,
    "only after a cut": late_cut,
}


def _targets(clip: Clip) -> Iterator[Case]:
    """The things that are alone in having their colour and shape."""
    names = [(thing.colour, thing.shape) for thing in clip.things]
    for index, (colour, shape) in enumerate(names):
        truth = clip.instances == index + 1
        if names.count((colour, shape)) == 1 and truth.any(axis=(1, 2)).sum() >= _LEAST_SEEN:
            yield Case(clip.frames, truth, f"the {colour} {shape}")


def draw_cases(situation: Situation, count: int, seed: int) -> Iterator[Case]:
    """So many cases, each from a clip of its own."""
    index = 0
    while count:
        rng = np.random.default_rng([_SEED_TAG, seed, list(SITUATIONS.values()).index(situation), index])
        index += 1
        case = next(situation(rng), None)
        if case is not None:
            count -= 1
            yield case


Pair: TypeAlias = tuple[float, float]
"""J and F, 0..1."""


def follow(sa: Sa2VA, case: Case, mode: Mode) -> tuple[Mask, Mask]:
    """What is found of the target, `[frames, height, width]`: in frames where the model believes it to be present, and
    in all.
    """
    step = -1 if mode.backwards else 1
    present, everywhere = np.zeros_like(case.truth), np.zeros_like(case.truth)
    with sa.track(list(case.frames[::step]), case.prompt, **mode.settings) as track:
        for frame in track:
            masks = frame.masks()
            everywhere[frame.index] = masks.any(axis=0)
            if frame.presence is not None:
                masks = masks[frame.presence >= PRESENCE]
            present[frame.index] = masks.any(axis=0)
    return present[::step], everywhere[::step]


def score(found: Mask, truth: Mask) -> Pair:
    """Mean J (region) and F (boundary) over the frames of `[frames, height, width]`, as DAVIS has them."""
    pairs = list(zip(found, truth, strict=True))
    regions, borders = (np.mean([measure(*pair) for pair in pairs]) for measure in (iou, boundary_f))
    return float(regions), float(borders)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every mode in every situation, and put the table where it is asked for."""
    from sa2va_host import Sa2VA

    options = _parse(arguments)
    measured: dict[tuple[str, str], list[tuple[Pair, Pair]]] = {}
    with Sa2VA(model=options.model) as sa:
        for situation, cases in SITUATIONS.items():
            for case in draw_cases(cases, options.clips, options.seed):
                for name, mode in MODES.items():
                    present, everywhere = (score(found, case.truth) for found in follow(sa, case, mode))
                    measured.setdefault((situation, name), []).append((present, everywhere))
    text = table(measured)
    print(text, end="")
    if options.out is not None:
        page = options.out.read_text(encoding="utf-8") if options.out.exists() else ""
        options.out.write_text(put_block(page, text, MARKS), encoding="utf-8")


def table(measured: Mapping[tuple[str, str], Sequence[tuple[Pair, Pair]]]) -> str:
    """Mean J and F of each mode in each situation, and over all, as a Markdown table."""
    columns = [*SITUATIONS, "all", f"all, without `--presence {PRESENCE}`"]
    lines = [f"| J / F | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for mode in MODES:
        rows = [measured[situation, mode] for situation in SITUATIONS]
        every = np.mean([pairs for row in rows for pairs in row], axis=0)
        cells = [*(np.mean(row, axis=0)[0] for row in rows), *every]
        lines.append(f"| {mode} | " + " | ".join(f"{j:.3f} / {f:.3f}" for j, f in cells) + " |")
    clips = len(next(iter(measured.values())))
    return "\n".join([*lines, "", f"{clips} clips of {FRAMES} frames for each situation."]) + "\n"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.modes", description=main.__doc__)
    parser.add_argument("--model", default="sa2va-tiny", help="a bundled name or a folder")
    parser.add_argument("--clips", type=int, default=12, help="for each situation")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a .md page")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
