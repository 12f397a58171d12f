"""run.json: what a recording was made from, so that it can be taken up again, and what came of it.

Called by front ends that write with `sa2va_host.output.recording`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sa2va_host import media
from sa2va_host.errors import InvalidInput

if TYPE_CHECKING:
    from filelock import FileLock
    from typing_extensions import Self

LOCK = ".sa2va.lock"
"""The file in the folder that a run holds locked; a killed one leaves it, unlocked."""


class RunNote:
    """The note in a folder, which is this run's alone from `begin` on, or from the start where it is resumed; a context
    manager, at whose end it is free again.

    Raises `InvalidInput` where the folder holds a run already that is not to be resumed, was made with other settings,
    or is being written by another process.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        """``settings`` are all that the outputs depend on, as JSON has it. Nothing is written yet."""
        self.path = folder / "run.json"
        self._settings = json.loads(json.dumps(settings))
        self._lock: FileLock | None = None
        if self.path.exists():
            self._check(resume)
            self._hold()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._release(self._lock)

    def begin(self) -> None:
        """From here on the folder holds this run."""
        if self._lock is None:
            self._hold()
            if self.path.exists():  # another run came in between, and may have ended since
                self._check(resume=False)
        self._write({"finished": False})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run is whole; note what came of it."""
        self._write({"finished": True, **summary})

    def _hold(self) -> None:
        from filelock import FileLock, Timeout

        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InvalidInput(
                f"Another sa2va writes into {folder}.", advice="Wait for it, or name another folder (-o)."
            ) from error
        self._lock = lock

    def _release(self, lock: FileLock) -> None:
        # While it is held, so that the file of a later holder is never the one that goes. Windows keeps open files.
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()
        self._lock = None

    def _check(self, resume: bool) -> None:
        if not resume:
            raise InvalidInput(
                f"{self.path.parent} holds a run already.",
                advice="Go on with it (--resume), name another folder (-o), or remove it.",
            )
        try:
            before = json.loads(self.path.read_text(encoding="utf-8"))["settings"]
            changed = [name for name in self._settings if before.get(name) != self._settings[name]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"{self.path} is damaged, so the run cannot be resumed.",
                advice="Remove the folder and begin anew.",
            ) from error
        if changed:
            raise InvalidInput(
                f"The run in {self.path.parent} was made with other settings: {', '.join(changed)}.",
                advice="Resume it with the same ones, or name another folder (-o).",
            )

    def _write(self, rest: Mapping[str, Any]) -> None:
        media.write_json(self.path, {"settings": self._settings, **rest}, indent=2)
