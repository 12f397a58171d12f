"""What a process holds: leaks show here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sa2va_host.lifecycle.rendezvous import RunDirectory
from sa2va_host.machine import processes

KEPT_LOGS = 10
GROWTH = 48 << 20
"""Bytes of memory that a process may have more after a soak: allocators keep some."""


@dataclass(frozen=True)
class Holdings:
    """Of one process. ``mapped`` counts shared segments with a name, ``zombies`` its dead children, ``resident`` is in
    bytes.
    """

    descriptors: int
    mapped: int
    zombies: int
    resident: int

    def leaked_since(self, before: Holdings) -> bool:
        """Whether anything that has a number is more than it was. Memory is for `GROWTH` to judge."""
        return (
            self.descriptors > before.descriptors
            or self.mapped > before.mapped
            or self.zombies > before.zombies
        )


def holdings(pid: int | None = None) -> Holdings:
    """What the process holds now; this one by default."""
    process = Path(f"/proc/{pid or os.getpid()}")
    children = (process / f"task/{process.name}/children").read_text().split()
    return Holdings(
        descriptors=len(list((process / "fd").iterdir())),
        mapped=(process / "maps").read_text().count("/dev/shm/"),
        zombies=sum(processes.identify(int(child)) is None for child in children),
        resident=processes.resident_memory(int(process.name)),
    )


def processes_in(folder: Path) -> Iterator[int]:
    """Whoever works in the folder, as workers and what they start do, though it be deleted."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # So Linux calls a folder that was deleted, or one that took its place.
                works_in = Path(str((entry / "cwd").readlink()).removesuffix(" (deleted)"))
                if works_in.is_relative_to(folder) and processes.identify(int(entry.name)):
                    yield int(entry.name)


def make_old(run: RunDirectory) -> None:
    """Files that are a minute old are cleared away by the next start of a worker."""
    long_ago = time.time() - 3600
    for path in run.path.iterdir():
        os.utime(path, (long_ago, long_ago))


def stray_files(run: RunDirectory, specifications: int) -> list[str]:
    """What nobody will clear away, once workers of so many specifications have ended and been started anew: all but
    their locks, and the latest ten logs with what lies beside them.
    """
    files = [path for path in run.path.iterdir() if not path.is_dir()]
    logs = {path.stem for path in files if path.suffix == ".log"}
    stray = [
        path.name
        for path in files
        if path.suffix not in {".life", ".spawn", ".memory"}
        and not (path.suffix in {".log", ".exit", ".ready", ".sock"} and path.stem in logs)
    ]
    return stray + sorted(logs)[KEPT_LOGS + specifications :]
