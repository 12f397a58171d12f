"""Which files a user means: a folder, a pattern, a name with `~`.

Called by the command line and by `sa2va_host.video`, so that both find the same files. Reads folders, never files, and
imports neither Pillow nor NumPy.

`find("shots", PICTURES)` finds the images in the folder, `find("shots [v2]/**/*.png", PICTURES)` those that match,
in the folder of that name.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from .endings import IMAGES, OPTIONAL
from .errors import InvalidInput

_IGNORED = frozenset({"thumbs.db", "desktop.ini"})
"""What Windows puts into folders of images."""
_NAMED = 3
"""How many of the files that are passed over are named."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_HEIF = "pillow_heif"
_PACKAGES = {
    "pillow_jxl": ("pillow-jxl-plugin",),
    "PIL._avif": ("--upgrade", "pillow"),
}
"""What pip is given for a module, where no extra of ours brings it."""


@dataclass(frozen=True)
class Found:
    """What a folder or a pattern means."""

    base: Path
    """The folder that all files are below."""
    files: list[Path] = field(default_factory=list)
    """Sorted, folder by folder, what links lead to last."""
    notes: list[str] = field(default_factory=list)
    """What looks like an image and is passed over, and which folders cannot be listed; a sentence each."""


def expanded(name: str | os.PathLike[str]) -> Path:
    """The path that a user means: `~` is the home folder unless a file has that very name.

    Raises `InvalidInput` for a URL: nothing is fetched.
    """
    text = os.fspath(name)
    path = Path(text)
    if _URL.match(text) and not path.exists():
        advice = "Name the file itself." if text.lower().startswith("file:") else "Download it first."
        raise InvalidInput(f"{text} is a URL; only files are read.", advice=advice)
    return Path(os.path.expanduser(path)) if text.startswith("~") and not path.exists() else path  # noqa: PTH111 - leaves `~nobody` as it is


def is_pattern(path: Path) -> bool:
    """Whether it holds `*`, `?` or `[` and is not itself a file or folder."""
    return glob.has_magic(str(path)) and not path.exists()


def find(path: Path, suffixes: Collection[str], *, recursive: bool = False) -> Found:
    """The files with these suffixes in a folder, with `recursive` in its folders too, or those that match a pattern.

    Of a pattern, the longest leading path that exists is taken by its name; `**` stands for any number of folders. A
    pattern that ends in a suffix of its own, such as `*.dat`, means such files whatever ``suffixes`` says. Names that
    begin with a dot are skipped unless the pattern names the dot, so are `Thumbs.db` and `desktop.ini`. Links to
    folders are followed, but each folder is listed once. Raises `InvalidInput` where the folder cannot be listed.
    """
    if path.is_dir():
        base, parts = path, ["**", "*"] if recursive else ["*"]
    else:
        base, parts = _literal_part(path)
        if not base.is_dir():
            return Found(base)
        # `**/**` means what `**` means, and would walk everything once for each folder.
        parts = [
            part for part, before in zip(parts, ["", *parts], strict=False) if (part, before) != ("**", "**")
        ]
    if parts[-1] == "**":
        parts.append("*")
    search = _Search()
    matches = search.matches(base, parts)
    own_suffix = Path(parts[-1]).suffix
    named = bool(own_suffix) and not glob.has_magic(own_suffix)
    found = Found(base)
    others: list[Path] = []
    for match in matches:
        suffix = match.suffix.lower()
        if (named or (suffix in suffixes and is_readable(suffix))) and match.is_file():
            found.files.append(match)
        elif suffix in IMAGES and not match.is_dir():
            others.append(match)
    found.notes.extend(search.notes)
    if others:
        found.notes.append(_passed_over(path, others))
    return found


@lru_cache
def is_readable(suffix: str) -> bool:
    """Whether this installation reads such files: HEIC, JPEG XL and AVIF need a library that may be missing."""
    module = OPTIONAL.get(suffix)
    return module is None or _exists(module)


def missing_library(suffix: str) -> str:
    """The command that installs what reads such files; empty where nothing is missing or nothing would help."""
    if is_readable(suffix):
        return ""
    module = OPTIONAL[suffix]
    from .machine.commands import extra_command, pip_command

    return extra_command("heif") if module == _HEIF else pip_command(_PACKAGES[module])


def _exists(module: str) -> bool:
    return find_spec(module) is not None


def _literal_part(path: Path) -> tuple[Path, list[str]]:
    """The longest leading path that exists, and the parts of the pattern below it, of which there is one at least."""
    parts = list(path.parts)
    base = Path(parts.pop(0)) if path.anchor else Path()
    while len(parts) > 1 and (base / parts[0]).exists():
        base /= parts.pop(0)
    return base, parts


class _Search:
    """Walks folders for the parts of a pattern."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._begun: set[tuple[object, ...]] = set()
        """Device and inode of each folder, with the number of parts that were still to match there."""

    def matches(self, base: Path, parts: Sequence[str]) -> Iterator[Path]:
        """Paths below ``base`` that match, each folder's in order."""
        try:
            os.scandir(base).close()
        except OSError as error:
            raise InvalidInput(f"The folder {base} cannot be listed: {error.strerror}.") from error
        yield from self._below(base, parts)

    def _below(self, folder: Path, parts: Sequence[str]) -> Iterator[Path]:
        if not self._is_new(folder, len(parts)):
            return
        first, *rest = parts
        if first == "**":
            yield from self._everywhere(folder, rest)
        elif not glob.has_magic(first):
            path = folder / first
            if not rest and os.path.lexists(path):
                yield path
            elif rest and path.is_dir():
                yield from self._below(path, rest)
        else:
            fits = _fits(first)
            for entry in self._listed(folder):
                if not fits(entry.name):
                    continue
                if not rest:
                    yield folder / entry.name
                elif _is_folder(entry):
                    yield from self._below(folder / entry.name, rest)

    def _everywhere(self, top: Path, rest: Sequence[str]) -> Iterator[Path]:
        """What matches in this folder and in all below it. Links come last, so that a folder has its own name."""
        waiting: list[Path] = [top]
        links: list[Path] = []
        seen: set[object] = set()
        while waiting or links:
            folder = waiting.pop() if waiting else links.pop(0)
            if (identity := _identity(folder)) in seen:
                continue
            seen.add(identity)
            yield from self._below(folder, rest)
            inside = [entry for entry in self._listed(folder, quietly=True) if not entry.name.startswith(".")]
            folders = [entry for entry in inside if _is_folder(entry)]
            waiting += [folder / entry.name for entry in reversed(folders) if not entry.is_symlink()]
            links += [folder / entry.name for entry in folders if entry.is_symlink()]

    def _is_new(self, folder: Path, parts: int) -> bool:
        identity = (_identity(folder), parts)
        new = identity not in self._begun
        self._begun.add(identity)
        return new

    def _listed(self, folder: Path, *, quietly: bool = False) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not quietly:
                self.notes.append(f"The folder {folder} is passed over: {error.strerror}.")
            return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> object:
    try:
        status = folder.stat()
    except OSError:
        return str(folder)
    return status.st_dev, status.st_ino


def _fits(pattern: str) -> Callable[[str], bool]:
    expression = re.compile(translate(os.path.normcase(pattern)))
    hidden = pattern.startswith(".")

    def fits(name: str) -> bool:
        if name.lower() in _IGNORED or (name.startswith(".") and not hidden):
            return False
        return expression.match(os.path.normcase(name)) is not None

    return fits


def _passed_over(source: Path, files: Sequence[Path]) -> str:
    """`shots: 12 files that look like images are passed over: a.heic, b.psd, c.cr2 and 9 more.`"""
    names = ", ".join(file.name for file in files[:_NAMED])
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    count = (
        "1 file that looks like an image is"
        if len(files) == 1
        else f"{len(files)} files that look like images are"
    )
    suffixes = Counter(file.suffix.lower() for file in files)
    commands = dict.fromkeys(filter(None, map(missing_library, suffixes)))
    advice = (
        f" To read {'it' if len(files) == 1 else 'some of them'}: {', '.join(commands)}." if commands else ""
    )
    return f"{source}: {count} passed over: {names}{more}.{advice}"
