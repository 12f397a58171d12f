"""Many inputs, a few in work at once: what fails belongs to its own input, and the others are done.

Called by `segment`. Knows nothing of what is done with an input.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from errno import EDQUOT, ENOSPC, EROFS
from typing import TYPE_CHECKING, Generic, TypeVar

from sa2va_host.errors import (
    Cancelled,
    ModelLoadFailed,
    ProtocolMismatch,
    WorkerDied,
    WorkerStalled,
    WorkerStartFailed,
)

if TYPE_CHECKING:
    from sa2va_host.cancellation import Cancellation

Job = TypeVar("Job")
Result = TypeVar("Result")

AHEAD = 3
"""How many inputs are in work: while the worker has one, another is read and a third one written."""
_FOR_ALL = (Cancelled, ModelLoadFailed, ProtocolMismatch, WorkerStartFailed)
"""Errors that the next input would meet too."""
_NO_ROOM = (ENOSPC, EDQUOT, EROFS)
_MOST_DEATHS = 3
"""So many inputs in a row that the worker does not survive, and it is not their fault."""


class Batch(Generic[Job, Result]):
    """``do(job)`` for each job, and what came of each told to ``tell`` in order, as a result or an error of its own.

    An error that all inputs would meet (no worker can be started, the disk is full) ends the batch: `run` raises it
    after what is done by then has been told. So does Ctrl-C. `left` are the jobs of which nothing was told.
    """

    def __init__(self, do: Callable[[Job], Result], tell: Callable[[Job, Result | Exception], None]) -> None:
        self._do = do
        self._tell = tell
        self._retry = threading.Lock()
        self._alone = False
        self._deaths = 0
        self.left: list[Job] = []

    def run(self, jobs: Sequence[Job], cancellation: Cancellation) -> None:
        """Do them all; ``cancellation`` is what ``do`` hands to its calls, and ends them when the batch ends early."""
        self.left = list(jobs)
        self._alone = len(jobs) == 1
        with ThreadPoolExecutor(AHEAD, "sa2va-input") as pool:
            pending = [pool.submit(self._done, job) for job in jobs]
            try:
                for job, future in zip(jobs, pending, strict=True):
                    self._settle(job, future)
            finally:
                cancellation.cancel()
                pool.shutdown(wait=True, cancel_futures=True)
                for job, future in list(zip(jobs, pending, strict=True))[len(jobs) - len(self.left) :]:
                    if not future.cancelled() and not isinstance(future.result(), Exception):
                        self._told(job, future.result())

    def _settle(self, job: Job, future: Future[Result | Exception]) -> None:
        outcome = future.result()
        if isinstance(outcome, (WorkerDied, WorkerStalled)):
            self._deaths += 1
        elif not isinstance(outcome, Exception):
            self._deaths = 0
        if isinstance(outcome, Exception) and (_is_for_all(outcome) or self._deaths == _MOST_DEATHS):
            raise outcome
        self._told(job, outcome)

    def _told(self, job: Job, outcome: Result | Exception) -> None:
        self.left.remove(job)
        self._tell(job, outcome)

    def _done(self, job: Job) -> Result | Exception:
        """A call that was lost with its worker is made once more, one at a time: another input may have killed it."""
        try:
            try:
                return self._do(job)
            except WorkerDied:
                if self._alone:
                    raise
                with self._retry:
                    return self._do(job)
        except Exception as error:  # noqa: BLE001 - told with its input, or raised by `run`
            return error


def _is_for_all(error: Exception) -> bool:
    return isinstance(error, _FOR_ALL) or (isinstance(error, OSError) and error.errno in _NO_ROOM)
