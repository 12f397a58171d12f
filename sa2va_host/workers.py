"""The workers of this user, for front ends and for `Sa2VA`: where they meet, which there are, how one is
ended.
"""

from __future__ import annotations

from pathlib import Path

from .config import Settings, load_settings
from .errors import ModelNotFound
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
    return RunDirectory(Path(settings.run_dir).expanduser() if settings.run_dir else default_path())


def specify(settings: Settings) -> Specification:
    """The specification that these settings ask for. A folder is named by its real path. Raises
    `ModelNotFound`.
    """
    model = settings.model
    looks_like_path = model.startswith((".", "~", "/", "\\")) or Path(model).is_absolute()
    folder = Path(model).expanduser()
    if looks_like_path and not folder.is_dir():
        raise ModelNotFound(f"There is no checkpoint folder {model!r}.", advice="Check the path.")
    if looks_like_path or (len(folder.parts) > 1 and folder.is_dir()):
        model = str(folder.resolve())
    return Specification(
        checkpoint=model,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        attention=settings.attention,
        quantization=settings.quantization,
    )
