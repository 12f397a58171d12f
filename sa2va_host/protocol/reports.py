"""What a worker tells about itself and its calls, in answer to `sa2va_host.protocol.wire.Status`."""

from __future__ import annotations

import msgspec

from .limits import Count, Name, Seconds
from .specification import ModelInfo, Specification


class CallReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One queued or active call, for people to read. ``seconds`` since it was asked."""

    kind: Name
    client: Name
    pid: Count
    phase: Name
    seconds: Seconds
    done: Count = 0
    total: Count | None = None


class WorkerReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the worker knows about itself. ``silent`` are seconds since the engine last finished a step."""

    pid: Count
    phase: Name
    phase_seconds: Seconds
    silent: Seconds
    uptime: Seconds
    specification: Specification
    info: ModelInfo | None = None
    keep_alive: Seconds = 0.0
    keep_alive_left: Seconds | None = None
    clients: Count = 0
    active: list[CallReport] = []
    queued: list[CallReport] = []
    done: Count = 0
    total: Count | None = None
    memory_used: Count = 0
    memory_reserved: Count = 0
    memory_peak: Count = 0
    finished_calls: Count = 0
