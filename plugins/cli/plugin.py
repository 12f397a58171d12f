"""The command line as a plugin. Importing this loads nothing but the registration, so that plugins are found fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sa2va_host.plugins.hookspecs import FrontEnd, hookimpl


@hookimpl
def register_front_ends(register: Callable[[FrontEnd], None]) -> None:
    """Called by the plugin manager."""
    register(FrontEnd(name="cli", summary="the sa2va command", run=_run))


def _run(arguments: Sequence[str]) -> int:
    from .main import main

    return main(arguments)
