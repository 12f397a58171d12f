"""Which environment an interpreter belongs to, by its path alone: nothing is run."""

from __future__ import annotations

import os
from pathlib import Path


def environment_of(python: str) -> str:
    """The folder of a virtual environment, or where the interpreter is in none, its own path without links.

    Whichever of an environment's names is given (`bin/python`, `bin/python3`), the answer is one. ``python`` is a path,
    or a name in PATH as the setting `worker_python` takes it.
    """
    path = python
    if os.sep not in python:
        from shutil import which

        path = which(python) or python
    try:
        # Not the program's own folder: a virtual environment links to the Python that it was made with.
        folder = Path(path).absolute().parent.resolve()
        for each in (folder, folder.parent):
            if (each / "pyvenv.cfg").is_file():
                return str(each)
        return str(Path(path).resolve())
    except (OSError, ValueError, RuntimeError):
        return path
