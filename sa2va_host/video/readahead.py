"""Reading on a thread of its own, a few items ahead of whoever uses them, so that the two overlap."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_AHEAD = 4
"""Items held; frames of 4K video take 25 MB each."""
_LET_GO = 1.0
"""The longest that closing waits for the thread, in seconds: it may be reading from a file system that stalls."""


def ahead(items: Iterator[Item], count: int = _AHEAD) -> Generator[Item, None, None]:
    """The same items, and at their end the same exception; at most ``count`` are made before they are asked for.

    Begins when the first is asked for. Closed, it ends its thread, which closes ``items``; that is waited for, but not
    for longer than `_LET_GO` where an item does not come.
    """
    made: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(count)
    left = threading.Event()

    def put(entry: tuple[Item] | BaseException | None) -> bool:
        while not left.is_set():
            try:
                made.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item,)):
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            put(error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=make, name="sa2va-readahead", daemon=True)
    thread.start()
    try:
        while (entry := made.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        left.set()
        thread.join(_LET_GO)
