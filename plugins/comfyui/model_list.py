"""The entries of a node's `model`: what is on disk first, then what the hub has, marked with its size."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

from sa2va_host.errors import ModelNotFound, Sa2VAError
from sa2va_host.protocol.specification import AUTO

from .options import Options

if TYPE_CHECKING:
    from .watch import Watch

FOLDER = "sa2va"
"""ComfyUI's name for the folder, as in `models/sa2va` and in `extra_model_paths.yaml`."""
_MARK = re.compile(r" \(download(?:,? [^)]*)?\)$")

_log = logging.getLogger(__name__)


def register_folder() -> None:
    """Make `models/sa2va` one of ComfyUI's model folders, beside those of `extra_model_paths.yaml`."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def model_folders() -> tuple[str, ...]:
    """ComfyUI's folders, then those of the setting `model_folders`; absolute."""
    from sa2va_host.config import load_settings

    ours = (str(Path(folder).absolute()) for folder in folder_paths.get_folder_paths(FOLDER))
    return tuple(dict.fromkeys([*ours, *load_settings().model_folders]))


def choices() -> list[str]:
    """`auto`, what is on this machine, what could be fetched. Never raises: the node is to be drawn."""
    try:
        here = _on_disk()
        return [AUTO, *here, *(marked(name, size) for name, size in _on_hub() if name not in here)]
    except (Sa2VAError, OSError) as error:
        _log.warning("Sa2VA's models cannot be listed: %s", error)
        return [AUTO]


def plain(choice: str) -> str:
    """The model that an entry of the list means, whether it was on disk when the workflow was saved or not."""
    return _MARK.sub("", choice)


def ensure(choice: str, options: Options, watch: Watch) -> str:
    """The model's name, once it is on this machine: an entry marked as a download is fetched, into the hub's cache.

    Only those are, since only there the user was told, and never a checkpoint's code. Raises what
    `download.fetch` raises, and `WorkerStartFailed` where no Python could run the worker then.
    """
    name = plain(choice)
    if name == choice:
        return name
    from sa2va_host.config import load_settings

    settings = load_settings(model=name, revision=options.revision, worker_python=options.worker_python)
    # Where the settings give the name a folder, that is the model.
    if settings.model == name and not is_here(name, settings.revision):
        from . import download
        from .clients import check_missing

        if not settings.worker_python:
            check_missing()
        download.fetch(name, settings.revision, watch)
    return name


def is_here(name: str, revision: str = "") -> bool:
    """Whether a model of the hub is on this machine."""
    from sa2va_host.models.checkpoints import find

    try:
        find(name, revision=revision, folders=model_folders())
    except ModelNotFound:
        return False
    return True


def entry(name: str) -> str:
    """The entry of a model of the hub: its name, marked with its size where it is to be fetched first."""
    try:
        sizes = dict(_on_hub())
        return name if name not in sizes or is_here(name) else marked(name, sizes[name])
    except (Sa2VAError, OSError):
        return name


def advice(name: str, command: str) -> str:
    """What to do about a model that is not here: choose its download, where there is an entry for that; else
    ``command``, a sentence.
    """
    choice = entry(name)
    return command if choice == name else f"Choose {choice!r} in the node. Or outside of ComfyUI: {command}"


def _on_disk() -> list[str]:
    from sa2va_host.models.checkpoints import find_all

    whole = [found for found in find_all(model_folders()) if not found.contents.problem]
    return list(dict.fromkeys(found.name for found in whole))


@functools.cache
def _on_hub() -> tuple[tuple[str, str], ...]:
    """Name and size of what can be fetched; empty where nobody knows it."""
    from sa2va_host.config import load_settings
    from sa2va_host.models.known_models import download_cell, known_models
    from sa2va_host.plugins.manager import create_manager, find_known_models

    plugged = find_known_models(create_manager()).values()
    return tuple((model.name, download_cell(model)) for model in known_models(load_settings(), plugged))


def marked(name: str, size: str) -> str:
    """An entry that is fetched when the node runs. ``size`` as in `103 MB`, empty where nobody knows it."""
    return f"{name} (download, {size})" if size else f"{name} (download)"
