"""Sa2VA: say what you mean, get masks. The light side: importing it loads neither torch nor a codec.

>>> from sa2va_host import Sa2VA
>>> with Sa2VA(model="sa2va-tiny") as sa:
...     result = sa.segment("picture.png", "the red circle")
...     masks = result.masks(threshold=0.5)  # bool [objects, height, width]

The names in ``__all__`` are the whole public surface; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asynchronous import AsyncSa2VA
    from .cancellation import Cancellation
    from .client import Sa2VA
    from .errors import (
        Cancelled,
        ConfigError,
        DeadlineExceeded,
        InvalidInput,
        ModelLoadFailed,
        ModelNotFound,
        OutOfMemory,
        ProtocolMismatch,
        Sa2VAError,
        UnloadRefused,
        WorkerBusy,
        WorkerDied,
        WorkerError,
        WorkerStalled,
        WorkerStartFailed,
    )
    from .generation import Generation
    from .lifecycle.workers import list_workers, stop_worker
    from .masks.refinement import Refinement
    from .results import Segmentation
    from .video.tracked_frame import TrackedFrame
    from .video.tracks import Track

_HOME = {
    "AsyncSa2VA": "asynchronous",
    "Cancellation": "cancellation",
    "Sa2VA": "client",
    "Generation": "generation",
    "Refinement": "masks.refinement",
    "Segmentation": "results",
    "Track": "video.tracks",
    "TrackedFrame": "video.tracked_frame",
    "list_workers": "lifecycle.workers",
    "stop_worker": "lifecycle.workers",
    "Cancelled": "errors",
    "ConfigError": "errors",
    "DeadlineExceeded": "errors",
    "InvalidInput": "errors",
    "ModelLoadFailed": "errors",
    "ModelNotFound": "errors",
    "OutOfMemory": "errors",
    "ProtocolMismatch": "errors",
    "Sa2VAError": "errors",
    "UnloadRefused": "errors",
    "WorkerBusy": "errors",
    "WorkerDied": "errors",
    "WorkerError": "errors",
    "WorkerStalled": "errors",
    "WorkerStartFailed": "errors",
}

__all__ = [
    "AsyncSa2VA",
    "Cancellation",
    "Cancelled",
    "ConfigError",
    "DeadlineExceeded",
    "Generation",
    "InvalidInput",
    "ModelLoadFailed",
    "ModelNotFound",
    "OutOfMemory",
    "ProtocolMismatch",
    "Refinement",
    "Sa2VA",
    "Sa2VAError",
    "Segmentation",
    "Track",
    "TrackedFrame",
    "UnloadRefused",
    "WorkerBusy",
    "WorkerDied",
    "WorkerError",
    "WorkerStalled",
    "WorkerStartFailed",
    "list_workers",
    "stop_worker",
]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that holds it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
