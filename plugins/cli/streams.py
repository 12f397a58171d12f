"""Standard streams that cannot fail a command: ones that were closed before it began, a stderr that breaks, a terminal
that knows ASCII alone.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any


def prepare() -> None:
    """Make the process's own streams safe to write to. Streams that somebody put in their place stay as they are."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # Python's word for a descriptor that was closed
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        encoding = sys.stderr.encoding
        unfailing = _Unfailing(sys.stderr.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(unfailing),
            encoding,
            "backslashreplace",
            line_buffering=True,
            write_through=True,
        )


class _Unfailing(io.FileIO):
    """Loses what cannot be written: what is told beside the answer must not cost the answer."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)
