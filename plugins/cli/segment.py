"""`sa2va segment`: one picture and one sentence in, mask files and an overlay out."""

from __future__ import annotations

import argparse
import json
import threading
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sa2va_host import Segmentation

EXAMPLES = """examples:
  sa2va segment photo.jpg --prompt "the red circle"
  sa2va segment photo.jpg --prompt "the cat and the dog" -o masks --threshold 0.3
  sa2va segment photo.jpg --prompt "the cat" --model ./Sa2VA-Qwen3-VL-4B --json
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "segment",
        help="find what a sentence describes in a picture",
        description="Find what a sentence describes in a picture. Writes NAME.0.png, NAME.1.png, ... (one"
        " mask for each object, 255 inside) and NAME.overlay.png.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", metavar="IMAGE", type=Path, help="a picture file")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what to find, in words")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to write (default: this folder)",
    )
    parser.add_argument(
        "--threshold",
        type=options.probability,
        default=0.5,
        metavar="P",
        help="a pixel belongs to the mask where the model's probability is above it (default: %(default)s)",
    )
    options.add_model(parser)
    options.add_json(parser)
    parser.set_defaults(command=run)


@dataclass(frozen=True)
class FoundObject:
    """One object as `--json` prints it. `box` is `[x0, y0, x1, y1]`, ends exclusive; null if empty."""

    index: int
    mask: str | None
    area: int
    box: tuple[int, int, int, int] | None
    mean_probability: float


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host import media

    from .display import Display

    picture = media.read_image(arguments.image)
    with (
        Display() as display,
        options.connect(arguments, display) as sa,
    ):
        # Needed for the masks: imported while the worker works, which hides its time.
        threading.Thread(target=import_module, args=("cv2",), name="sa2va-import").start()
        result = sa.segment(picture, arguments.prompt)
    masks = result.masks(arguments.threshold)
    stem = arguments.output / arguments.image.stem
    found = [describe(result, masks, index, f"{stem}.{index}.png") for index in range(len(result))]
    for item, mask in zip(found, masks, strict=True):
        media.write_mask(str(item.mask), mask)
    overlay = media.write_overlay(f"{stem}.overlay.png", picture, masks)
    if arguments.json:
        print(json.dumps(document(arguments, sa.settings.model, result, found), indent=2, ensure_ascii=False))
        return 0
    print(result.text)
    for item in found:
        print(f"  {item.mask}  {item.area} pixels, mean probability {item.mean_probability:.2f}")
    print(f"  {overlay}")
    pid = result.worker.pid if result.worker else 0
    how = "started for this call" if display.started_worker else "warm"
    print(f"{result.timings.get('total', 0.0):.2f} s, model {sa.settings.model}, worker {pid} ({how})")
    return 0


def describe(result: Segmentation, masks: NDArray[np.bool_], index: int, path: str | None) -> FoundObject:
    """What there is to say about one object of an image, whose masks are `[objects, height, width]`."""
    from sa2va_host import masks as tools

    mask = masks[index]
    logits = result.logits[index, 0]
    return FoundObject(
        index=index,
        mask=path,
        area=int(mask.sum()),
        box=tools.box(mask),
        mean_probability=round(tools.mean_probability(logits, result.image_size, result.size, mask), 4),
    )


def document(
    arguments: argparse.Namespace, model: str, result: Segmentation, found: list[FoundObject]
) -> dict[str, Any]:
    """The one document that `--json` prints."""
    return {
        "results": [
            {
                "image": str(arguments.image),
                "prompt": arguments.prompt,
                "text": result.text,
                "objects": [vars(item) for item in found],
                "size": list(result.size),
            }
        ],
        "model": model,
        "worker": options.worker_document(result.worker),
        "timings": dict(result.timings),
    }
