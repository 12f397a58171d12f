"""Commands that a sentence gives the user to paste: whole, for this installation, quoted for this system's shell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from sa2va_host.errors import ConfigError

COMMAND_VARIABLE = "SA2VA_COMMAND"
"""The variable in which a worker finds the `sa2va` of the host that started it: it may run in a Python without us."""
_PLAIN = re.compile(r"[\w.:/\\+=~@-]*")
"""Words that neither shell of Windows takes apart: in both `accelerate>=1.0` would write into a file."""


def joined(words: Sequence[str]) -> str:
    """The words as one line for a shell: `cmd` and PowerShell on Windows, POSIX elsewhere."""
    return " ".join(map(_for_windows, words)) if sys.platform == "win32" else shlex.join(words)


def sa2va_command(*words: str) -> str:
    """`sa2va WORD ...` as it can be typed here: by its name where the shell finds this installation's own, by its path
    where it does not, or by the folder of a clone that is not installed. In a worker it is the host's.
    """
    if said := os.environ.get(COMMAND_VARIABLE):
        return f"{said} {joined(words)}".rstrip()
    from . import clone

    folder = clone.folder()
    if folder is not None:
        return joined([sys.executable, str(folder), *words])
    script = Path(sysconfig.get_path("scripts")) / ("sa2va.exe" if sys.platform == "win32" else "sa2va")
    if not script.is_file():
        return joined([sys.executable, "-m", "sa2va_plugins", *words])
    found = shutil.which("sa2va")
    return joined(["sa2va" if found and Path(found).samefile(script) else str(script), *words])


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


def _for_windows(word: str) -> str:
    """`list2cmdline` quotes for programs alone; a shell stands before them, and quotes keep it from the rest."""
    return word if word and _PLAIN.fullmatch(word) else f'"{_escaped(word)}"'


def _escaped(word: str) -> str:
    """What stands between the quotes, so that a program's own reading of its arguments ends up with ``word``."""
    return re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ("\\" + '"' if found[2] else ""), word)
