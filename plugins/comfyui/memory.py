"""Memory shared with ComfyUI: it makes room before our worker loads, and our worker goes when it frees its models."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management

from sa2va_host import list_workers, stop_worker
from sa2va_host.errors import Sa2VAError

from .result_cache import RESULTS

_log = logging.getLogger(__name__)
_RESET = "reset"
"""What ComfyUI's executor does to forget all outputs: for `/free` with `free_memory`, "Free model and node cache"."""
_HOOK = "unload_all_models"
"""What ComfyUI calls for `/free`, for "Free model and node cache", for its Manager's unload, and out of memory."""


def make_room() -> None:
    """Ask ComfyUI to take its own models off the GPU; our worker, which is about to load, is left alone."""
    unload: Callable[[], object] | None = getattr(comfy.model_management, _HOOK, None)
    if unload is None:
        return
    getattr(unload, "__wrapped__", unload)()


def follow_comfyui() -> None:
    """From now on idle workers end when ComfyUI unloads its models, and the kept answers go when it forgets its nodes'
    outputs. Where this ComfyUI has no such moment, it is said.

    Calling it again does nothing.
    """
    _follow_forgetting()
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


def _follow_forgetting() -> None:
    """The answers that are kept take host memory, which unloading models is not about."""
    try:
        from execution import PromptExecutor

        reset: Callable[..., object] = getattr(PromptExecutor, _RESET)
    except (ImportError, AttributeError) as error:
        _log.warning(
            "This version of ComfyUI does not say when it frees its node cache (%s): Sa2VA's answers stay in memory, up"
            " to the setting comfyui_cache_bytes.",
            error,
        )
        return
    if getattr(reset, "sa2va", False):
        return

    @functools.wraps(reset)
    def forget(*arguments: Any, **named: Any) -> object:
        RESULTS.clear()
        return reset(*arguments, **named)

    forget.sa2va = True  # type: ignore[attr-defined]
    setattr(PromptExecutor, _RESET, forget)


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
