"""The model's last answers, kept while ComfyUI runs: a question that was answered already does not run the model again.

ComfyUI keeps a node's outputs only while none of its inputs change. A threshold, an outline or a wire changes them, and
the model needs none of these: what it answers depends on the pixels, the prompt, the checkpoint, how it is loaded and
how its words are chosen. Kept are the low-resolution logits, in host memory alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sa2va_host.errors import Sa2VAError

if TYPE_CHECKING:
    from sa2va_host import Sa2VA
    from sa2va_host.generation import Generation
    from sa2va_host.results import AnsweredBy, Segmentation

    from .watch import Watch

T = TypeVar("T")
OVERHEAD = 2048
"""Bytes counted for an answer beside its logits and text: keys, objects, places in tables."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered(Generic[T]):
    """What the model answered, and what it takes to keep it."""

    value: T
    size: int
    """Bytes in memory."""
    notes: Sequence[str] = ()
    worker: AnsweredBy | None = None
    """Who answered. Of nobody the answer is not kept."""


class ResultCache:
    """Answers by question, bounded in bytes: the one that was not used for longest goes first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Answered[Any]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """What they take."""
        return self._bytes

    def get(self, key: Hashable) -> Answered[Any] | None:
        """The answer to this question, which is the last to go from now on; None where there is none."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, answered: Answered[Any], limit: int) -> None:
        """Keep an answer, with all others in at most ``limit`` bytes. One that is larger by itself is not kept, and
        drives nobody out.
        """
        if answered.size > limit:
            _log.info(
                "An answer of %.1f MB is not kept: comfyui_cache_bytes is %d.", answered.size / 1e6, limit
            )
            return
        with self._lock:
            before = self._kept.pop(key, None)
            self._bytes += answered.size - (before.size if before else 0)
            self._kept[key] = answered
            while self._bytes > limit:
                self._bytes -= self._kept.popitem(last=False)[1].size

    def clear(self) -> None:
        """Forget all answers."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0


RESULTS = ResultCache()
"""Of all nodes of this ComfyUI."""


def ask_once(
    sa: Sa2VA,
    watch: Watch,
    question: Hashable,
    generation: Generation,
    content: Callable[[], Hashable | None],
    ask: Callable[[], Answered[T]],
) -> T:
    """What ``ask`` answers, or has answered before.

    ``question`` is everything that the call says beside ``generation``, and of which kind it is; ``content`` tells what
    the images are, the same for the same pixels, None where that cannot be told. An answer is kept only if the content
    and the checkpoint (`sa2va_host.models.identity`) are the same before and after. What ``ask`` raises is not kept.
    Words drawn at random without a seed are asked for each time.
    """
    from sa2va_host.config import load_settings

    limit = load_settings().comfyui_cache_bytes
    is_random = generation.do_sample and generation.seed is None
    images = content() if limit and not is_random else None
    if images is None:
        answered = ask()
        watch.note(answered.notes)
        return answered.value
    specification = sa.specification
    key = (question, generation, specification, images)
    kept = RESULTS.get(key)
    if kept is not None:
        watch.answered_earlier([*sa.notes, *kept.notes])
        _leave(sa)
        value: T = kept.value
        return value
    answered = ask()
    watch.note(answered.notes)
    if answered.worker is not None and (specification, images) == (sa.specification, content()):
        own = tuple(note for note in answered.notes if note not in sa.notes)
        RESULTS.put(key, replace(answered, notes=own, size=answered.size + OVERHEAD), limit)
    return answered.value


def size_of(answers: Iterable[Segmentation]) -> int:
    """Bytes of logits and texts. The logits become read-only: whoever wrote into them would change later answers."""
    total = 0
    for answer in answers:
        answer.logits.setflags(write=False)
        total += answer.logits.nbytes + len(answer.text.encode("utf-8", "replace"))
    return total


def _leave(sa: Sa2VA) -> None:
    """End an idle worker where none is to stay after a call, although this one was not made."""
    if sa.settings.keep_alive == 0:
        with contextlib.suppress(Sa2VAError):
            sa.unload(timeout=0)
