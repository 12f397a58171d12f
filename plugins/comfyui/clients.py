"""The clients that all nodes of this ComfyUI share: one for each model and its options, made when a node needs it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from sa2va_host.errors import ModelNotFound, WorkerStartFailed
from sa2va_host.protocol.specification import AUTO

from .options import Options
from .watch import deliver

if TYPE_CHECKING:
    from sa2va_host import Sa2VA
    from sa2va_host.config import Settings
    from sa2va_host.machine.distribution import Missing

INTERRUPT_GRACE = 1.0
"""How many seconds the step of an interrupted call may go on before the worker is ended, where the user's settings do
not say `cancel_grace`: Interrupt is for what hangs.
"""
KEPT = 4
"""How many clients stay open, each with a thread and a socket; the one that was not used for longest goes."""

_lock = threading.Lock()
_clients: OrderedDict[tuple[str, Options, tuple[str, ...]], Sa2VA] = OrderedDict()


def client(model: str, options: Options) -> Sa2VA:
    """The client for a model of the list and these options. Starts no process.

    Raises what `Sa2VA` raises, and `WorkerStartFailed` where no Python is known that could run the worker.
    """
    from sa2va_host import Sa2VA

    from .model_list import advice, model_folders

    folders = model_folders()
    key = (model, options, folders)
    with _lock:
        if key in _clients:
            _clients.move_to_end(key)
            return _clients[key]
        settings = _settings(model, options, folders)
        try:
            made = Sa2VA(settings=settings, on_event=deliver)
        except ModelNotFound as error:
            raise ModelNotFound(error.message, advice=advice(model, error.advice)) from error
        if not made.settings.worker_python and not made.status():
            try:
                check_missing()
            except WorkerStartFailed:
                made.close()
                raise
        _clients[key] = made
        while len(_clients) > KEPT:
            _clients.popitem(last=False)[1].close()
        return made


def latest_model() -> str:
    """The model that a node used last, whose worker is the one to be shared; `auto` where none was."""
    with _lock:
        return next(reversed(_clients))[0] if _clients else AUTO


def close_all() -> None:
    """Let go of every worker; they live on as their keep-alive says."""
    with _lock:
        while _clients:
            _clients.popitem()[1].close()


def missing_here(installed: Callable[[list[str]], dict[str, str | None]] | None = None) -> list[Missing]:
    """What ComfyUI's own Python lacks to run the worker itself; looks at metadata alone."""
    from sa2va_host.machine.distribution import WORKER, installed_versions, requirements, unmet

    needed = requirements(WORKER)
    names = [requirement.name for requirement in needed]
    return unmet(needed, (installed or installed_versions)(names))


def _settings(model: str, options: Options, folders: tuple[str, ...]) -> Settings:
    from sa2va_host.config import load_settings, origins

    settings = load_settings(
        model=model,
        quantization=options.quantization,
        attention=options.attention,
        dtype=options.dtype,
        device=options.device,
        keep_alive=options.keep_alive,
        worker_python=options.worker_python,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
    )
    said = origins()["cancel_grace"] != "default"
    return load_settings(base=settings, model_folders=folders, cancel_grace=None if said else INTERRUPT_GRACE)


def check_missing() -> None:
    """Refuse where ComfyUI's own Python is to run the worker and cannot, before a process is started that could only
    fail, or gigabytes are fetched in vain. Raises `WorkerStartFailed`, with the one command that helps.
    """
    if not (missing := missing_here()):
        return
    from sa2va_host.machine.commands import pip_command, sa2va_command
    from sa2va_host.machine.distribution import are_small

    small = are_small(missing)
    run = pip_command([each.requirement for each in missing]) if small else sa2va_command("setup")
    raise WorkerStartFailed(
        f"Sa2VA's worker has no environment yet, and ComfyUI's own lacks {', '.join(map(str, missing))}.",
        advice=f"Run this once in a terminal, then queue again: {run}",
    )
