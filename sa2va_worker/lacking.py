"""What is said where this Python cannot import a model: what it lacks, and the one command that brings it."""

from __future__ import annotations

import sys

from sa2va_host.errors import ConfigError, ModelLoadFailed
from sa2va_host.machine.commands import pip_command, sa2va_command
from sa2va_host.machine.distribution import (
    REMOTE_CODE,
    WORKER,
    Missing,
    are_small,
    installed_versions,
    requirements,
    unmet,
)


def cannot_import(error: ImportError, extra: str = WORKER) -> ModelLoadFailed:
    """The error for an engine whose libraries cannot be imported. ``extra``: of which of ours they are.

    What is missing beside PyTorch and transformers is small, and pip adds it. Without one of those there is no
    environment for the worker, which `sa2va setup` makes.
    """
    cause: BaseException = error
    while cause.__cause__ is not None:  # transformers hides what is missing behind a question
        cause = cause.__cause__
    setup = sa2va_command("setup", *([extra] if extra != WORKER else []))
    missing = _missing(extra, cause)
    listed = ", ".join(map(str, missing))
    if missing and are_small(missing):
        install = pip_command([each.requirement for each in missing], sys.executable)
        return ModelLoadFailed(
            f"The worker's Python {sys.executable} lacks {listed}.", advice=f"Run: {install}"
        )
    if missing and extra == WORKER and not _missing(REMOTE_CODE):
        return ModelLoadFailed(
            f"The worker's Python {sys.executable} cannot import our models: it lacks {listed}.",
            advice="It is an environment for checkpoints that bring their own code (--trust-remote-code). For others"
            f" run: {setup}",
        )
    if missing:
        return ModelLoadFailed(
            f"There is no environment for the worker yet: {sys.executable} lacks {listed}.",
            advice=f"Make one with: {setup}",
        )
    return ModelLoadFailed(
        f"The worker's Python {sys.executable} cannot import our models: {cause}.",
        advice=f"A library there is broken. Make another environment with: {setup} --path DIR",
    )


def _missing(extra: str, cause: BaseException | None = None) -> list[Missing]:
    """By the metadata of this distribution; where it is not installed here, the module that the import asked for."""
    try:
        needed = requirements(extra)
    except ConfigError:
        name = cause.name if isinstance(cause, ModuleNotFoundError) else None
        return [Missing(name.partition(".")[0])] if name else []
    return unmet(needed, installed_versions(each.name for each in needed))
