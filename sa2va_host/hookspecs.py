"""Every hook that a plugin can implement. A plugin is found by an entry point of the group `sa2va`.

::

    from sa2va_host.hookspecs import FrontEnd, hookimpl

    @hookimpl
    def register_front_ends(register):
        register(FrontEnd(name="web", summary="a small web page", run=run))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pluggy

PROJECT = "sa2va"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class FrontEnd:
    """Something a person uses: `run` takes the command line's arguments and returns the exit code."""

    name: str
    summary: str
    run: Callable[[Sequence[str]], int]


@hookspec
def register_front_ends(register: Callable[[FrontEnd], None]) -> None:
    """Call `register` once for each front end. Import what it needs in its `run`, not here."""
