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


def ask(record: Record, message: wire.Status | wire.Unload, seconds: float) -> wire.WorkerMessage | None:
    """The worker's answer; None when none comes within ``seconds`` (it is stopped, hangs, or dies meanwhile).

    A worker that refuses us answers `wire.Failed`.
    """
    deadline = time.monotonic() + seconds
    context = transport.make_context()
    connection = Connection(context, record)
    poller = zmq.Poller()
    connection.register(poller)
    try:
        connection.send(message)
        while True:
            # Looked at before reading: what came before the death is read.
            dead = connection.is_dead() and connection.is_drained()
            while (received := connection.receive()) is not None:
                if not isinstance(received.message, (wire.Ready, wire.Log)):
                    return received.message
            left = deadline - time.monotonic()
            if dead or left <= 0:
                return None
            poller.poll(int(min(left, processes.DeathWatch.INTERVAL) * 1000) + 1)
    except Sa2VAError as error:
        return wire.Failed(call=message.call, code=error.code, message=error.message, advice=error.advice)
    finally:
        connection.say_goodbye()
        connection.close(linger=0.0 if connection.is_dead() else 0.1)
        context.term()
