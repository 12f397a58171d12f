"""Log lines that users see while a call runs: from Python's logging to the outbox."""

from __future__ import annotations

import logging

from sa2va_host.protocol.wire import Log

from .outbox import Outbox


class _Forwarder(logging.Handler):
    def __init__(self, outbox: Outbox) -> None:
        super().__init__(logging.INFO)
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        self._outbox.put(Log(level=record.levelname.lower(), text=text[:2000]))


def forward_logs(outbox: Outbox) -> None:
    """Send every line of INFO and above to the clients that have a call open."""
    logging.getLogger().addHandler(_Forwarder(outbox))
