"""Memory shared with ComfyUI: it makes room before our worker loads, and our worker goes when it frees its models."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management

from sa2va_host import list_workers, stop_worker
from sa2va_host.errors import Sa2VAError

_log = logging.getLogger(__name__)
_HOOK = "unload_all_models"
"""What ComfyUI calls for `/free`, for "Free model and node cache", for its Manager's unload, and out of memory."""


def make_room() -> None:
    """Ask ComfyUI to take its own models off the GPU; our worker, which is about to load, is left alone."""
    unload: Callable[[], object] | None = getattr(comfy.model_management, _HOOK, None)
    if unload is None:
        return
    getattr(unload, "__wrapped__", unload)()


def follow_comfyui() -> None:
    """From now on idle workers end when ComfyUI unloads its models. Where this ComfyUI has no such moment, it is said.

    Calling it again does nothing.
    """
    unload: Callable[..., object] | None = getattr(comfy.model_management, _HOOK, None)
    if unload is None:
        _log.warning(
            "This version of ComfyUI has no %s: its buttons for freeing memory do not reach Sa2VA's worker."
            " Use the node Sa2VA Unload instead.",
            _HOOK,
        )
        return
    if getattr(unload, "sa2va", False):
        return

    @functools.wraps(unload)
    def unload_all_models(*arguments: Any, **named: Any) -> object:
        result = unload(*arguments, **named)
        release_workers()
        return result

    unload_all_models.sa2va = True  # type: ignore[attr-defined]
    setattr(comfy.model_management, _HOOK, unload_all_models)


def release_workers() -> None:
    """End the workers that nobody uses at this moment. Never raises: ComfyUI's own clean-up goes on."""
    try:
        for worker in list_workers():
            stop_worker(worker, timeout=0)
    except Sa2VAError as error:
        _log.warning("Sa2VA's worker stays: %s", error)


def uses_gpu(device: str) -> bool:
    """Whether a worker for this ``device`` may need the memory that ComfyUI's models take."""
    ours = device if device != "auto" else comfy.model_management.get_torch_device().type
    return bool(ours != "cpu")
