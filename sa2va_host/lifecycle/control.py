"""One question to a worker, on a connection of its own: it queues behind no call and needs no running
link.
"""

from __future__ import annotations

import time

import zmq

from sa2va_host.errors import Sa2VAError
from sa2va_host.machine import processes
from sa2va_host.protocol import transport, wire

from .connection import Connection, no_connection
from .rendezvous import Record

_PINGS = 4
"""How often a worker is asked for a sign of life within the silence that it is allowed."""
_PING = 0
"""The call id of those questions."""


def ask(
    record: Record, message: wire.Status | wire.Unload, seconds: float, *, silence: float | None = None
) -> wire.WorkerMessage | None:
    """The worker's answer; None when none comes within ``seconds`` (it is stopped, hangs, or dies meanwhile).

    With ``silence`` it must also give a sign of life within so many seconds whenever it is asked for one, as it is.
    A worker that refuses us answers `wire.Failed`. Raises `WorkerError` where this process has no descriptors left for
    another connection.
    """
    begun = pinged = time.monotonic()
    deadline = begun + seconds
    # Not since the worker was last heard: should we sleep ourselves, its silence has not begun.
    unanswered: float | None = begun
    try:
        context = transport.make_context()
    except (OSError, zmq.ZMQError) as error:
        raise no_connection(error) from error
    try:
        connection = Connection(context, record)
    except BaseException:
        context.term()
        raise
    poller = zmq.Poller()
    connection.register(poller)
    try:
        connection.send(message)
        while True:
            # Looked at before reading: what came before the death is read.
            dead = connection.is_dead() and connection.is_drained()
            now = time.monotonic()
            while (received := connection.receive()) is not None:
                unanswered = None
                if not (isinstance(received.message, (wire.Ready, wire.Log)) or _is_pong(received.message)):
                    return received.message
            left = deadline - now
            if silence is not None:
                if unanswered is None and now - pinged > silence / _PINGS:
                    pinged = unanswered = now
                    connection.send(wire.Status(call=_PING))
                if unanswered is not None:
                    left = min(left, unanswered + silence - now)
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
