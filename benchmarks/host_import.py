"""What importing the host costs a program, above the start of a bare interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from .figures import Figure


def measure(repeat: int) -> list[Figure]:
    """Times of `import sa2va_host`, of its `Sa2VA`, and of the command's help; each in a fresh process."""
    bare = statistics.median(_times([sys.executable, "-c", "pass"], repeat))
    figures = []
    for name, code in (
        ("import sa2va_host", "import sa2va_host"),
        ("from sa2va_host import Sa2VA", "from sa2va_host import Sa2VA"),
    ):
        seconds = _times([sys.executable, "-c", code], repeat)
        figures.append(Figure(f"{name}, above a bare interpreter", tuple(s - bare for s in seconds), 0.1))
    help_text = [sys.executable, "-c", "from sa2va_host.plugins.manager import main; main(['--help'])"]
    figures.append(Figure("sa2va --help, whole process", _times(help_text, repeat), 0.15))
    figures.append(Figure("bare interpreter, whole process", (bare,)))
    return figures


def _times(command: list[str], repeat: int) -> tuple[float, ...]:
    seconds = []
    for _ in range(repeat + 1):
        begun = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - begun)
    return tuple(seconds[1:])  # the first one compiles and fills the disk cache
