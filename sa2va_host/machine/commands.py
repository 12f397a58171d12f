"""Commands that a sentence gives the user to paste: whole, for this installation, quoted for this system's shell."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from sa2va_host.errors import ConfigError

SETUP_VARIABLE = "SA2VA_SETUP_COMMAND"
"""The variable in which a worker finds the command that makes it an environment: it may run in a Python without us."""


def joined(words: Sequence[str]) -> str:
    """The words as one line for a shell: `cmd` and PowerShell on Windows, POSIX elsewhere."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def sa2va_command(*words: str) -> str:
    """`sa2va WORD ...` as it can be typed here: by its name where the shell finds this installation's own, by its path
    where it does not, or by the folder of a clone that is not installed.
    """
    from . import clone

    folder = clone.folder()
    if folder is not None:
        return joined([sys.executable, str(folder), *words])
    script = Path(sysconfig.get_path("scripts")) / ("sa2va.exe" if sys.platform == "win32" else "sa2va")
    if not script.is_file():
        return joined([sys.executable, "-m", "sa2va_plugins", *words])
    found = shutil.which("sa2va")
    return joined(["sa2va" if found and Path(found).samefile(script) else str(script), *words])


def setup_command() -> str:
    """What makes the worker an environment: as the host said it where this is a worker, else as it is said here."""
    return os.environ.get(SETUP_VARIABLE) or sa2va_command("setup")


def pip_command(packages: Iterable[str], python: str = "", *, has_pip: bool | None = None) -> str:
    """The command that installs packages for a Python (this one by default).

    ``has_pip``: whether pip is there, None looks in this Python. An environment that uv made has none, and uv installs
    into it from outside.
    """
    if find_spec("pip") is not None if has_pip is None else has_pip:
        return joined([python or sys.executable, "-m", "pip", "install", *packages])
    return joined(["uv", "pip", "install", "--python", python or sys.executable, *packages])


def extra_command(extra: str, *more: str) -> str:
    """The command that brings what an extra of ours needs into this Python; by the extra's name where our metadata is
    not here. ``more``: requirements besides.
    """
    from .distribution import DISTRIBUTION, requirements

    try:
        packages = [f"{each.name}{each.specifier}" for each in requirements(extra)]
    except ConfigError:
        packages = [f"{DISTRIBUTION}[{extra}]"]
    return pip_command([*packages, *more])
