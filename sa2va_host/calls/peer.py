"""The worker process that a link is connected to, and how it does."""

from __future__ import annotations

import contextlib

from sa2va_host.errors import WorkerError
from sa2va_host.lifecycle.connection import Connection
from sa2va_host.lifecycle.rendezvous import ExitNote, RunDirectory
from sa2va_host.lifecycle.watchdog import Verdict, Watchdog
from sa2va_host.machine import processes


class Peer:
    """Connection, run directory and watchdog of one worker process. Used on the link's thread."""

    def __init__(self, connection: Connection, run: RunDirectory, watchdog: Watchdog) -> None:
        self.connection = connection
        self.run = run
        self.watchdog = watchdog
        self._ended = False

    def end(self, verdict: Verdict) -> None:
        """Kill it, once, and write down why; its death is noticed like any other."""
        if self._ended:
            return
        record = self.connection.record
        note = ExitNote(
            reason=verdict.what,
            # While it loads, the next worker would hang in the same place.
            resend=self.watchdog.loaded,
            code=verdict.code,
            message=f"The worker (pid {self.connection.pid}) {verdict.what}.",
            advice="The next call starts a new one. For very slow machines raise stall_limit and cancel_grace.",
        )
        with contextlib.suppress(OSError):
            self.run.write_exit(record.incarnation, note, unless_known=True)
        with contextlib.suppress(WorkerError):  # who belongs to it is unknown now; it is asked for again
            processes.signal_group(record.process, kill=True)
            self._ended = True
