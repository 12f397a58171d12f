"""Making room on a device: workers of other models give their memory back when a new one does not fit.

Called by the session before a worker is started again whose model found no room. Ends nothing that hangs, and no
running call: a busy worker is waited for as an unload waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sa2va_host.errors import Cancelled, OutOfMemory, UnloadRefused
from sa2va_host.machine.commands import sa2va_command
from sa2va_host.protocol.specification import AUTO, Specification

from .rendezvous import Record, RunDirectory
from .status import WorkerStatus, worker_status
from .stopping import SILENT_FOR, stop

_ANYWHERE = (AUTO, "balanced", "offload")
"""Devices of a request that may turn out to be any."""
_POLL = 0.1


def make_way(
    specification: Specification,
    run: RunDirectory,
    full: OutOfMemory,
    *,
    until: float,
    rivals: Sequence[Record] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Free memory for a model that failed to load with ``full``.

    Ends every idle worker on its device, oldest first. Where none is idle, waits ``until`` then (monotonic clock) for
    those that are busy, whoever they are by then. ``rivals`` were in the way when the load began, and may have left
    since. Raises ``full``, with who is in the way, when nobody went, `Cancelled` when ``cancelled()`` becomes true.
    """
    others = in_the_way(specification, run)
    if not others and not rivals:
        raise full
    while others:
        idle = [record for record in others if worker_status(record).phase == "ready"]
        gone = [record for record in idle if _went(record, run, wait=0.0)]
        if gone or any(_made_way(record, run, until, cancelled) for record in others):
            return
        if time.monotonic() >= until:
            break
        time.sleep(_POLL)
        others = in_the_way(specification, run)
    # On a machine that is busy an idle worker may need longer for an answer than calls are waited for.
    last = [(record, worker_status(record, SILENT_FOR)) for record in others]
    if any(status.phase == "ready" and _went(record, run, wait=0.0) for record, status in last):
        return
    holders = [_describe(status) for _, status in last if status]
    if not holders:  # they left by themselves
        return
    raise OutOfMemory(
        f"{full.message} In use there: {', '.join(holders)}.",
        advice=f"Try again when it is idle, or end it with `{sa2va_command('stop')}`. {full.advice}",
    )


def in_the_way(specification: Specification, run: RunDirectory) -> list[Record]:
    """Other living workers that may hold memory of the device that is asked for."""
    return [record for record in run.living() if _is_in_the_way(record, specification)]


def _is_in_the_way(record: Record, specification: Specification) -> bool:
    """Whether another worker may hold memory of the device that is asked for."""
    if record.specification.key == specification.key:
        return False
    theirs = record.info.device if record.info is not None else record.specification.device
    if specification.device in _ANYWHERE or theirs in _ANYWHERE:
        return True
    return _device(theirs) == _device(specification.device)


def _device(name: str) -> str:
    return "cuda:0" if name == "cuda" else name


def _went(record: Record, run: RunDirectory, *, wait: float) -> bool:
    """End a worker that answers, unless calls still run after ``wait`` seconds."""
    if not worker_status(record).responding:
        return False
    try:
        stop(record, run, force=False, wait=wait)
    except UnloadRefused:
        return False
    return True


def _made_way(record: Record, run: RunDirectory, deadline: float, cancelled: Callable[[], bool]) -> bool:
    """Wait until a worker has loaded, since it has not served yet those who wait for it, and end it then."""
    while time.monotonic() < deadline:
        if cancelled():
            raise Cancelled("Nobody waits for the worker any more.")
        if worker_status(record).phase not in ("starting", "loading"):
            return _went(record, run, wait=max(0.0, deadline - time.monotonic()))
        time.sleep(_POLL)
    return False


def _describe(status: WorkerStatus) -> str:
    """One worker that is in the way, for people."""
    if not status.responding:
        return f"{status.model} (pid {status.pid}, which is {status.phase})"
    clients = sorted({f"{call.client} (pid {call.pid})" for call in (*status.active, *status.queued)})
    calls = f" for {', '.join(clients)}" if clients else ""
    return f"{status.model} (pid {status.pid}){calls}"
