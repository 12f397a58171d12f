"""The workers of this user, for front ends and for `Sa2VA`: where they meet, which there are, how one is
ended.
"""

from __future__ import annotations

from pathlib import Path

from .checkpoints import check_pin, find, is_path
from .choice import choose
from .config import Settings, absolute, load_settings
from .rendezvous import RunDirectory, default_path
from .specification import Specification
from .status import WorkerStatus, worker_status
from .stopping import Stopped, stop


def list_workers(settings: Settings | None = None) -> list[WorkerStatus]:
    """Every living worker of this user, oldest first."""
    run = run_directory(settings or load_settings())
    found = (worker_status(record) for record in run.living())
    return [status for status in found if status]


def stop_worker(
    worker: WorkerStatus | int,
    *,
    force: bool = False,
    timeout: float | None = None,
    settings: Settings | None = None,
) -> Stopped:
    """End one worker, by its status or process id, as `Sa2VA.unload` does."""
    settings = settings or load_settings()
    pid = worker if isinstance(worker, int) else worker.pid
    run = run_directory(settings)
    for record in run.living():
        if record.process.pid == pid:
            return stop(record, run, force=force, wait=settings.unload_wait if timeout is None else timeout)
    return Stopped(pid, "absent", 0.0)


def run_directory(settings: Settings) -> RunDirectory:
    """Where these settings meet other processes."""
    return RunDirectory(Path(absolute(settings.run_dir)) if settings.run_dir else default_path())


def specify(settings: Settings) -> Specification:
    """The specification that these settings ask for: two names of one checkpoint give one specification.

    Raises `ModelNotFound`, or `ConfigError` for a revision where there is none. A model with a colon in its name
    (and no path) is none of ours: the worker's program is given it as it stands.
    """
    model, revision = choose(settings).model, settings.revision
    if ":" not in model or is_path(model):
        found = find(model, revision=revision, folders=settings.model_folders)
        if settings.trust_remote_code:
            check_pin(found, revision)
        model, revision = str(found.folder), found.revision
    return Specification(
        checkpoint=model,
        revision=revision,
        device=settings.device,
        dtype=settings.dtype,
        attention=settings.attention,
        quantization=settings.quantization,
        trust_remote_code=settings.trust_remote_code,
    )
