"""Who is connected: one entry for each socket that ever spoke to us and whose process lives."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sa2va_host.machine.processes import is_client_alive
from sa2va_host.protocol.envelope import Envelope
from sa2va_host.protocol.shared_memory import Borrowed

MAX_CLIENTS = 1024
_CHECK_EVERY = 0.5


@dataclass(slots=True)
class Client:
    """One connection. ``loads`` are its unanswered `Load` calls; ``borrowed`` is the memory that it shares."""

    route: bytes
    pid: int
    started: int
    program: str = ""
    loads: set[int] = field(default_factory=set)
    borrowed: Borrowed | None = None

    @property
    def name(self) -> str:
        """For people: the program and its process id."""
        return f"{self.program or 'a client'} (pid {self.pid})"


class Clients:
    """The registry. Entries of dead processes are found within `_CHECK_EVERY` seconds."""

    def __init__(self) -> None:
        self._clients: dict[bytes, Client] = {}
        self._checked = 0.0

    def __len__(self) -> int:
        return len(self._clients)

    def seen(self, route: bytes, envelope: Envelope) -> Client | None:
        """The sender of a message; None when there are too many already."""
        client = self._clients.get(route)
        if client is None and len(self._clients) < MAX_CLIENTS:
            client = self._clients[route] = Client(route, envelope.pid, envelope.started)
        return client

    def get(self, route: bytes) -> Client | None:
        return self._clients.get(route)

    def all(self) -> list[Client]:
        return list(self._clients.values())

    def remove(self, route: bytes) -> None:
        self._clients.pop(route, None)

    def dead(self) -> list[Client]:
        """Clients whose process is gone; looks at most every `_CHECK_EVERY` seconds."""
        now = time.monotonic()
        if now - self._checked < _CHECK_EVERY:
            return []
        self._checked = now
        alive: dict[tuple[int, int], bool] = {}
        found = []
        for client in self._clients.values():
            who = (client.pid, client.started)
            if who not in alive:
                alive[who] = is_client_alive(*who)
            if not alive[who]:
                found.append(client)
        return found
