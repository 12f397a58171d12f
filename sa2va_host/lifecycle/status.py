"""What there is to know about a worker, from outside: its own report, or what the system says when it is
silent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from sa2va_host.machine import processes
from sa2va_host.protocol import wire
from sa2va_host.protocol.reports import CallReport, WorkerReport
from sa2va_host.protocol.specification import ModelInfo

from .control import ask
from .rendezvous import Record

ANSWER_WITHIN = 0.3
"""Seconds a healthy worker's server thread has to answer."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker, or its absence (``pid`` 0, ``phase`` "absent"; then it is false).

    ``phase``: absent, starting, loading, ready, draining, ending, or what it works on: encoding,
    generating, tracking. When it does not answer, ``responding`` is false and ``phase`` is stopped (by a
    signal) or silent. Times are seconds, memory bytes of the device. ``silent`` is the time since the
    engine last made a step, 0 when idle.
    """

    pid: int = 0
    phase: str = "absent"
    phase_seconds: float = 0.0
    responding: bool = False
    model: str = ""
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    quantization: str = "none"
    started: float = 0.0
    uptime: float = 0.0
    silent: float = 0.0
    keep_alive: float = 0.0
    keep_alive_left: float | None = None
    done: int = 0
    total: int | None = None
    clients: int = 0
    active: tuple[CallReport, ...] = ()
    queued: tuple[CallReport, ...] = ()
    finished_calls: int = 0
    memory_used: int = 0
    memory_reserved: int = 0
    memory_peak: int = 0
    host_memory: int = 0
    info: ModelInfo | None = None
    incarnation: str = ""
    log: str = ""

    @property
    def running(self) -> bool:
        return self.pid != 0

    def __bool__(self) -> bool:
        return self.running


ABSENT = WorkerStatus()


def worker_status(record: Record, seconds: float = ANSWER_WITHIN) -> WorkerStatus:
    """Ask a worker how it is; never takes much longer than ``seconds``."""
    answer = ask(record, wire.Status(call=1), seconds)
    if isinstance(answer, wire.StatusReply):
        return _from_report(record, answer.report)
    if not processes.is_alive(record.process):
        return ABSENT
    phase = "stopped" if processes.is_stopped(record.process) else "silent"
    return _from_outside(record, record.info, phase=phase, phase_seconds=seconds)


def _from_outside(
    record: Record, info: ModelInfo | None, *, phase: str, phase_seconds: float
) -> WorkerStatus:
    """What the record and the system tell. The shape is what was loaded, or what was asked for until then."""
    shape = info or record.specification
    return WorkerStatus(
        pid=record.process.pid,
        phase=phase,
        phase_seconds=phase_seconds,
        model=record.specification.checkpoint,
        device=shape.device,
        dtype=shape.dtype,
        attention=shape.attention,
        quantization=shape.quantization,
        started=record.created,
        uptime=max(0.0, time.time() - record.created),
        host_memory=processes.resident_memory(record.process.pid),
        info=info,
        incarnation=record.incarnation,
        log=record.log,
    )


def _from_report(record: Record, report: WorkerReport) -> WorkerStatus:
    outside = _from_outside(record, report.info, phase=report.phase, phase_seconds=report.phase_seconds)
    return replace(
        outside,
        responding=True,
        uptime=report.uptime,
        silent=report.silent,
        keep_alive=report.keep_alive,
        keep_alive_left=report.keep_alive_left,
        done=report.done,
        total=report.total,
        clients=report.clients,
        active=tuple(report.active),
        queued=tuple(report.queued),
        finished_calls=report.finished_calls,
        memory_used=report.memory_used,
        memory_reserved=report.memory_reserved,
        memory_peak=report.memory_peak,
    )
