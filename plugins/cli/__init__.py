"""The `sa2va` command. Importing this registers it and loads nothing else, so that plugins are listed quickly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sa2va_host.hookspecs import FrontEnd, hookimpl


@hookimpl
def register_front_ends(register: Callable[[FrontEnd], None]) -> None:
    """Called by the plugin manager."""
    register(FrontEnd(name="cli", summary="the sa2va command", run=_run))


def _run(arguments: Sequence[str]) -> int:
    from .main import main

    return main(arguments)
