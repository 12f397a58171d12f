"""One question to a worker, on a connection of its own: it queues behind no call and needs no running
link.
"""

from __future__ import annotations

import time

import zmq

from sa2va_host.errors import Sa2VAError
from sa2va_host.machine import processes
from sa2va_host.protocol import transport, wire

from .connection import Connection
from .rendezvous import Record

_PINGS = 4
"""How often a worker is asked for a sign of life within the silence that it is allowed."""
_PING = 0
"""The call id of those questions."""


def ask(
    record: Record, message: wire.Status | wire.Unload, seconds: float, *, silence: float | None = None
) -> wire.WorkerMessage | None:
    """The worker's answer; None when none comes within ``seconds`` (it is stopped, hangs, or dies meanwhile).

    With ``silence`` the worker must also give a sign of life at least every so many seconds, for which it is asked.
    A worker that refuses us answers `wire.Failed`.
    """
    begun = heard = pinged = time.monotonic()
    deadline = begun + seconds
    context = transport.make_context()
    connection = Connection(context, record)
    poller = zmq.Poller()
    connection.register(poller)
    try:
        connection.send(message)
        while True:
            # Looked at before reading: what came before the death is read.
            dead = connection.is_dead() and connection.is_drained()
            now = time.monotonic()
            while (received := connection.receive()) is not None:
                heard = now
                if not (isinstance(received.message, (wire.Ready, wire.Log)) or _is_pong(received.message)):
                    return received.message
            left = deadline - now
            if silence is not None:
                left = min(left, heard + silence - now)
                if now - pinged > silence / _PINGS:
                    pinged = now
                    connection.send(wire.Status(call=_PING))
            if dead or left <= 0:
                return None
            poller.poll(int(min(left, processes.DeathWatch.INTERVAL) * 1000) + 1)
    except Sa2VAError as error:
        return wire.Failed(call=message.call, code=error.code, message=error.message, advice=error.advice)
    finally:
        connection.say_goodbye()
        connection.close(linger=0.0 if connection.is_dead() else 0.1)
        context.term()


def _is_pong(message: wire.WorkerMessage) -> bool:
    return isinstance(message, wire.StatusReply) and message.call == _PING
