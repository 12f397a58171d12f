"""A node's calls as ComfyUI's user sees them: the progress bar, words below it, and the Interrupt button.

Used by every node that asks the worker for something. What only some versions of ComfyUI have is guarded.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import re
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
from comfy_execution.utils import get_executing_context

from sa2va_host.cancellation import Cancellation
from sa2va_host.errors import Cancelled
from sa2va_host.events import Event, Progress
from sa2va_host.protocol.specification import AUTO

from .memory import make_room

if TYPE_CHECKING:
    from sa2va_host import Sa2VA

INTERRUPT_EVERY = 0.1
"""Seconds between two looks at the Interrupt button."""
LONGEST_ANSWER = 400
"""Characters of an answer that stay on a node; its output has all."""
_TEXT_EVERY = 0.1
"""Seconds between two messages to the browser."""
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
"""Where HTML takes a tag to begin (WHATWG HTML 13.2.5.6). Older front ends show this text as HTML: an answer or a
prompt would run what it holds. An invisible word joiner in between is text to every front end.
"""
_LOADING = ("starting", "loading")

_log = logging.getLogger(__name__)
_said: dict[str, str] = {}
"""The words that stand on each node."""
_current: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("sa2va_watch", default=None)


class Watch:
    """What a running node shows, and how it ends early: give `cancellation` to every call."""

    def __init__(self, calls: int, *, on_gpu: bool) -> None:
        self.cancellation = Cancellation()
        self._calls = max(1, calls)
        self._done = 0
        self._needs_room = on_gpu
        self._bar = comfy.utils.ProgressBar(self._calls)
        self._node = _node_id()
        self._begun = time.monotonic()
        self._phase, self._spoken = "", 0.0
        self._earlier = 0
        self.notes: list[str] = []
        self.model = ""
        """Who answers, as the node names it at the end."""
        self.answer = ""
        """What is shown of the answer at the end."""

    def call_done(self) -> None:
        """One of the calls has its answer."""
        self._done += 1
        self._bar.update_absolute(self._done, self._calls)

    def note(self, sentences: Iterable[str]) -> None:
        """What there is to know about an answer, which the node shows at the end, each sentence once."""
        self.notes += [sentence for sentence in dict.fromkeys(sentences) if sentence not in self.notes]

    def answered_earlier(self, notes: Iterable[str]) -> None:
        """One of the calls was not made: its answer is an earlier one, which had these notes."""
        self._earlier += 1
        self.note(notes)

    def summary(self) -> str:
        """`ByteDance/Sa2VA-4B: 3.2 s`, and which answers are earlier ones."""
        parts = [f"{time.monotonic() - self._begun:.1f} s"]
        if self._earlier and self._calls == 1:
            parts.append("the earlier answer")
        elif self._earlier:
            parts.append(f"{self._earlier} of {self._calls} answers are earlier ones")
        return (f"{self.model}: " if self.model else "") + ", ".join(parts)

    def event(self, event: Event) -> None:
        """Show what the worker says."""
        if not isinstance(event, Progress):
            return
        if event.phase in _LOADING and self._needs_room:
            self._needs_room = False
            make_room()
        if event.total and (self._calls == 1 or event.phase in (*_LOADING, "downloading")):
            self._bar.update_absolute(event.done, event.total)
        self._say(event)

    def finish(self) -> None:
        """All calls have their answers: the last phase does not stay on the node, the answer and the notes do."""
        # Front ends show two lines and scroll the rest: who answered and how the answer begins is in these.
        lines = [self.summary(), shorten(self.answer), *self.notes]
        _send_text("\n".join(filter(None, lines)), self._node)
        for sentence in self.notes:
            _log.warning("%s", sentence)

    def _say(self, event: Progress) -> None:
        now = time.monotonic()
        if event.phase == self._phase and now - self._spoken < _TEXT_EVERY:
            return
        self._phase, self._spoken = event.phase, now
        which = f"{self._done + 1} of {self._calls}: " if self._calls > 1 else ""
        _send_text(which + describe(event), self._node)


@contextlib.contextmanager
def watching(calls: int = 1, *, on_gpu: bool = True) -> Iterator[Watch]:
    """While inside, the node's calls are shown, and end within a moment when the user interrupts.

    ``calls`` says how many there will be. Raises ComfyUI's own exception for an interrupt.
    """
    watch = Watch(calls, on_gpu=on_gpu)
    over = threading.Event()
    thread = threading.Thread(target=_listen, args=(watch, over), name="sa2va-interrupt", daemon=True)
    token = _current.set(watch)
    thread.start()
    try:
        yield watch
        watch.finish()
    except Cancelled:
        check_interrupt()
        raise
    finally:
        over.set()
        thread.join()
        _current.reset(token)


def check_interrupt() -> None:
    """Raise ComfyUI's exception if the user has interrupted; between steps of work in this process."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def deliver(event: Event) -> None:
    """What every client is given as ``on_event``: hands an event to the node that waits on this thread."""
    watch = _current.get()
    if watch is not None:
        watch.event(event)


def answering(sa: Sa2VA, named: str) -> str:
    """The model that answers: the one that the user named, or what `auto` became, with what to beware of."""
    name = sa.choice.model if named == AUTO else named
    return f"{name}, which knows drawn shapes only" if sa.choice.fallback else name


def shorten(text: str) -> str:
    """An answer as far as a node has room for it."""
    text = text.strip()
    return text if len(text) <= LONGEST_ANSWER else text[: LONGEST_ANSWER - 2].rstrip() + " …"


def remark(sentence: str) -> None:
    """Add what there is to know about a result to the words on the node that is executed now, and to the log."""
    node = _node_id()
    _log.warning("%s", sentence)
    _send_text("\n".join(filter(None, [_said.get(node, ""), sentence])), node)


def describe(event: Progress) -> str:
    """`loading 1.2 of 9.3 GB`, `downloading 52 of 103 MB`, `tracking 12 of 500 frames`, `generating 20 tokens`."""
    done, total = str(event.done), str(event.total)
    unit = event.unit.removesuffix("s") if event.done == 1 and not event.total else event.unit
    if unit == "bytes":
        unit, scale, digits = ("GB", 1e9, 1) if (event.total or event.done) >= 1e9 else ("MB", 1e6, 0)
        done, total = (f"{size / scale:.{digits}f}" for size in (event.done, event.total or 0))
    if event.total:
        return f"{event.phase} {done} of {total} {unit}".rstrip()
    return f"{event.phase} {done} {unit}".rstrip() if event.done else event.phase


def _listen(watch: Watch, over: threading.Event) -> None:
    while not over.wait(INTERRUPT_EVERY):
        if comfy.model_management.processing_interrupted():
            watch.cancellation.cancel()
            return


def _node_id() -> str:
    context = get_executing_context()
    return context.node_id if context is not None else ""


def _send_text(text: str, node: str) -> None:
    """Words below the node's bar, where this ComfyUI can show them."""
    if not node:
        return
    _said[node] = text
    try:
        from server import PromptServer

        PromptServer.instance.send_progress_text(_TAG.sub("<\u2060", text), node)
    except (ImportError, AttributeError) as error:
        _log.debug("this ComfyUI shows no text on a node: %r", error)
