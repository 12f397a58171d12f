"""The code that a checkpoint folder brings along: which files, and that none of them lies elsewhere.

Shared by the host, which says what would be run, and by the worker, which runs it where the user trusts it. Nothing is
run or even opened here but the folder's JSON files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.machine.commands import sa2va_command

from .checkpoint_folder import CheckpointFolder

_NAMING = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
"""The files whose ``auto_map`` tells transformers' Auto classes what to import."""
_CLASS = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*", re.ASCII)
_MODELS = ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText")
"""The Auto classes that may name the model, most usual first."""
_SHOWN = 5


class OwnCode(msgspec.Struct, frozen=True):
    """What a folder's ``auto_map`` would have transformers run."""

    auto_class: str
    """The Auto class that loads the model, such as `AutoModel`."""
    files: tuple[str, ...]
    """Every Python file of the folder, by name: the modules that are named, and what they may import."""

    def __str__(self) -> str:
        return ", ".join(self.files[:_SHOWN]) + (", ..." if len(self.files) > _SHOWN else "")


def find_own_code(folder: CheckpointFolder) -> OwnCode | None:
    """The code of a folder; None where its `config.json` names no model class of its own.

    Raises `ModelLoadFailed` when a class is named that is not in the folder, or a file leads out of it.
    """
    auto_map = folder.config.get("auto_map")
    auto_class = next((name for name in _MODELS if isinstance(auto_map, dict) and name in auto_map), None)
    if auto_class is None:
        return None
    files = tuple(sorted(path.name for path in folder.folder.glob("*.py")))
    for name in files:
        if not _is_inside(folder.folder, name):
            raise ModelLoadFailed(
                f"{folder.folder / name} leads to a file outside the folder.",
                advice="Copy what it leads to into the folder, if you trust that.",
            )
    for source, reference in _references(folder):
        if not _CLASS.fullmatch(reference) or f"{reference.partition('.')[0]}.py" not in files:
            raise ModelLoadFailed(
                f"The auto_map of {folder.folder / source} names {reference!r}, whose code is not in the folder.",
                advice=f"Fetch the checkpoint with its code: `{sa2va_command('pull')} ORG/NAME --revision COMMIT"
                " --trust-remote-code`.",
            )
    return OwnCode(auto_class, files)


def refusal(folder: CheckpointFolder, code: OwnCode, why: str = "") -> ModelLoadFailed:
    """The error for a checkpoint that needs its own code where the user has not trusted it. ``why``: a clause."""
    return ModelLoadFailed(
        f"{folder.name} can only be run by the code in its folder ({code}), which is not trusted{why}.",
        advice="Read that code; then give --trust-remote-code (trust_remote_code=True), and for a model of the hub"
        " --revision COMMIT.",
    )


def _references(folder: CheckpointFolder) -> Iterator[tuple[str, str]]:
    """(JSON file, class) for everything that is named; a list names a slow and a fast tokenizer, or None for none."""
    for source in _NAMING:
        auto_map = folder.optional_json(source).get("auto_map")
        for named in auto_map.values() if isinstance(auto_map, dict) else ():
            yield from (
                (source, str(each)) for each in (named if isinstance(named, list) else [named]) if each
            )


def _is_inside(folder: Path, name: str) -> bool:
    """Whether a file really lies in the folder; a snapshot of the hub's cache links into the `blobs` beside it."""
    real, home = (folder / name).resolve(), folder.resolve()
    is_snapshot = home.parent.name == "snapshots"
    return real.is_relative_to(home) or (is_snapshot and real.is_relative_to(home.parent.parent / "blobs"))
