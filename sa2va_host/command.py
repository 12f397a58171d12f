"""The `sa2va` program's first lines. It imports nothing else, so that Ctrl-C ends it quietly from here on, however much
is still to be imported.
"""

from __future__ import annotations

import contextlib
import sys

CANCELLED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the signal's number."""


def main() -> int:
    """Run the front end that the command line names (`sa2va_host.plugins.manager.main`)."""
    try:
        from sa2va_host.plugins.manager import main as run

        return run()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError, AttributeError):
            sys.stderr.write("Cancelled.\n")
        return CANCELLED
