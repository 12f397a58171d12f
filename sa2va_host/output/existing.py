"""What earlier runs left: no output is written over unless that was asked for.

Called by front ends before the model is asked. Names are those of `sa2va_host.output.names`; files are told by them
alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_host.errors import InvalidInput

from .names import OBJECT_ENDINGS, PICTURE_ENDINGS

if TYPE_CHECKING:
    from .names import Kind

OVERWRITE = (
    "Give --overwrite to write over it, --skip-existing to leave out what is done, or another folder (-o)."
)
"""What a command advises where outputs exist."""


class Existing:
    """The outputs in the folders of some stems, each folder being listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, dict[Kind, dict[int, Path]]]] = {}

    def of(self, stem: str | os.PathLike[str], kinds: Iterable[Kind]) -> dict[Kind, dict[int, Path]]:
        """Of each kind the files that are there, by their object's number (0 where a kind has one file)."""
        path = Path(stem)
        if path.parent not in self._folders:
            self._folders[path.parent] = _listed(path.parent)
        there = self._folders[path.parent].get(os.path.normcase(path.name), {})
        return {kind: dict(sorted(there.get(kind, {}).items())) for kind in kinds}


def is_whole(there: Mapping[Kind, Mapping[int, Path]], *, skip_empty: bool = False) -> bool:
    """Whether these are all outputs of one answer, given for each kind that is wanted; see `saving.save`, which writes
    the file of object 0 after those of the other objects.

    With ``skip_empty`` an answer without objects is whole where a kind of the whole image vouches for it.
    """
    numbers = {tuple(files) for kind, files in there.items() if kind in OBJECT_ENDINGS}
    pictures = [bool(files) for kind, files in there.items() if kind in PICTURE_ENDINGS]
    if not all(pictures) or len(numbers) > 1:
        return False
    for found in numbers:
        if not found:
            return skip_empty and bool(pictures)
        return found == tuple(range(len(found)))
    return bool(pictures)


def remove_leftovers(there: Mapping[Kind, Mapping[int, Path]], count: int, size: tuple[int, int]) -> None:
    """Remove files of an earlier answer whose objects number ``count`` and on, which the new answer does not have.

    A mask is removed only where it is one, of the image's ``size``, `(height, width)`: its name alone could be that of
    somebody's image.
    """
    for kind, files in there.items():
        if kind not in OBJECT_ENDINGS:
            continue
        for number, path in files.items():
            if number >= count and (kind != "masks" or _is_mask(path, size)):
                path.unlink(missing_ok=True)


def check_writable(folders: Iterable[Path]) -> None:
    """Raises `OSError` for a folder that cannot be made or written into. Leaves nothing behind."""
    for folder in dict.fromkeys(folders):
        where = folder
        while not where.exists() and where != where.parent:
            where = where.parent
        try:
            probe = where / f".sa2va.{os.urandom(4).hex()}.part"
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as error:
            error.filename, error.filename2 = str(where), None
            raise


def refuse(paths: Iterable[Path]) -> None:
    """Raises `InvalidInput` that names the first of the outputs that are there, where there are any."""
    there = list(paths)
    if there:
        more = f", and so do {len(there) - 1} more outputs" if len(there) > 2 else ""
        more = f", and so does {there[1]}" if len(there) == 2 else more
        raise InvalidInput(f"{there[0]} exists already{more}.", advice=OVERWRITE)


def _pattern() -> re.Pattern[str]:
    """`STEM.N.ENDING` or `STEM.ENDING`, as names are made."""
    objects = "|".join(re.escape(ending) for endings in OBJECT_ENDINGS.values() for ending in endings)
    pictures = "|".join(re.escape(ending) for ending in PICTURE_ENDINGS.values())
    return re.compile(
        rf"(?s)(?P<stem>.+?)(?:\.(?P<number>0|[1-9][0-9]*)(?P<object>{objects})|(?P<picture>{pictures}))"
    )


_KIND_OF: Mapping[str, Kind] = {
    **{ending: kind for kind, endings in OBJECT_ENDINGS.items() for ending in endings},
    **{ending: kind for kind, ending in PICTURE_ENDINGS.items()},
}


def _listed(folder: Path) -> dict[str, dict[Kind, dict[int, Path]]]:
    """All outputs in a folder, by stem and kind."""
    pattern = _pattern()
    stems: dict[str, dict[Kind, dict[int, Path]]] = {}
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names alone, of folders with many thousands
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for name in names:
        if match := pattern.fullmatch(name):
            kind = _KIND_OF[match["object"] or match["picture"]]
            of_stem = stems.setdefault(os.path.normcase(match["stem"]), {})
            of_stem.setdefault(kind, {})[int(match["number"] or 0)] = folder / name
    return stems


def _is_mask(path: Path, size: tuple[int, int]) -> bool:
    from sa2va_host.media import image_size, read_image

    try:
        if image_size(path) != size:
            return False
        pixels = read_image(path)
    except InvalidInput:
        return False
    return bool(((pixels == 0) | (pixels == 255)).all() and (pixels == pixels[:, :, :1]).all())
