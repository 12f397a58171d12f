"""Which model answers when nobody named one: the setting ``model = "auto"``.

Nothing is downloaded on the way. The checkpoint that a GPU deserves is ten gigabytes: on a metered line, a full disk or
a cluster without a network the first call would seem to hang, and that is for a person to start. So what is missing
is said, with the command that fetches it, and the bundled model answers meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from sa2va_host.config import Settings, load_settings
from sa2va_host.errors import ModelNotFound
from sa2va_host.machine.nvidia import find_driver
from sa2va_host.protocol.specification import AUTO, Specification

from .checkpoints import check_pin, find, is_path

BUNDLED = "sa2va-tiny"
LARGE = "ByteDance/Sa2VA-Qwen3-VL-4B"
LARGE_MEMORY = 10e9
"""Bytes of GPU memory that `LARGE` takes in 16 bit, as its authors publish."""


class Choice(msgspec.Struct, frozen=True):
    """The model that settings mean, and why; no reason is given for a model that the user named."""

    model: str
    reason: str = ""


def gpu_memory() -> int:
    """Bytes of memory of the largest NVIDIA GPU, in use or not; 0 where there is none or CUDA may not see it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", AUTO).strip() in ("", "-1"):
        return 0
    driver = find_driver()
    if driver is None:
        return 0
    import psutil

    # A GPU that does not tell shares the processor's memory.
    return max((gpu.memory or psutil.virtual_memory().total for gpu in driver.gpus), default=0)


def choose(settings: Settings, memory: Callable[[], int] = gpu_memory) -> Choice:
    """`LARGE` where an NVIDIA GPU has room for it and the checkpoint is on this machine, else `BUNDLED`.

    A Mac's GPU gets `BUNDLED` too: nobody has measured `LARGE` there. ``memory`` says what `gpu_memory` says.
    """
    if settings.model != AUTO:
        return Choice(settings.model)
    if settings.device in ("cpu", "mps"):
        return Choice(BUNDLED, f"the device is {settings.device}, and {LARGE} wants an NVIDIA GPU.")
    has = memory()
    if not has:
        return Choice(BUNDLED, f"there is no NVIDIA GPU, which {LARGE} wants.")
    if has < LARGE_MEMORY:
        return Choice(BUNDLED, f"the GPU has {has / 1e9:.0f} GB, and {LARGE} wants {LARGE_MEMORY / 1e9:.0f}.")
    try:
        own = load_settings(base=settings, model=LARGE)
        found = find(own.model, revision=own.revision, folders=own.model_folders)
    except ModelNotFound as missing:
        return Choice(BUNDLED, f"there is a GPU, but {missing}")
    return Choice(LARGE, f"there is a GPU, and the checkpoint is in {found.folder}.")


def specify(settings: Settings) -> Specification:
    """The specification that these settings ask for: two names of one checkpoint give one specification.

    Raises `ModelNotFound`, or `ConfigError` for a revision where there is none. A model with a colon in its name
    (and no path) is none of ours: the worker's program is given it as it stands.
    """
    model, revision = choose(settings).model, settings.revision
    if ":" not in model or is_path(model):
        found = find(model, revision=revision, folders=settings.model_folders)
        if settings.trust_remote_code:
            check_pin(found, revision)
        model, revision = str(found.folder), found.revision
    decoder = settings.tracker_decoder
    return Specification(
        checkpoint=model,
        revision=revision,
        device=settings.device,
        dtype=settings.dtype,
        attention=settings.attention,
        quantization=settings.quantization,
        trust_remote_code=settings.trust_remote_code,
        tracker_decoder=str(find(decoder, folders=settings.model_folders).folder) if decoder else "",
    )
