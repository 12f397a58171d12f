"""The scripted worker (`tests/lifecycle/scripted_worker.py`) where an interpreter for the worker can be named."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "lifecycle" / "scripted_worker.py"


def scripted_python(folder: Path) -> Path:
    """A program in ``folder`` for the setting `worker_python`: whatever it is told to run, it runs the script."""
    program = folder / "worker-python"
    program.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))}\n")
    program.chmod(0o755)
    return program
