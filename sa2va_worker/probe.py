"""Tells what an interpreter has for the worker: ``python .../sa2va_worker/probe.py DISTRIBUTION ...``.

Run by `sa2va_host.interpreters` as the worker itself is run: by this file, in the interpreter in question, with nothing
of ours on ``sys.path``. Imports what the worker imports, starts none, and prints one JSON object. Whatever fails is
part of the answer, so this file needs nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import platform
import runpy
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def probe(distributions: list[str]) -> dict[str, Any]:
    """The fields of `sa2va_host.interpreters.Interpreter`."""
    found: dict[str, Any] = {
        "executable": sys.executable,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in distributions},
        "error": "",
    }
    try:
        runpy.run_path(str(HERE / "__main__.py"))["register_packages"](HERE.parent)
        import sa2va_worker.engine
        import sa2va_worker.process  # noqa: F401 - what is asked is whether it can be imported
    except BaseException as error:  # noqa: BLE001 - a library may even leave the process; that is the answer then
        found["error"] = _sentence(error)
    try:
        import torch

        found["cuda"] = torch.version.cuda or ""
        found["hip"] = torch.version.hip or ""
        found["devices"] = [
            f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())
        ]
        if torch.backends.mps.is_available():
            found["devices"].append("mps")
    except Exception as error:  # noqa: BLE001 - as above
        found["error"] = found["error"] or _sentence(error)
    return found


def _sentence(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    if sys.path and Path(sys.path[0] or ".").resolve() == HERE:
        del sys.path[0]  # as in __main__.py
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)  # libraries that print while they are imported do not spoil the answer
        json.dump(probe(sys.argv[1:]), answer)
