"""The worker's answer to `Status`, put together from what the server's thread knows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sa2va_host.protocol.reports import CallReport, WorkerReport

from .calls import Work
from .lifecycle import Phase

if TYPE_CHECKING:
    from .server import Server


def make_report(server: Server) -> WorkerReport:
    """Everything there is to know, without asking the engine's thread."""
    scheduler, requests, lifecycle = server.scheduler, server.requests, server.lifecycle
    works = scheduler.works()
    active = [work for work in works if scheduler.is_begun(work)]
    queued = [work for work in works if not scheduler.is_begun(work)]
    phase = lifecycle.phase.value
    if lifecycle.phase is Phase.BUSY and active:
        phase = active[0].phase
    done, total = requests.load_done, requests.load_total
    if active:
        done, total = active[0].done, active[0].total
    loading = lifecycle.phase in (Phase.STARTING, Phase.LOADING)
    return WorkerReport(
        pid=server.pid,
        phase=phase,
        phase_seconds=lifecycle.phase_seconds(),
        silent=requests.load_silent() if loading else scheduler.silent(),
        uptime=lifecycle.uptime(),
        specification=requests.specification,
        info=requests.info,
        keep_alive=lifecycle.keep_alive,
        keep_alive_left=lifecycle.left(),
        clients=len(server.clients),
        active=[_call(server, work) for work in active[:50]],
        queued=[_call(server, work) for work in queued[:50]],
        done=done,
        total=total,
        memory_used=scheduler.memory.used,
        memory_reserved=scheduler.memory.reserved,
        memory_peak=scheduler.memory.peak,
        finished_calls=requests.finished,
    )


def _call(server: Server, work: Work) -> CallReport:
    client = server.clients.get(work.route)
    return CallReport(
        kind=work.kind,
        client=client.program if client is not None else "",
        pid=client.pid if client is not None else 0,
        phase=work.phase,
        seconds=time.monotonic() - work.asked,
        done=work.done,
        total=work.total,
    )
