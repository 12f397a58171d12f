"""Reading a video's frames on a thread of their own: whoever waits for a frame can be cancelled, or run out of time,
however long the frame takes to come.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeAlias, TypeVar

from sa2va_host.calls.call import FrameRead, Note, late
from sa2va_host.calls.session import next_note
from sa2va_host.cancellation import Cancellation
from sa2va_host.errors import Cancelled

Result = TypeVar("Result")
_Tasks: TypeAlias = "queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]]"

_LET_GO = 0.25
"""The longest that `Reader.close` waits for a frame that is being read, in seconds: a camera's or a file's is there by
then, so that the caller may close its camera or file. One that stalls is not waited for.
"""


class Reader:
    """Does one thing after the other on one thread, which begins with the first, in the context of who asked for it.

    All reading of a video happens there: what a source keeps for each thread (a database connection, say) it finds
    again. The thread is a daemon: a source that never answers does not hold up the end of the program.
    """

    def __init__(self) -> None:
        self._tasks: _Tasks = queue.SimpleQueue()
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, task: Callable[[], Result]) -> Future[Result]:
        """Have the thread do ``task`` after what it was given before. Once closed, that fails as `Cancelled`."""
        future: Future[Result] = Future()
        self._tasks.put((future, task))
        if self._thread is None:
            run = partial(contextvars.copy_context().run, _work, self._tasks, self._left)
            self._thread = threading.Thread(target=run, name="sa2va-reader", daemon=True)
            self._thread.start()
        if self._left.is_set():
            _refuse(self._tasks)
        return future

    def wait(
        self,
        task: Callable[[], Result],
        cancellation: Cancellation,
        *,
        timeout: float | None = None,
        asked: float = 0.0,
    ) -> Result:
        """What ``task`` returns or raises. Raises `Cancelled` when ``cancellation`` is, `DeadlineExceeded` when
        ``timeout`` seconds have passed since ``asked`` (monotonic clock); the thread may be busy with it for longer.
        """
        notes: queue.SimpleQueue[Note | Cancelled] = queue.SimpleQueue()
        with cancellation.heard_by(notes.put):
            future = self.begin(task)
            future.add_done_callback(lambda _: notes.put(FrameRead()))
            try:
                next_note(notes, None if timeout is None else asked + timeout)
            except queue.Empty:
                assert timeout is not None
                raise late(
                    timeout,
                    "while it waited for frames to be read",
                    "Raise timeout, or look at their source.",
                ) from None
            try:
                return future.result()
            finally:
                # A failure's traceback holds this frame, and must not hold the failure in a circle.
                del future

    def each(self, items: Iterator[Result], cancellation: Cancellation) -> Iterator[Result]:
        """The same items, each of which the thread asks for when it is asked for here."""
        while (item := self.wait(partial(_next, items), cancellation)) is not None:
            yield item[0]

    def leave(self) -> None:
        """End the thread once it has done what it is doing; the rest is not done. Waits for nothing."""
        self._left.set()
        self._tasks.put((Future(), lambda: None))  # wake it

    def close(self) -> None:
        """The same, and wait a moment for what it is doing."""
        self.leave()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_LET_GO)


def _next(items: Iterator[Result]) -> tuple[Result] | None:
    for item in items:
        return (item,)
    return None


def _refuse(tasks: _Tasks) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            future, _ = tasks.get_nowait()
            future.set_exception(Cancelled("The frames are read no longer."))


def _work(tasks: _Tasks, left: threading.Event) -> None:
    """The thread of a `Reader`, which it does not keep alive. Holds no frame while it waits."""
    while True:
        future, task = tasks.get()
        if left.is_set():
            future.set_exception(Cancelled("The frames are read no longer."))
            _refuse(tasks)
            return
        try:
            result = task()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            future.set_exception(error)
        else:
            future.set_result(result)
            del result
        del future, task
