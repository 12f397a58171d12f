"""Which mask processor a caller means: one that runs here, one of the worker's, or one that only the worker knows."""

from __future__ import annotations

from collections.abc import Sequence

from sa2va_host.models.checkpoints import find
from sa2va_host.plugins.hookspecs import MaskProcessor, Options
from sa2va_host.plugins.manager import create_manager, find_mask_processors
from sa2va_host.plugins.processing import checked


def choose_processor(
    name: str, options: Options, model_folders: Sequence[str]
) -> tuple[MaskProcessor | None, dict[str, float | str]]:
    """The processor of this name and all of its options; None where only the worker may know it.

    The option ``model`` becomes the checkpoint's folder. Raises `InvalidInput` as
    `sa2va_host.plugins.processing.checked` does.
    """
    known = find_mask_processors(create_manager())
    if name not in known:
        return None, dict(options)
    chosen, values = checked(known, name, options)
    if "model" in values:
        values["model"] = str(find(str(values["model"]), folders=model_folders).folder)
    return chosen, values
