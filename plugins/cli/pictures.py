"""The picture files that a command line names: files, folders and patterns; and what their outputs are called."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from sa2va_host.endings import PICTURES
from sa2va_host.errors import InvalidInput


def find(names: Sequence[str]) -> list[Path]:
    """Every picture meant, each once, in the order given and sorted within a folder or pattern.

    A folder means the pictures in it, not those in its folders; ``**`` in a pattern means those too. A pattern that
    is also a file's name is the file. Raises `InvalidInput` where there is nothing.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix.lower() in PICTURES and one.is_file())
            if not inside:
                raise InvalidInput(f"The folder {name} has no pictures in it.")
        elif glob.has_magic(name) and not path.exists():
            matches = (Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 - absolute patterns too
            inside = sorted(one for one in matches if one.suffix.lower() in PICTURES and one.is_file())
            if not inside:
                raise InvalidInput(f"No picture matches {name!r}.")
        else:
            inside = [path]
        found |= dict.fromkeys(inside)
    return list(found)


def slug(prompt: str) -> str:
    """The prompt as a part of a file's name: `the-red-circle`; at most 40 characters."""
    return re.sub(r"\W+", "-", prompt.lower()).strip("-")[:40].rstrip("-") or "prompt"
