"""Every error that this library raises on purpose. Each says what happened, where, and what to do about it.

::

    Sa2VAError
    ├── InvalidInput (also ValueError)   the request is wrong: an unreadable picture, an empty prompt
    ├── ConfigError (also ValueError)    a setting is unknown or has an impossible value
    ├── ModelNotFound                    no such checkpoint name or folder
    ├── ModelLoadFailed                  the checkpoint is there and cannot be loaded
    ├── OutOfMemory (MemoryError)        this call did not fit; the worker lives on
    ├── Cancelled                        the call was cancelled, by its caller or by a forced unload
    ├── DeadlineExceeded (TimeoutError)  the call took longer than its timeout
    ├── ProtocolMismatch                 worker and client speak different protocol versions
    ├── UnloadRefused                    other clients' calls are running; force, or try again later
    └── WorkerError                      the worker process
        ├── WorkerStartFailed            it did not come up
        ├── WorkerDied                   it ended while calls were pending; the next call starts a new one
        ├── WorkerBusy                   its queue is full; ``retry_after`` seconds
        └── WorkerStalled                it is alive and makes no progress

`Sa2VAError` and `WorkerError` themselves stand for a failure inside the engine that has no class of its own.
Each class has a ``code``, which is what travels on the wire; `from_wire` is the one place that turns it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = [
    "Cancelled",
    "ConfigError",
    "DeadlineExceeded",
    "InvalidInput",
    "ModelLoadFailed",
    "ModelNotFound",
    "OutOfMemory",
    "ProtocolMismatch",
    "Sa2VAError",
    "UnloadRefused",
    "WorkerBusy",
    "WorkerDied",
    "WorkerError",
    "WorkerStalled",
    "WorkerStartFailed",
    "from_wire",
]


class Sa2VAError(Exception):
    """The root. ``advice`` is what the user can do; ``log_tail`` the worker's last lines where they
    matter.
    """

    code = "error"

    def __init__(self, message: str = "", *, advice: str = "", log_tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.log_tail = tuple(log_tail)

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".strip()


class InvalidInput(Sa2VAError, ValueError):
    """The request is wrong; sending it again will fail again."""

    code = "invalid_input"


class ConfigError(Sa2VAError, ValueError):
    """A setting is unknown or has an impossible value."""

    code = "config"


class ModelNotFound(Sa2VAError):
    """No such checkpoint name or folder."""

    code = "model_not_found"


class ModelLoadFailed(Sa2VAError):
    """The checkpoint is there and cannot be loaded (damaged, unsupported, a library is missing)."""

    code = "model_load_failed"


class OutOfMemory(Sa2VAError, MemoryError):
    """This call did not fit into memory; others and the worker are unharmed."""

    code = "out_of_memory"


class Cancelled(Sa2VAError):
    """The call was cancelled, by its caller or by a forced unload."""

    code = "cancelled"


class DeadlineExceeded(Sa2VAError, TimeoutError):
    """The call took longer than its timeout; it has been cancelled in the worker."""

    code = "deadline_exceeded"


class ProtocolMismatch(Sa2VAError):
    """Worker and client speak different protocol versions: two installations of different age."""

    code = "protocol_mismatch"


class UnloadRefused(Sa2VAError):
    """Calls of others are running; ``holders`` names them (program and process id)."""

    code = "unload_refused"

    def __init__(self, message: str = "", *, holders: Sequence[str] = (), **more: object) -> None:
        super().__init__(message, **more)  # type: ignore[arg-type]
        self.holders = tuple(holders)


class WorkerError(Sa2VAError):
    """Something failed in the worker process; the call is lost, the next one may work."""

    code = "worker_error"


class WorkerStartFailed(WorkerError):
    """The worker process did not come up."""

    code = "worker_start_failed"


class WorkerDied(WorkerError):
    """The worker ended while the call was pending.

    ``reason`` is the exit code or signal in words, ``pid`` the process that died; ``log_tail`` its last
    lines.
    """

    code = "worker_died"

    def __init__(self, message: str = "", *, reason: str = "", pid: int = 0, **more: object) -> None:
        super().__init__(message, **more)  # type: ignore[arg-type]
        self.reason = reason
        self.pid = pid


class WorkerBusy(WorkerError):
    """The worker's queue is full. Nothing was queued; try again after ``retry_after`` seconds."""

    code = "worker_busy"

    def __init__(self, message: str = "", *, retry_after: float = 1.0, **more: object) -> None:
        super().__init__(message, **more)  # type: ignore[arg-type]
        self.retry_after = retry_after


class WorkerStalled(WorkerError):
    """The worker is alive and has made no progress for longer than the stall limit."""

    code = "worker_stalled"


def _tree(root: type[Sa2VAError]) -> Iterator[type[Sa2VAError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def from_wire(code: str, message: str, advice: str = "", log_tail: Sequence[str] = ()) -> Sa2VAError:
    """The exception for a wire code; an unknown code (a newer worker) becomes `WorkerError`."""
    for kind in _tree(Sa2VAError):
        if kind.code == code:
            return kind(message, advice=advice, log_tail=log_tail)
    return WorkerError(f"{message} (error code {code!r})", advice=advice, log_tail=log_tail)
