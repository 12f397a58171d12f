"""Making PID namespaces, as a container has one, and giving numbers away in them."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from pathlib import Path

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Runs a command in a namespace of its own, which ends with this process."""


@functools.cache
def can_be_made() -> bool:
    """It takes unshare and root."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
_STRANGER = """
import signal, sys
came = []
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, lambda number, frame: came.append(number))
print("here", flush=True)
sys.stdin.read()
print(came, flush=True)
"""


class Stranger:
    """A process with the number ``pid``, which nobody has at this moment, and the leader of its group. Only in a PID
    namespace of our own, by whoever is root there.
    """

    def __init__(self, pid: int) -> None:
        while True:
            _LAST_PID.write_text(str(pid - 1))
            self._process = subprocess.Popen(
                [sys.executable, "-c", _STRANGER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            if self._process.pid == pid:
                break
            self._process.kill()  # another thread of ours was first
            self._process.communicate()
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def signals(self) -> list[str]:
        """Which came until now; its end."""
        came, _ = self._process.communicate()
        code = self._process.returncode
        return [signal.Signals(-code).name] if code < 0 else [came.strip()]
