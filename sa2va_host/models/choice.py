"""Which model answers when nobody named one: the setting ``model = "auto"``.

Nothing is downloaded on the way. Checkpoints have tens of gigabytes: on a metered line, a full disk or a cluster
without a network the first call would seem to hang, and that is for a person to start. So the best checkpoint that is
here answers, else the bundled model, and `recommend` says what to fetch.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from sa2va_host.config import Settings, load_settings
from sa2va_host.errors import ModelNotFound, Sa2VAError
from sa2va_host.machine.environments import environment_of
from sa2va_host.machine.nvidia import find_driver
from sa2va_host.machine.worker_program import worker_identity
from sa2va_host.protocol.specification import AUTO, QUANTIZATIONS, Specification

from . import unsupported
from .checkpoints import Found, check_pin, find, find_all, is_hub_name, is_path, pull_command
from .identity import checkpoint_identity
from .own_code import find_own_code

if TYPE_CHECKING:
    from sa2va_host.plugins.hookspecs import KnownModel

_log = logging.getLogger("sa2va_host")
BUNDLED = "sa2va-tiny"
LARGE = "ByteDance/Sa2VA-Qwen3-VL-4B"
"""The checkpoint that `recommend` would have a GPU run at least, with rounded weights where it must."""


class Choice(msgspec.Struct, frozen=True):
    """The model that settings mean, and why; no reason is given for a model that the user named."""

    model: str
    reason: str = ""
    fallback: bool = False
    """Whether `BUNDLED` was taken because nothing better is here or fits: it knows drawn shapes only."""


class Recommendation(msgspec.Struct, frozen=True):
    """A checkpoint that this machine should have."""

    model: str
    """`ORG/NAME`."""
    quantization: str
    """What to run it with: ``none``, ``8bit`` or ``4bit``."""
    command: str
    """What to type: `sa2va pull NAME`, with the paths of this installation. For a checkpoint that is here already, the
    options that choose it.
    """
    reason: str
    """One sentence: what it takes and how it suits this machine."""
    installed: bool = False
    """Whether it is on this machine already."""


def gpu_memory() -> int:
    """Bytes of memory of the largest NVIDIA GPU, in use or not; 0 where there is none or CUDA may not see it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", AUTO).strip() in ("", "-1"):
        return 0
    driver = find_driver()
    if driver is None:
        return 0
    import psutil

    # A GPU that does not tell shares the computer's memory.
    return max((gpu.memory or psutil.virtual_memory().total for gpu in driver.gpus), default=0)


def choose(settings: Settings, memory: Callable[[], int] = gpu_memory) -> Choice:
    """The model that settings mean: the one they name, else the best checkpoint here that fits, else `BUNDLED`.

    Only known checkpoints count (`known_models`) that are here whole and run natively. The one with the most parameters
    is the best; of equals, the first of the table. It fits where it takes less than the GPU has in total, by the memory
    that `known_models.memory` gives for the setting ``quantization``. Without an NVIDIA GPU none fits: a Mac's GPU
    gets `BUNDLED` too, since nobody has measured a larger model there. ``memory`` says what `gpu_memory` says.
    """
    if settings.model != AUTO:
        return Choice(settings.model)
    has, where = _room(settings, memory)
    if not has:
        return Choice(
            BUNDLED, f"{where}; larger checkpoints need an NVIDIA GPU with enough memory.", fallback=True
        )
    from .known_models import memory as memory_of

    here = sorted(_installed(settings), key=lambda each: -each[0].parameters)
    for known, found in here:
        if 0 < memory_of(known, settings.quantization) < has:
            return Choice(
                known.name, f"{where}, and it is the largest known checkpoint here that fits: {found.folder}."
            )
    if not here:
        return Choice(BUNDLED, f"{where}, but no known checkpoint is on this machine.", fallback=True)
    size, smallest = min(
        ((memory_of(known, settings.quantization), known) for known, _ in here), key=lambda each: each[0]
    )
    return Choice(BUNDLED, f"{_need(smallest, settings.quantization, size)}, and {where}.", fallback=True)


def recommend(settings: Settings, memory: Callable[[], int] = gpu_memory) -> Recommendation | None:
    """The known checkpoint that this machine should run instead of `BUNDLED`, and how to get it.

    For a GPU it is the largest that fits, in 16 bits where at least as large a one as `LARGE` fits so, else in 8bit,
    else in 4bit, never with less rounding than the settings ask for. It fits where both what is published and what its
    parameters mean is less than the GPU has in total, so that `choose` takes it once it is here. Where there is no GPU,
    or none fits, it is the smallest. None where no checkpoint with a known memory can be had.
    """
    from .known_models import TABLE
    from .known_models import memory as memory_of

    here = {known.name: known for known, _ in _installed(settings)}
    known_all = {known.name: known for known in _to_fetch(settings)} | here
    ranked = sorted(
        (known for known in known_all.values() if memory_of(known, "none")),
        key=lambda known: -known.parameters,
    )
    if not ranked:
        return None
    has, where = _room(settings, memory)
    words = QUANTIZATIONS[QUANTIZATIONS.index(settings.quantization) :]
    fitting = [
        (known, quantization)
        for quantization in words
        for known in ranked
        if 0 < _careful(known, quantization) < has
    ]
    if not fitting:
        small, installed = min(
            ((known, known.name in here) for known in ranked),
            key=lambda each: (not each[1], each[0].parameters),
        )
        slow = f"{where}, so it would run on the CPU, which is slow"
        slow += " (`--device cpu`)" if has else ""
        return _recommendation(settings, small, settings.quantization, slow, installed)
    enough = next(known.parameters for known in TABLE if known.name == LARGE)
    large = [each for each in fitting if each[0].parameters >= enough]
    # By size, then by how little is rounded: `fitting` begins with the least.
    known, quantization = large[0] if large else max(fitting, key=lambda each: each[0].parameters)
    fits = f"{_need(known, quantization, _careful(known, quantization))}, and {where}"
    return _recommendation(settings, known, quantization, fits, known.name in here)


def _recommendation(
    settings: Settings, known: KnownModel, quantization: str, why: str, installed: bool
) -> Recommendation:
    rounded = f" --quantization {quantization}" if quantization != settings.quantization else ""
    own = settings.models.get(known.name)
    if installed:
        how = f"--model {known.name}{rounded}"
        return Recommendation(known.name, quantization, how, f"It is on this machine: {why}.", installed=True)
    size = f"The download has {known.download / 1e9:.1f} GB; " if known.download else ""
    then = f"; run it with{rounded}" if rounded else ""
    return Recommendation(
        known.name,
        quantization,
        pull_command(known.name, own.revision if own else ""),
        _sentence(f"{size}{why}{then}"),
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _room(settings: Settings, memory: Callable[[], int]) -> tuple[int, str]:
    """Bytes of memory of the GPU that the settings may use, 0 where they may use none; and that in words."""
    if settings.device in ("cpu", "mps"):
        return 0, f"the device is {settings.device}"
    has = memory()
    return has, f"the GPU has {has / 1e9:.1f} GB" if has else "there is no NVIDIA GPU"


def _careful(known: KnownModel, quantization: str) -> int:
    """Bytes that a model takes with a call at work: what is published is often the weights alone, or less."""
    from .known_models import computed_memory
    from .known_models import memory as memory_of

    return max(memory_of(known, quantization), computed_memory(known, quantization))


def _need(known: KnownModel, quantization: str, size: int) -> str:
    rounded = "" if quantization == "none" else f" in {quantization}"
    return f"{known.name} takes about {size / 1e9:.1f} GB{rounded}"


def _installed(settings: Settings) -> list[tuple[KnownModel, Found]]:
    """The known checkpoints on this machine that are whole and run natively, in the table's order."""
    from .known_models import known_models

    names = {each.name for each in find_all(settings.model_folders) if each.source != "bundled"}
    ours = known_models(settings)
    known_here = {model.name for model in ours} | {model.name.rpartition("/")[2] for model in ours}
    # Plugins are asked only about what nobody else knows: loading them costs more than all the rest.
    candidates = known_models(settings, _plugged()) if names - known_here else ours
    found = (_find(settings, known) for known in candidates)
    return [each for each in found if each is not None]


def _find(settings: Settings, known: KnownModel) -> tuple[KnownModel, Found] | None:
    """Where a known checkpoint is on this machine, and with the parameters of its files where nobody told them; None
    unless it is whole, and runs without code of its own.
    """
    from .known_models import TABLE

    try:
        own = load_settings(base=settings, model=known.name)
        found = find(own.model, revision=own.revision, folders=own.model_folders)
        contents = found.contents
        if contents.problem or unsupported.refusal(known.name) or unsupported.refusal_of(contents):
            return None
        # A plugin's family may run what ours do not; only the worker can tell.
        is_ours = any(known.name == each.name for each in TABLE)
        if not contents.is_native and (is_ours or find_own_code(contents)):
            return None
        if not known.parameters:
            known = dataclasses.replace(known, parameters=contents.parameters)
    except Sa2VAError:
        return None
    return known, found


def _to_fetch(settings: Settings) -> list[KnownModel]:
    """The known checkpoints that the hub has and that run here, in the table's order."""
    from .known_models import known_models

    return [
        known
        for known in known_models(settings, _plugged())
        if is_hub_name(known.name)
        and not unsupported.refusal(known.name)
        and not (known.name in settings.models and settings.models[known.name].path)
    ]


def _plugged() -> Iterable[KnownModel]:
    from sa2va_host.plugins.manager import create_manager, find_known_models

    return find_known_models(create_manager()).values()


def specify(settings: Settings) -> Specification:
    """The specification that these settings ask for: two names of one checkpoint give one specification, two folders
    that hold the same checkpoint two with one key.

    Raises `ModelNotFound`, `ModelLoadFailed` for a checkpoint that is known not to run here (`unsupported`), or
    `ConfigError` for a revision where there is none. A model with a colon in its name (and no path) is none of ours:
    the worker's program is given it as it stands.
    """
    if settings.model == AUTO:
        settings = load_settings(base=settings, model=choose(settings).model)
    model, revision = settings.model, settings.revision
    identity = ""
    if ":" not in model or is_path(model):
        found = _supported(settings)
        if settings.trust_remote_code:
            check_pin(found, revision)
        model, revision = str(found.folder), found.revision
        identity = checkpoint_identity(found.folder)
    decoder = settings.tracker_decoder
    tracker = str(find(decoder, folders=settings.model_folders).folder) if decoder else ""
    return Specification(
        checkpoint=model,
        revision=revision,
        device=settings.device,
        dtype=settings.dtype,
        attention=settings.attention,
        quantization=settings.quantization,
        trust_remote_code=settings.trust_remote_code,
        tracker_decoder=tracker,
        identity=identity,
        tracker_identity=checkpoint_identity(tracker) if tracker else "",
        program=worker_identity(),
        interpreter=environment_of(settings.worker_python) if settings.worker_python else "",
    )


def refreshed(specification: Specification) -> Specification:
    """The same request for what its folders, and the worker's program, hold by now. Takes some 0.5 ms."""
    tracker = specification.tracker_decoder
    return msgspec.structs.replace(
        specification,
        identity=checkpoint_identity(specification.checkpoint) if specification.identity else "",
        tracker_identity=checkpoint_identity(tracker) if tracker else "",
        program=worker_identity(),
    )


def _supported(settings: Settings) -> Found:
    """The checkpoint that the settings name. Raises as `specify`, by its name alone where it is not here."""
    trusted = settings.trust_remote_code
    try:
        found = find(settings.model, revision=settings.revision, folders=settings.model_folders)
    except ModelNotFound:
        if is_hub_name(settings.model):
            check_name(settings.model, trusted=trusted)
        raise
    # The settings file may give a folder the name of what is in it.
    names = [settings.model, *(name for name, own in settings.models.items() if own.path == settings.model)]
    whys = (unsupported.refusal(name, trusted=trusted) for name in names)
    why = next(filter(None, whys), "") or unsupported.refusal_of(found.contents, trusted=trusted)
    if why and not _is_claimed(found):
        raise unsupported.error(found.name, why)
    if found.contents.adapter is not None:
        raise found.contents.adapter
    if found.note:
        _log.warning("%s", found.note)
    return found


def check_name(model: str, *, trusted: bool = False) -> None:
    """Raise `ModelLoadFailed` for a model of the hub that is known not to run here, unless a plugin knows it.

    ``trusted``: the checkpoint's own code may run.
    """
    why = unsupported.refusal(model, trusted=trusted)
    if why and all(known.name.lower() != model.lower() for known in _plugged()):
        raise unsupported.error(model, why)


def _is_claimed(found: Found) -> bool:
    """Whether a plugin's family runs a checkpoint; what a plugin raises is a no."""
    from sa2va_host.plugins.manager import create_manager, find_model_families

    try:
        return any(
            family.claims(found.contents.config) for family in find_model_families(create_manager()).values()
        )
    except Exception:  # noqa: BLE001 - foreign code
        return False
