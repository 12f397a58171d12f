"""Code that would not let go until it is done, taken a piece at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Closed(BaseException):
    """Nobody wants what comes next. No `Exception`, so that foreign code does not take it for a failure of its own."""


def in_turns(work: Callable[[Callable[[Piece], None]], Result]) -> Generator[Piece, None, Result]:
    """``work`` as a generator: it is given a function, and what it hands to that is yielded.

    ``work`` runs on a thread of its own, but never while the caller does: handing something over, it stands still until
    the next piece is asked for. What it returns is returned and what it raises is raised. Closing the generator raises
    `Closed` where ``work`` stands, and waits until it has left.
    """
    pieces: SimpleQueue[tuple[Piece, ...]] = SimpleQueue()
    wanted: SimpleQueue[bool] = SimpleQueue()
    closed = False

    def hand_over(piece: Piece) -> None:
        if not closed:
            pieces.put((piece,))
            if wanted.get():
                return
        raise Closed

    with ThreadPoolExecutor(1, thread_name_prefix="sa2va-own-code") as thread:
        result = thread.submit(work, hand_over)
        result.add_done_callback(lambda _: pieces.put(()))
        try:
            while piece := pieces.get():
                yield piece[0]
                wanted.put(True)
            return result.result()
        finally:
            closed = True
            wanted.put(False)
