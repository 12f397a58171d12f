"""What is said where nobody named a model and the bundled one answers: it knows drawn shapes only."""

from __future__ import annotations

from collections.abc import Callable

from sa2va_host.config import Settings

from .choice import BUNDLED, Choice, gpu_memory, recommend


def notes_on(choice: Choice, settings: Settings, memory: Callable[[], int] = gpu_memory) -> tuple[str, ...]:
    """The notes that every answer of a model carries that was chosen so; none for a model that the user named.

    ``settings`` and ``memory`` are those that the choice was made for. Where no checkpoint that this machine can run is
    known, the reason of the choice stands in for the command.
    """
    if not choice.fallback:
        return ()
    said = f"No model was named, so {BUNDLED} answers. It knows drawn shapes only: on photographs its masks are wrong."
    found = recommend(settings, memory)
    if found is None:
        reason = choice.reason
        return (f"{said} {reason[:1].upper()}{reason[1:]}",)
    if found.installed:
        return (f"{said} For photographs use {found.command}. {found.reason}",)
    return (f"{said} For photographs run: {found.command} ({found.reason.rstrip('.')}.)",)
