"""Standard streams that cannot fail a command: ones that were closed before it began, a stderr that breaks, a terminal
that knows ASCII alone. On a terminal, control characters of file names, checkpoints and answers are spelled.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from sa2va_host.machine.terminal import escape_controls


def prepare() -> None:
    """Make the process's own streams safe to write to. Streams that somebody put in their place stay as they are."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # Python's word for a descriptor that was closed
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
        if sys.stdout.isatty():
            sys.stdout = _Spelled(io.FileIO(sys.stdout.fileno(), "w", closefd=False), sys.stdout.encoding)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        kind = _Spelled if sys.stderr.isatty() else _LineWise
        sys.stderr = kind(_Unfailing(sys.stderr.fileno(), "w", closefd=False), sys.stderr.encoding)


def obeyed(stream: TextIO) -> TextIO:
    """The same stream for what a terminal is to obey, as the control characters of a progress bar."""
    return stream.obeyed if isinstance(stream, _Spelled) else stream


class _LineWise(io.TextIOWrapper):
    """Writes each line at once, and spells what its encoding lacks."""

    def __init__(self, file: io.FileIO, encoding: str) -> None:
        super().__init__(
            io.BufferedWriter(file), encoding, "backslashreplace", line_buffering=True, write_through=True
        )


class _Spelled(_LineWise):
    """Spells control characters: on a terminal they would move the cursor, set titles, or hide what was written."""

    def __init__(self, file: io.FileIO, encoding: str) -> None:
        super().__init__(file, encoding)
        self.obeyed = _LineWise(file, encoding)

    def write(self, text: str, /) -> int:
        super().write(escape_controls(text))
        return len(text)


class SpellingProxy:
    """The same for a stream that somebody else put in the place of ours."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, spelled."""
        self._stream.write(escape_controls(text))
        return len(text)


class _Unfailing(io.FileIO):
    """Loses what cannot be written: what is told beside the answer must not cost the answer."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)
