"""A shortage of file descriptors in this process, for client programs that tests start."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

LIMIT = 256


@contextlib.contextmanager
def famine(left: int) -> Iterator[None]:
    """No more than ``left`` descriptors can be opened. One at a time in a process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, limits[1]))
    with contextlib.suppress(OSError):
        while True:
            held.append(os.dup(0))
    for descriptor in held[:left]:
        os.close(descriptor)
    try:
        yield
    finally:
        for descriptor in held[left:]:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
