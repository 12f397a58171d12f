"""The workers of this user: where they meet, which there are, how one is ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_host.config import Settings, absolute, load_settings
from sa2va_host.machine.descriptors import reporting_shortage

from .rendezvous import RunDirectory, default_path, run_directory_of

if TYPE_CHECKING:
    from .status import WorkerStatus
    from .stopping import Stopped


@reporting_shortage()
def list_workers(settings: Settings | None = None) -> list[WorkerStatus]:
    """Every living worker of this user, oldest first."""
    from .status import worker_status

    run = run_directory(settings or load_settings())
    found = (worker_status(record) for record in run.living())
    return [status for status in found if status]


@reporting_shortage()
def stop_worker(
    worker: WorkerStatus | int,
    *,
    force: bool = False,
    timeout: float | None = None,
    settings: Settings | None = None,
) -> Stopped:
    """End one worker, by its status or process id, as `Sa2VA.unload` does, and return when it is gone as that says."""
    from .stopping import Stopped, stop

    settings = settings or load_settings()
    pid = worker if isinstance(worker, int) else worker.pid
    run = run_directory(settings)
    for record in run.living():
        if record.process.pid == pid:
            return stop(record, run, force=force, wait=settings.unload_wait if timeout is None else timeout)
    return Stopped(pid, "absent", 0.0)


def run_directory(settings: Settings) -> RunDirectory:
    """Where these settings meet other processes."""
    return run_directory_of(Path(absolute(settings.run_dir)) if settings.run_dir else default_path())
