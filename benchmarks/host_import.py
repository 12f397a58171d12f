"""What importing the host costs a program, above the start of a bare interpreter."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from .figures import Figure, Plan, times

CODE = {
    "import sa2va_host": "import sa2va_host",
    "from sa2va_host import Sa2VA": "from sa2va_host import Sa2VA",
    "sa2va --help": "from sa2va_plugins.command import main; main(['--help'])",
}


def measure(plan: Plan) -> list[Figure]:
    """Times above those of an interpreter that does nothing, each in a fresh process."""
    (name, *names), (bare, *rest) = (
        ["bare interpreter", *CODE],
        times(plan.repeat, *(partial(_run, code) for code in ("pass", *CODE.values()))),
    )
    idle = Figure(f"{name}, whole process", bare)
    above = [tuple(second - idle.median for second in seconds) for seconds in rest]
    return [
        idle,
        *(Figure(f"{name}, above it", taken, 0.1) for name, taken in zip(names, above, strict=True)),
    ]


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
