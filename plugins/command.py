"""The `sa2va` program's first lines. Nothing else is imported with them, so that Ctrl-C ends it quietly from here on,
however much is still to be imported.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence

CANCELLED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the signal's number."""
_SWITCHES = ("SA2VA_DISABLE_PLUGINS", "SA2VA_TRACE_HOOKS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, which is the process's own unless `arguments` are given; returns the exit code."""
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        gc.freeze()  # the process ends: looking for garbage in its libraries would take as long as importing them did
        return code
    except KeyboardInterrupt:
        with contextlib.suppress(OSError, AttributeError):
            sys.stderr.write("Cancelled.\n")
        return CANCELLED


def _run(words: list[str]) -> int:
    """The front end that the first word names, else the one named `cli`.

    The command's own words are nobody else's, so no plugin is looked for then: that would take longer than the rest of
    the start. Where plugins are switched, `cli` is one like any other.
    """
    from .cli.main import COMMANDS
    from .cli.main import main as cli

    own = not words or words[0] in COMMANDS or words[0].startswith("-")
    if own and not any(os.environ.get(name) for name in _SWITCHES):
        return cli(words)
    from sa2va_host.plugins.manager import create_manager, find_front_ends

    front_ends = find_front_ends(create_manager())
    if not own and words[0] in front_ends:
        return front_ends[words[0]].run(words[1:])
    if "cli" not in front_ends:
        print("The command line is the plugin named 'cli', and it is switched off.", file=sys.stderr)  # noqa: T201
        return 2
    return front_ends["cli"].run(words)
