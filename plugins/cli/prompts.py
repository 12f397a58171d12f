"""What to find, as the command line says it: `--prompt`, and the lines of `--prompt-file`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from sa2va_host.errors import InvalidInput

from . import pictures


class Asked(NamedTuple):
    """One thing to find."""

    prompt: str
    name: str
    """As part of file names, its own among all that is asked."""
    is_named: bool
    """Whether the user gave the name, which otherwise is the prompt in short."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Declare the options, of which one must be given; `read` checks that."""
    parser.add_argument(
        "-p",
        "--prompt",
        dest="prompts",
        action="append",
        default=[],
        metavar="TEXT",
        help="what to find, in words; may be repeated",
    )
    parser.add_argument(
        "--prompt-file",
        metavar="FILE",
        help="what to find, one prompt a line, - for standard input; `NAME = PROMPT` names its outputs; empty lines and"
        " those that begin with # are passed over",
    )


def read(arguments: argparse.Namespace) -> list[Asked]:
    """All that is to be found: that of `--prompt`, then that of the file.

    Raises `InvalidInput` where there is nothing, for a prompt that cannot be asked, and for a name given twice.
    """
    from sa2va_host.output.names import distinct_stems
    from sa2va_host.prompts import checked_prompts

    lines = [("", prompt) for prompt in arguments.prompts]
    if arguments.prompt_file is not None:
        lines += _of_file(arguments.prompt_file)
    if not lines:
        raise InvalidInput(
            "There is no prompt.", advice="Give --prompt TEXT (-p), or --prompt-file FILE with one a line."
        )
    prompts = checked_prompts([prompt for _, prompt in lines])
    # A name that was given is kept; a prompt in short that happens to be the same is numbered.
    order = sorted(range(len(lines)), key=lambda place: not lines[place][0])
    stems = dict(
        zip(order, distinct_stems([pictures.slug(lines[at][0] or lines[at][1]) for at in order]), strict=True)
    )
    return [Asked(prompt, stems[place], bool(lines[place][0])) for place, prompt in enumerate(prompts)]


def _of_file(name: str) -> list[tuple[str, str]]:
    """Name and prompt of each line; the name is empty where none is given."""
    where = "standard input" if name == "-" else name
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).expanduser().read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{where} is not UTF-8 text.", advice="Save it as UTF-8.") from error
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {name}.", advice="Check --prompt-file.") from error
    except OSError as error:
        raise InvalidInput(f"{where} cannot be read: {error.strerror}.") from error
    found: list[tuple[str, str]] = []
    named: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        label, sign, prompt = (part.strip() for part in stripped.partition("="))
        if not sign:
            found.append(("", stripped))
            continue
        if not label or not prompt:
            raise InvalidInput(
                f"Line {number} of {where} lacks a {'prompt' if label else 'name'}: {stripped!r}.",
                advice="Write PROMPT, or NAME = PROMPT.",
            )
        slug = pictures.slug(label).casefold()
        if slug in named:
            raise InvalidInput(
                f"Lines {named[slug]} and {number} of {where} have the same name, {label!r}.",
                advice="Give each object a name of its own.",
            )
        named[slug] = number
        found.append((label, prompt))
    if not found:
        raise InvalidInput(f"{where} has no prompt in it.", advice="Write one a line.")
    return found
