"""Ending a worker: ask, terminate, kill, and return only when it is gone.

Every rung goes to the whole process group, and none to a process that is not the recorded one. A worker that this
process started is reaped too, so that no zombie of it is left. With an NVIDIA device the driver has the last word:
`stop` returns when it no longer lists the process.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from sa2va_host.errors import WorkerError
from sa2va_host.machine import processes
from sa2va_host.machine.nvidia import compute_pids
from sa2va_host.protocol import wire

from .control import ask
from .rendezvous import ExitNote, Record, RunDirectory

SILENT_FOR = 3.0
"""Seconds without a sign of life after which a worker counts as hanging and is not asked any further. A step that holds
the interpreter's lock keeps the worker silent too, and ending it would cost others their calls.
"""
SILENT_FOR_FORCE = 1.0
"""The same where other calls are to end anyway."""
LEAVE_WITHIN = 2.0
TERMINATE_WITHIN = 1.0
KILL_WITHIN = 2.0
DRIVER_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a worker ended. ``rung``: absent (it was gone already), asked, terminated or killed."""

    pid: int
    rung: str
    seconds: float


def stop(record: Record, run: RunDirectory, *, force: bool, wait: float) -> Stopped:
    """End the worker of ``record`` and everything it started.

    Waits up to ``wait`` seconds for running calls; then raises `UnloadRefused`, or with ``force`` ends
    them. A worker that is stopped or gives no sign of life for `SILENT_FOR` seconds is ended whatever it does, so that
    one that hangs is gone within 5 s. Of a worker that this process started not even a zombie is left; that of another
    process's is there until that process reaps it, which takes a moment where it runs. Raises `WorkerError` when even
    SIGKILL or the driver fails us.
    """
    begun = time.monotonic()
    pid = record.process.pid
    rung = "absent"
    if processes.group_members(record.process):
        rung = _climb(record, run, force=force, wait=wait)
    processes.wait_reaped(pid)
    run.remove(record)
    if record.info is None or record.info.device.startswith("cuda"):
        _await_driver(pid)
    return Stopped(pid, rung, time.monotonic() - begun)


def _climb(record: Record, run: RunDirectory, *, force: bool, wait: float) -> str:
    process = record.process
    if not processes.is_stopped(process):
        silence = SILENT_FOR_FORCE if force else SILENT_FOR
        granted = 0.0 if force else wait
        question = wire.Unload(call=1, force=force, wait=granted)
        answer = ask(record, question, granted + 2 * silence, silence=silence)
        if isinstance(answer, wire.Failed):
            from sa2va_host.protocol.wire import to_error

            raise to_error(answer)
        if isinstance(answer, (wire.Unloading, wire.Ending)) and _leaves(process):
            return "asked"
    note = ExitNote(reason="was terminated, since it did not end when asked", orderly=False)
    with contextlib.suppress(OSError):
        run.write_exit(record.incarnation, note, unless_known=True)
    processes.signal_group(process, kill=False)
    if processes.wait_group_gone(process, TERMINATE_WITHIN):
        return "terminated"
    processes.signal_group(process, kill=True)
    if processes.wait_group_gone(process, KILL_WITHIN):
        return "killed"
    raise WorkerError(
        f"The worker (pid {process.pid}) does not end even when it is killed.",
        advice="It hangs in the kernel, most often in a device driver; a restart of the machine helps.",
    )


def _leaves(process: processes.ProcessId) -> bool:
    """Whether the group goes by itself. Once its leader is gone, those it left behind are not waited for."""
    deadline = time.monotonic() + LEAVE_WITHIN
    while processes.is_alive(process) and time.monotonic() < deadline:
        time.sleep(0.005)
    return not processes.group_members(process)


def _await_driver(pid: int) -> None:
    """Wait until the NVIDIA driver no longer lists the process; at once where there is no such driver."""
    deadline = time.monotonic() + DRIVER_WITHIN
    while pid in compute_pids():
        if time.monotonic() > deadline:
            raise WorkerError(
                f"The worker (pid {pid}) is gone, but the driver still holds memory for it.",
                advice="Wait a moment and look at nvidia-smi.",
            )
        time.sleep(0.05)
