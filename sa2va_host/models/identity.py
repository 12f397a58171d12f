"""Which checkpoint a folder holds, whatever that is called: so two clones, or two copies, share one worker."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from sa2va_host.machine.stamps import digest, kept_digest, regular_files

from .weights import MAX_HEADER_BYTES

_READ_WHOLE = 2**20
"""Bytes of a file up to which its content counts, and not its time: configurations, templates, small vocabularies."""
_NO_PART = (".md", ".gitattributes", ".gitignore", ".lock", ".incomplete")
"""Suffixes of what lies in checkpoint folders and no model reads."""


def checkpoint_identity(folder: str | os.PathLike[str]) -> str:
    """What a checkpoint folder holds, as 32 hex digits: equal for two folders where one can stand for the other.

    Of a file up to 1 MiB, and of the code that the checkpoint brings, the content counts; of weights (`*.safetensors`)
    the header, size and time of change; of any other file size and time of change. So a copy that keeps times
    (`cp -p`) is the same checkpoint, as are two snapshots of the hub's cache with the same files, and no weights are
    read. A bundled model, which each installation writes anew, counts by its content alone.

    Takes some 0.1 ms where nothing has changed since it was asked last. A folder that cannot be looked into stands for
    itself alone; raises nothing.
    """
    try:
        place = Path(os.path.realpath(folder))
        files = regular_files(place, _counts)
    except (OSError, ValueError):
        return digest(["alone", os.fspath(folder)])
    is_bundled = _is_bundled(place)
    make = _of_bundled if is_bundled else _of_folder
    return kept_digest(f"checkpoint {place}", files, partial(make, place, files), on_disk=is_bundled)


def _counts(name: str) -> bool:
    return not name.startswith(".") and name != "__pycache__" and not name.lower().endswith(_NO_PART)


def _is_bundled(folder: Path) -> bool:
    """Whether a folder is a model that ships with a worker: with ours, or with that of another clone."""
    above = folder.parent
    return (
        above.name == "bundled"
        and (above.parent / "__main__.py").is_file()
        and above.parent.name == "sa2va_worker"
    )


def _of_bundled(place: Path, files: list[tuple[str, os.stat_result]]) -> str:
    parts: list[str | bytes] = ["bundled"]
    for name, _ in files:
        parts += [name, _content(place / name)]
    return digest(parts)


def _of_folder(place: Path, files: list[tuple[str, os.stat_result]]) -> str:
    parts: list[str | bytes] = ["folder"]
    for name, about in files:
        path = place / name
        parts.append(name)
        if name.endswith(".safetensors"):
            parts += [f"{about.st_size} {about.st_mtime_ns}", _header(path)]
        elif about.st_size <= _READ_WHOLE or name.endswith(".py"):
            parts.append(_content(path))
        else:
            parts.append(f"{about.st_size} {about.st_mtime_ns}")
    return digest(parts)


def _header(path: Path) -> bytes:
    """The header of a safetensors file as it stands there; what is no such file is for the worker to refuse."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return file.read(length) if length <= MAX_HEADER_BYTES else b""
    except OSError:
        return b""


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
