"""Fetching from a node: on a thread, so that Interrupt ends the node at once, even while the hub says nothing.

What has come stays, and the next run goes on from there. A transfer that still waits for the hub when the same model is
asked for again is taken over, so that nothing is fetched twice at a time.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sa2va_host.errors import Sa2VAError

from .watch import INTERRUPT_EVERY, Watch, check_interrupt

if TYPE_CHECKING:
    from sa2va_host.events import Event

_lock = threading.Lock()
_transfers: dict[tuple[str, str], _Transfer] = {}


def fetch(model: str, revision: str, watch: Watch) -> None:
    """Have the hub's ``model`` (`ORG/NAME`) in its cache; its files, never its code. An empty revision is `main`.

    Shows the bytes on the node. Raises what `sa2va_host.models.hub.pull` raises, with a full disk as `Sa2VAError`, and
    ComfyUI's own exception for an interrupt.
    """
    while True:
        transfer = _transfer(model, revision)
        shown: Event | None = None
        try:
            while transfer.is_alive():
                transfer.join(INTERRUPT_EVERY)
                if transfer.event is not None and transfer.event is not shown:
                    shown = transfer.event
                    watch.event(shown)
                check_interrupt()
        except BaseException:
            transfer.abandoned.set()
            raise
        if not isinstance(transfer.error, _Abandoned):  # that one was over before it could be taken over
            break
    if isinstance(transfer.error, OSError):
        error = transfer.error
        where = f" in {error.filename}" if error.filename else ""
        raise Sa2VAError(
            f"{model} cannot be fetched: {error.strerror or error}{where}.",
            advice="Make room there, or set HF_HOME to a folder on another disk and restart ComfyUI."
            " What has come is kept.",
        ) from error
    if transfer.error is not None:
        raise transfer.error


class _Abandoned(Exception):
    """Nobody waits for it any more."""


class _Transfer(threading.Thread):
    def __init__(self, model: str, revision: str) -> None:
        super().__init__(name="sa2va-download", daemon=True)
        self._model, self._revision = model, revision
        self.abandoned = threading.Event()
        self.event: Event | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        from sa2va_host.config import load_settings
        from sa2va_host.models.hub import pull

        try:
            pull(
                self._model,
                revision=self._revision,
                offline=load_settings().offline,
                on_event=self._on_event,
            )
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for it
            self.error = error

    def _on_event(self, event: Event) -> None:
        if self.abandoned.is_set():
            raise _Abandoned
        self.event = event


def _transfer(model: str, revision: str) -> _Transfer:
    """The transfer that goes on, or a new one."""
    with _lock:
        found = _transfers.get((model, revision))
        if found is not None and found.is_alive():
            found.abandoned.clear()
            return found
        made = _transfers[model, revision] = _Transfer(model, revision)
        made.start()
        return made
