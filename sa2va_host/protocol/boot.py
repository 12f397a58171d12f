"""What a launcher tells a new worker, on its standard input, before the worker does anything.

One line of JSON, then the pipe stays open until the connection record exists. A worker whose pipe ends
earlier has lost its launcher half-way and ends itself. Secrets travel here, so none is in the command line
or the environment.
"""

from __future__ import annotations

import msgspec

from sa2va_host.machine.processes import ProcessId

from .envelope import PROTOCOL
from .specification import Specification

MAX_BYTES = 1 << 16

EXIT_TAKEN = 75
"""Another living worker serves this specification."""
EXIT_ABANDONED = 76
"""The launcher vanished before the worker was known."""
EXIT_BOOT = 77
"""The boot line was missing or wrong, or no socket could be bound."""
EXIT_LOAD = 78
"""The model could not be loaded; the exit note says why."""
EXIT_BROKEN = 79
"""The engine lost the process (a poisoned CUDA context, a step that never ends)."""


class Boot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything one worker process needs to know. Durations are seconds."""

    protocol: int = PROTOCOL
    incarnation: str
    token: str
    specification: Specification
    run_dir: str
    transport: str
    launcher: ProcessId
    keep_alive: float
    lease_grace: float
    cancel_grace: float
    queue_bound: int
    max_active: int
    log_level: str
