"""`sa2va demo`: the bundled images through the bundled model, one sheet to look at, and the images to go on with."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sa2va_host import Sa2VA

    from .sheet import Card

EXAMPLES = Path(__file__).parent / "examples"
CLIP = "crossing.mp4"
"""The clip as a video file; the demo itself reads `crossing.webp`, which needs no PyAV."""


@dataclass(frozen=True)
class Scene:
    """An example file and what is asked about it: for masks, or in words (`question`); `clip` is a video."""

    file: str
    prompt: str
    question: bool = False
    clip: bool = False


SCENES = (
    Scene("sunset.jpg", "the red circle"),
    Scene("triangles.jpg", "the red square and the blue triangle"),
    Scene("pile.jpg", "everything that is red"),
    Scene("squares.jpg", "the star on the right"),
    Scene("triangles.jpg", "the green star"),
    Scene("stars.jpg", "how many stars are there?", question=True),
    Scene("crossing.webp", "the blue square", clip=True),
)
_SHOWN_FRAMES = 5


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="segment the bundled example images",
        description="Segment the bundled images. Writes an overlay for each prompt and overview.png, and leaves the"
        " images themselves in images/ and crossing.mp4, to try other commands on.",
        epilog="examples:\n  sa2va demo\n  sa2va demo -o first --model ByteDance/Sa2VA-Qwen3-VL-4B\n"
        '  sa2va segment demo/images/stars.jpg --prompt "the star" -o masks\n'
        '  sa2va video demo/crossing.mp4 --prompt "the blue square"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="where to write (default: demo)",
    )
    options.add_model(parser, default="sa2va-tiny")
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host import media

    from .display import Display
    from .sheet import draw_sheet

    cards: list[Card] = []
    seconds: list[float] = []
    with Display() as display, options.connect(arguments, display) as sa:
        model = sa.settings.model
        if not arguments.json:
            print(f"Model {model}. The first call starts its worker, the others find it warm.", flush=True)
        for scene in SCENES:
            begun = time.monotonic()
            cards.append(_ask(sa, scene, arguments.output))
            seconds.append(time.monotonic() - begun)
            pid = sa.status().pid
            if not arguments.json:
                print(
                    f"  {seconds[-1]:6.2f} s  worker {pid}  {scene.prompt!r}: {cards[-1].answer}", flush=True
                )
    first = f"first answer after {seconds[0]:.1f} s" if display.started_worker else "it was warm already"
    overview = draw_sheet(
        "Say what you mean, get masks",
        f"{model}, one worker process; {first}, then {seconds[1]:.1f} s",
        cards,
    )
    path = media.write_image(arguments.output / "overview.png", overview)
    _leave_inputs(arguments.output)
    if arguments.json:
        answers = [
            {"prompt": card.prompt, "text": card.answer, "seconds": round(took, 3)}
            for card, took in zip(cards, seconds, strict=True)
        ]
        print(json.dumps({"answers": answers, "overview": str(path), "model": model}, indent=2))
        return 0
    # After the first run from a checkout the command is in an environment that no shell knows of.
    command = "sa2va" if shutil.which("sa2va") else sys.argv[0]
    print(f"Look at {path}. Try another prompt on one of the images:")
    print(f'  {command} segment {arguments.output / "images" / "stars.jpg"} --prompt "the star" -o masks')
    print(f"`{command} ps` shows the worker while it stays warm, `{command} stop --all` ends it.")
    return 0


def _leave_inputs(folder: Path) -> None:
    """Put copies of the example images and the clip where the user is, for the commands of the README."""
    (folder / "images").mkdir(exist_ok=True)
    for image in sorted(EXAMPLES.glob("*.jpg")):
        shutil.copyfile(image, folder / "images" / image.name)
    shutil.copyfile(EXAMPLES / CLIP, folder / CLIP)


def _ask(sa: Sa2VA, scene: Scene, folder: Path) -> Card:
    """One call, its overlay file, and its card on the sheet."""
    import numpy as np

    from sa2va_host import media

    from .sheet import Card, card_width, picture_with_masks

    if scene.clip:
        frames = read_frames(EXAMPLES / scene.file)
        track = sa.segment_video(frames, scene.prompt, key_frames="first:5")
        step = (len(frames) - 1) / (_SHOWN_FRAMES - 1)
        strip_width = card_width(3)
        width = (strip_width - 8 * (_SHOWN_FRAMES - 1)) // _SHOWN_FRAMES
        shown = [round(index * step) for index in range(_SHOWN_FRAMES)]
        views = [picture_with_masks(frames[frame], track, width, frame) for frame in shown]
        white = np.full((views[0].shape[0], 8, 3), 255, dtype=np.uint8)
        strip = np.concatenate([part for view in views for part in (white, view)][1:], axis=1)
        media.write_image(folder / f"{Path(scene.file).stem}.overlay.png", strip)
        numbers = ", ".join(str(frame + 1) for frame in shown)
        return Card(scene.prompt, strip, f"{track.text}  (frames {numbers} of {len(frames)})", columns=3)
    picture = media.read_image(EXAMPLES / scene.file)
    if scene.question:
        answer = sa.chat(scene.prompt, images=[picture])
        return Card(scene.prompt, picture_with_masks(picture, None, card_width()), answer.text)
    result = sa.segment(picture, scene.prompt)
    name = f"{Path(scene.file).stem}.{scene.prompt.replace(' ', '-')}.overlay.png"
    media.write_overlay(folder / name, picture, result.masks())
    return Card(scene.prompt, picture_with_masks(picture, result, card_width()), result.text)


def read_frames(path: Path) -> list[NDArray[np.uint8]]:
    """Every frame of an animated picture, uint8 RGB `[height, width, 3]` each."""
    import numpy as np
    from PIL import Image, ImageSequence

    with Image.open(path) as animation:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
