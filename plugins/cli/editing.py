"""The options of `sa2va segment` that change masks: processors, combination, refinement."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from sa2va_host.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sa2va_host import Sa2VA, Segmentation
    from sa2va_host.cancellation import Cancellation
    from sa2va_host.masks.refinement import Refinement
    from sa2va_host.media import Pixels
    from sa2va_host.plugins.hookspecs import Options


def add_to(parser: argparse.ArgumentParser) -> None:
    """Declare the options, which work on probabilities in the order in which `--help` lists them."""
    group = parser.add_argument_group("changing masks, in this order (lengths are pixels)")
    group.add_argument(
        "--process",
        action="append",
        default=[],
        type=_processor,
        metavar="NAME[:OPTION=VALUE,...]",
        help="a mask processor, such as vitmatte:erode=10 (see docs/plugins.md); may be repeated",
    )
    group.add_argument(
        "--combine",
        metavar="HOW",
        help="make all objects one: union, intersection, or difference (the first without the others)",
    )
    group.add_argument(
        "--open", type=int, default=0, metavar="R", help="remove what a disc does not fit into"
    )
    group.add_argument(
        "--close", type=int, default=0, metavar="R", help="close gaps that a disc does not fit into"
    )
    group.add_argument("--fill-holes", action="store_true", help="fill holes")
    group.add_argument("--smallest-area", type=int, default=0, metavar="N", help="drop parts of fewer pixels")
    group.add_argument("--largest-only", action="store_true", help="keep the largest part alone")
    group.add_argument(
        "--guide", type=int, default=0, metavar="R", help="make edges follow the picture (guided filter)"
    )
    group.add_argument("--grow", type=int, default=0, metavar="R", help="grow by a disc; negative shrinks")
    group.add_argument("--smooth", type=float, default=0.0, metavar="SIGMA", help="blur")
    group.add_argument("--invert", action="store_true", help="everything but the object")


class Editing(NamedTuple):
    """What the options ask for."""

    processors: list[tuple[str, Options]]
    combination: str | None
    refinement: Refinement

    def probabilities(
        self, sa: Sa2VA, picture: Pixels, result: Segmentation, cancellation: Cancellation
    ) -> NDArray[np.float32] | None:
        """What stands for the result's own probabilities, `[objects, height, width]`; None where nothing does."""
        if not len(result) or not (self.processors or self.combination):
            return None
        from sa2va_host.masks.refine import combine

        maps = result.probabilities()
        for name, options in self.processors:
            maps = sa.process(picture, maps, name, options, cancellation=cancellation)
        return combine(maps, self.combination)[None] if self.combination else maps  # type: ignore[arg-type]


def read(arguments: argparse.Namespace) -> Editing:
    """The options as parsed. Raises `InvalidInput` for impossible values, `ConfigError` where OpenCV is missing."""
    from sa2va_host.masks.refinement import Refinement, check_combination

    if arguments.combine is not None:
        check_combination(arguments.combine)
    refinement = Refinement(
        opening=arguments.open,
        closing=arguments.close,
        fill_holes=arguments.fill_holes,
        smallest_area=arguments.smallest_area,
        largest_only=arguments.largest_only,
        guide_radius=arguments.guide,
        grow=arguments.grow,
        smooth=arguments.smooth,
        invert=arguments.invert,
    )
    refinement.check_packages(tried=False)
    return Editing(arguments.process, arguments.combine, refinement)


def _processor(text: str) -> tuple[str, dict[str, float | str]]:
    """`NAME` or `NAME:OPTION=VALUE,...`; what reads as a number is one. For argparse."""
    name, _, words = text.partition(":")
    options: dict[str, float | str] = {}
    for word in filter(None, words.split(",")):
        key, sign, value = word.partition("=")
        if not (key and sign and value):
            raise argparse.ArgumentTypeError(f"{word!r} in {text!r} is not of the form OPTION=VALUE")
        try:
            options[key] = float(value)
        except ValueError:
            options[key] = value
    return name, options


def check_processors(editing: Editing) -> None:
    """Raises `InvalidInput` for processors that are known here and told something wrong, and `ModelNotFound` for one
    whose checkpoint is not here, before anything is done.
    """
    if not editing.processors:
        return
    from sa2va_host.config import load_settings
    from sa2va_host.masks.processors import choose_processor
    from sa2va_host.plugins.manager import create_manager, find_mask_processors

    folders = load_settings().model_folders
    for name, options in editing.processors:
        if not name:
            known = find_mask_processors(create_manager())
            raise InvalidInput(
                "A mask processor has no name.", advice=f"There is: {', '.join(known) or 'none'}."
            )
        choose_processor(name, options, folders)
