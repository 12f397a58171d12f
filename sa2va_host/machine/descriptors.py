"""A shortage of file descriptors, told as an error of ours wherever it shows.

It can show anywhere: a module that is imported late, a socket, a directory that is listed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from errno import EMFILE, ENFILE

from sa2va_host.errors import Sa2VAError, WorkerError

_SHORTAGES = (EMFILE, ENFILE)


@contextlib.contextmanager
def reporting_shortage() -> Iterator[None]:
    """Raise `WorkerError` where this process, or the whole system, has no file descriptor left; also as a decorator.

    Other errors pass unchanged. A module that cannot be loaded for that reason raises `ImportError` with the system's
    words; a thread that waited for another one to load it gets the half-loaded module from CPython, and fails for want
    of a name in it.
    """
    try:
        yield
    except Sa2VAError:  # some are an OSError too
        raise
    except (OSError, ImportError) as error:
        if not is_shortage(error):
            raise
        raise _shortage(error) from error


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that this process, or the whole system, has no file descriptor left."""
    if isinstance(error, OSError):
        return error.errno in _SHORTAGES
    if isinstance(error, ImportError):
        return _is_half_loaded(error) or any(os.strerror(each) in str(error) for each in _SHORTAGES)
    return False


def _is_half_loaded(error: ImportError) -> bool:
    """Whether a name is missing in a module of ours, which has it when it is loaded whole."""
    ours = (error.name or "").partition(".")[0] == __name__.partition(".")[0]
    return ours and not isinstance(error, ModuleNotFoundError)


def _shortage(error: Exception) -> WorkerError:
    return WorkerError(
        f"This process has no file descriptor left: {error}.",
        advice="Close files, or raise its limit (ulimit -n).",
    )
