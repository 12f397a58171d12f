"""The image files that a command line names: files, folders and patterns; and what their outputs are called."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sa2va_host import discovery
from sa2va_host.endings import PICTURES, VIDEOS
from sa2va_host.errors import InvalidInput
from sa2va_host.machine.commands import sa2va_command

STDIN = Path("stdin")
"""Stands for the image on standard input; another `Path("stdin")` is a file of that name."""


@dataclass(frozen=True)
class Inputs:
    """The images meant, each once."""

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    """For each file the folder that its outputs belong into, below that of the command: `.`, but for files that
    `--recursive` found in a folder's folders.
    """
    notes: list[str] = field(default_factory=list)
    """What was passed over, a sentence each."""


def find(names: Sequence[str], *, recursive: bool = False, output: Path | None = None) -> Inputs:
    """Every image meant, each file once by what it resolves to: in the order given, sorted in a folder or pattern.

    A folder means the images in it, with ``recursive`` those in its folders too, but not in the folder ``output``; `**`
    in a pattern means those too. A pattern that is also a file's name is the file, `-` is standard input. Raises
    `InvalidInput` where there is nothing.
    """
    inputs = Inputs()
    seen: set[object] = set()
    for name in names:
        if name == "-":
            _check_stdin()
            if STDIN not in seen:
                seen.add(STDIN)
                inputs.files.append(STDIN)
                inputs.folders.append(Path())
            continue
        path = discovery.expanded(name)
        inside, below = [path], None
        if path.is_dir() or discovery.is_pattern(path):
            found = discovery.find(path, PICTURES, recursive=recursive)
            inside = _without(found.files, path, output) if recursive and path.is_dir() else found.files
            below = path if path.is_dir() else None
            inputs.notes.extend(found.notes)
            if not inside:
                raise _nothing(name, path, found.notes)
        for file in inside:
            key = os.path.realpath(file)
            if key not in seen:
                seen.add(key)
                inputs.files.append(file)
                inputs.folders.append(file.parent.relative_to(below) if below else Path())
    return inputs


def source(file: Path) -> Path | IO[bytes]:
    """What `sa2va_host.media.read_image` reads for one of `Inputs.files`."""
    return sys.stdin.buffer if file is STDIN else file


def slug(prompt: str) -> str:
    """The prompt as a part of a file's name: `the-red-circle`; at most 40 characters."""
    return re.sub(r"\W+", "-", prompt.lower()).strip("-")[:40].rstrip("-") or "prompt"


def _check_stdin() -> None:
    if sys.stdin.isatty():
        raise InvalidInput(
            "An image was to come from standard input (-), which is this terminal.",
            advice=f"Pipe one in, such as: {sa2va_command('segment', '-', '--prompt')} TEXT < photo.jpg",
        )


def _without(files: Sequence[Path], folder: Path, output: Path | None) -> list[Path]:
    """Those that are not below the outputs' own folder in this one, which an earlier run has filled."""
    written = folder.resolve() if output is None else output.resolve()
    if written == folder.resolve() or not written.is_relative_to(folder.resolve()):
        return list(files)
    return [file for file in files if not file.resolve().is_relative_to(written)]


def _nothing(name: str, path: Path, notes: Sequence[str]) -> InvalidInput:
    if not path.is_dir():
        return InvalidInput(f"No picture matches {name!r}.", advice=" ".join(notes))
    advice = list(notes)
    try:
        inside = list(path.iterdir())
    except OSError:
        inside = []
    if any(one.suffix.lower() in VIDEOS for one in inside):
        advice.append(f"Videos go through `{sa2va_command('video')}`, one at a time.")
    if any(one.is_dir() and not one.name.startswith(".") for one in inside):
        advice.append("With --recursive its folders count too.")
    return InvalidInput(f"The folder {name} has no images in it.", advice=" ".join(advice))
