"""What a process holds: leaks show here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sa2va_host.machine import processes

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
