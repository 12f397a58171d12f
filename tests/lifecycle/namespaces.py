"""Making PID namespaces, as a container has one."""

from __future__ import annotations

import functools
import subprocess

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Runs a command in a namespace of its own, which ends with this process."""


@functools.cache
def can_be_made() -> bool:
    """It takes unshare and root."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
