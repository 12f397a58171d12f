"""From exceptions of the engine to `Failed` messages: the one translation on this side."""

from __future__ import annotations

import traceback

from sa2va_host.errors import OutOfMemory, Sa2VAError, WorkerDied, WorkerError
from sa2va_host.protocol.wire import Failed

from .steps import EngineBroken


def to_message(call: int, error: BaseException) -> Failed:
    """How the client learns of ``error``. The log tail of an unexpected one is its traceback."""
    if isinstance(error, Sa2VAError):
        return Failed(
            call=call,
            code=error.code,
            message=error.message[:20_000],
            advice=error.advice[:20_000],
            log_tail=list(error.log_tail)[-50:],
        )
    # torch's class is known by name: the server must not import torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Failed(
            call=call,
            code=OutOfMemory.code,
            message=f"The call did not fit into memory: {_first_line(error)}.",
            advice="Use a smaller picture or fewer key frames, a smaller dtype, or unload other models.",
        )
    lives = not isinstance(error, EngineBroken)
    return Failed(
        call=call,
        code=WorkerError.code if lives else WorkerDied.code,
        message=f"The engine failed: {type(error).__name__}: {_first_line(error)}.",
        advice=f"The {'worker lives on' if lives else 'next call starts a new worker'}; the log has the details.",
        log_tail=[line[:500] for line in "".join(traceback.format_exception(error)).splitlines()[-20:]],
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return lines[0][:500].rstrip(".")
