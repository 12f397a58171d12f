"""run.json, the manifest of a folder: what a recording was made from, so that it can be taken up again, and what came
of it.

Called by front ends that write with `sa2va_host.output.recording`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sa2va_host import media
from sa2va_host.errors import InvalidInput

if TYPE_CHECKING:
    from filelock import FileLock
    from typing_extensions import Self

FORMAT = 2
"""Of the manifest. It is raised when settings get other names; a run of another format cannot be resumed."""
FORMER_KINDS = ("matte",)
"""Folders of kinds that have another name today."""
LOCK = ".sa2va.lock"
"""The file in the folder that a run holds locked; a killed one leaves it, unlocked."""


class RunNote:
    """The note in a folder, which is this run's alone from `begin` on, or from the start where it is resumed; a context
    manager, at whose end it is free again.

    With ``overwrite`` an earlier run goes when the new one begins: its frames, lines, label maps and videos, by their
    names; other files stay.

    Raises `InvalidInput` where the folder holds a run already that is to be neither resumed nor written over, was made
    with other settings, or is being written by another process.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool = False
    ) -> None:
        """``settings`` are all that the outputs depend on, as JSON has it. Nothing is written yet."""
        self.path = folder / "run.json"
        self.before: Mapping[str, Any] | None = None
        """What the finished run that is to be resumed has noted; None where there is something left to do."""
        self._settings = json.loads(json.dumps(settings))
        self._lock: FileLock | None = None
        self._overwrite = overwrite
        self._begun = False
        if self.path.exists():
            if not overwrite:
                self.before = self._check(resume)
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
        if self._begun:
            return
        if self._lock is None:
            self._hold()
            if (
                self.path.exists() and not self._overwrite
            ):  # another run came in between, and may have ended since
                self._check(resume=False)
        if self._overwrite and self.path.exists():
            _remove_run(self.path.parent)
        self._write({"finished": False})
        self._begun = True

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run is whole; note what came of it."""
        self.begin()
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

    def _check(self, resume: bool) -> Mapping[str, Any] | None:
        """What the run has noted that is there, if it can be resumed and is finished."""
        if not resume:
            raise InvalidInput(
                f"{self.path.parent} holds a run already.",
                advice="Give --resume or --skip-existing to go on with it, --overwrite to replace it, or another folder"
                " (-o).",
            )
        try:
            noted = json.loads(self.path.read_text(encoding="utf-8"))
            before, format_ = dict(noted["settings"]), noted.get("format")
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"{self.path} is damaged, so the run cannot be resumed.",
                advice="Begin anew with --overwrite, or name another folder (-o).",
            ) from error
        if format_ != FORMAT:
            raise InvalidInput(
                f"{self.path} was written by another version, whose settings cannot be compared with these.",
                advice="Begin anew with --overwrite, or name another folder (-o).",
            )
        changed = list(_changed(before, self._settings))
        if changed:
            raise InvalidInput(
                f"The run in {self.path.parent} was made with other settings: {', '.join(changed)}.",
                advice="Resume it with the same ones, begin anew with --overwrite, or name another folder (-o).",
            )
        return noted if noted.get("finished") is True else None

    def _write(self, rest: Mapping[str, Any]) -> None:
        media.write_json(self.path, {"format": FORMAT, "settings": self._settings, **rest}, indent=2)


def _changed(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """The names of the settings that differ, such as `masks.threshold`."""
    if isinstance(now, dict) and isinstance(before, dict):
        for each in sorted(now.keys() | before.keys()):
            yield from _changed(before.get(each), now.get(each), f"{name}.{each}" if name else each)
    elif before != now:
        yield name


def _remove_run(folder: Path) -> None:
    """Remove what `sa2va_host.output.recording` has written into a folder, told by its names alone."""
    from .recording import KINDS

    ours = [folder / kind for kind in (*KINDS, *FORMER_KINDS)] + [folder / "Annotations"]
    for path in (path for kind in ours for pattern in ("*.*", "*/*.*") for path in kind.glob(pattern)):
        is_frame = path.suffix in (".png", ".exr") and path.stem.isdecimal()
        if is_frame or (path.parent.name == "alpha" and path.suffix in (".mov", ".webm")):
            path.unlink()
    for name in ("overlay.mp4", "overlay.unfinished.mp4", "rle.jsonl", "meta.json"):
        (folder / name).unlink(missing_ok=True)
    for kind in ours:
        for path in (*kind.glob("*/"), kind):
            with contextlib.suppress(OSError):  # it holds something else, or is not there
                path.rmdir()
