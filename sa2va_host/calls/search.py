"""How a link comes to its worker: it is found or started on a thread of its own, since that waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sa2va_host.errors import OutOfMemory
from sa2va_host.lifecycle.rendezvous import Record, RunDirectory
from sa2va_host.machine.descriptors import reporting_shortage

Full = tuple[OutOfMemory, float]
"""Why a worker found no memory for its model, and until when others are waited for, on the monotonic clock."""
Connect = Callable[
    [Callable[[], bool], Callable[[], None], Full | None], tuple[Record, RunDirectory] | OutOfMemory
]
"""Finds or starts the worker: given ``cancelled`` and ``starting`` as `launcher.ensure_worker` wants them, and that the
last one found no memory, if it did not. Returns `OutOfMemory` where the new one has gone for that reason already, and
raises it where nobody makes way.
"""


class Search:
    """One search at a time. Used on the link's thread, where ``tell`` has a function called."""

    def __init__(self, connect: Connect, tell: Callable[[Callable[[], None]], None]) -> None:
        self._connect = connect
        self._tell = tell
        self.runs = False
        self.full: Full | None = None
        """What the next search is told of the last worker."""

    def begin(
        self,
        *,
        given_up: Callable[[], bool],
        starting: Callable[[], None],
        found: Callable[[tuple[Record, RunDirectory] | OutOfMemory], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Search until ``given_up()``. ``starting`` is called before a process is started, another one at last."""
        self.runs = True
        full, self.full = self.full, None

        def end(then: Callable[[], None]) -> None:
            self.runs = False
            then()

        def search() -> None:
            try:
                with reporting_shortage():
                    result = self._connect(given_up, lambda: self._tell(starting), full)
            except BaseException as error:  # noqa: BLE001 - it belongs to the callers
                failure = error
                self._tell(lambda: end(lambda: failed(failure)))
            else:
                self._tell(lambda: end(lambda: found(result)))

        threading.Thread(target=search, name="sa2va-connect", daemon=True).start()
