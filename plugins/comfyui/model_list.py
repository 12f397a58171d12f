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
from .watch import Watch, check_interrupt

if TYPE_CHECKING:
    from sa2va_host.events import Event

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
        return [AUTO, *here, *(_marked(name, size) for name, size in _on_hub() if name not in here)]
    except (Sa2VAError, OSError) as error:
        _log.warning("Sa2VA's models cannot be listed: %s", error)
        return [AUTO]


def plain(choice: str) -> str:
    """The model that an entry of the list means, whether it was on disk when the workflow was saved or not."""
    return _MARK.sub("", choice)


def ensure(choice: str, options: Options, watch: Watch) -> str:
    """The model's name, once it is on this machine: an entry marked as a download is fetched, into the hub's cache.

    Only those are, since only there the user was told, and never a checkpoint's code. Raises what
    `sa2va_host.models.hub.pull` raises.
    """
    name = plain(choice)
    if name == choice:
        return name
    from sa2va_host.models.checkpoints import find
    from sa2va_host.models.hub import pull

    def on_event(event: Event) -> None:
        check_interrupt()
        watch.event(event)

    try:
        find(name, revision=options.revision or "", folders=model_folders())
    except ModelNotFound:
        pull(name, revision=options.revision or "", on_event=on_event)
    return name


def _on_disk() -> list[str]:
    from sa2va_host.models.checkpoints import find_all

    whole = [found for found in find_all(model_folders()) if not found.contents.problem]
    return list(dict.fromkeys(found.name for found in whole))


@functools.cache
def _on_hub() -> tuple[tuple[str, int], ...]:
    """Name and bytes of what can be fetched; 0 where nobody published a size."""
    from sa2va_host.config import load_settings
    from sa2va_host.models.known_models import known_models
    from sa2va_host.plugins.manager import create_manager, find_known_models

    plugged = find_known_models(create_manager()).values()
    return tuple((model.name, model.download) for model in known_models(load_settings(), plugged))


def _marked(name: str, size: int) -> str:
    return f"{name} (download, {size / 1e9:.1f} GB)" if size else f"{name} (download)"
