"""`sa2va segment -o -`: one mask as a PNG on standard output, and nothing else there."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sa2va_host.errors import InvalidInput


class Piped:
    """Checks that there is one mask, and writes it."""

    def check(self, images: int, prompts: int) -> None:
        """Raises `InvalidInput` where several masks are certain."""
        if images > 1 or prompts > 1:
            raise InvalidInput(
                f"Standard output takes one mask, and {images} images with {prompts} prompts make several.",
                advice="Name a folder with -o.",
            )

    def write(self, masks: Sequence[Path], text: str) -> None:
        """The mask of the one object to stdout, an empty one where nothing was found; the answer in words to stderr.

        Raises `InvalidInput` for several objects.
        """
        if len(masks) > 1:
            raise InvalidInput(
                f"{len(masks)} objects were found, and standard output takes one mask.",
                advice="Use --combine union, or name a folder with -o.",
            )
        sys.stdout.buffer.write(masks[0].read_bytes())
        sys.stdout.flush()
        print(text, file=sys.stderr)


@contextlib.contextmanager
def folder_for(arguments: argparse.Namespace) -> Iterator[Piped | None]:
    """Where `-o -` is given, a temporary folder takes its place while this lasts; else nothing changes.

    Raises `InvalidInput` for options that mean more than one mask, and where standard output is a terminal.
    """
    if str(arguments.output) != "-":
        yield None
        return
    if arguments.json or (arguments.save or "masks") != "masks":
        what = "the document of --json" if arguments.json else f"--save {arguments.save}"
        raise InvalidInput(
            f"-o - writes one mask to standard output, and not {what}.", advice="Name a folder with -o."
        )
    if arguments.skip_empty:
        raise InvalidInput(
            "-o - writes one mask to standard output, an empty one where nothing is found, and --skip-empty asks for"
            " none then.",
            advice="Leave out --skip-empty, or name a folder with -o.",
        )
    if sys.stdout.isatty():
        raise InvalidInput(
            "-o - writes a PNG to standard output, which is this terminal.",
            advice="Redirect it: -o - > mask.png",
        )
    arguments.save = "masks"
    with tempfile.TemporaryDirectory(prefix="sa2va-") as folder:
        arguments.output = Path(folder)
        yield Piped()
