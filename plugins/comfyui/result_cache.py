"""The model's last answers, kept while ComfyUI runs: a question that was answered already does not run the model again.

ComfyUI keeps a node's outputs only while none of its inputs change. A threshold, an outline or a wire changes them, and
the model needs none of these: what it answers depends on the pixels, the prompt, the checkpoint, how it is loaded and
how its words are chosen. Kept are the low-resolution logits, in host memory alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sa2va_host.errors import Sa2VAError

if TYPE_CHECKING:
    from sa2va_host import Sa2VA
    from sa2va_host.generation import Generation
    from sa2va_host.protocol.specification import Specification
    from sa2va_host.results import AnsweredBy, Segmentation

    from .watch import Watch

T = TypeVar("T")
Files = tuple[tuple[str, int, int, int, int], ...]
"""Path, size, time of modification, time of change (both ns) and inode of each file of a checkpoint."""

OVERHEAD = 2048
"""Bytes counted for an answer beside its logits and text: keys, objects, places in tables."""
CLOCKS = 2.0
"""Seconds by which a file's time and a process's may disagree: Linux tells the time of its start in whole seconds."""
_WORKERS = 64
"""Of how many workers it is known which files they have loaded."""

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
        self._loaded: OrderedDict[AnsweredBy, Files] = OrderedDict()
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

    def has_loaded(self, worker: AnsweredBy, files: Files, *, surely: bool) -> bool:
        """Whether a worker runs the checkpoint that these files are: they may have been replaced since it loaded them.

        ``surely``: it was started after they were seen.
        """
        with self._lock:
            if worker not in self._loaded:
                if not surely and _newest(files) > worker.started - CLOCKS:
                    return False
                self._loaded[worker] = files
                while len(self._loaded) > _WORKERS:
                    self._loaded.popitem(last=False)
            return self._loaded[worker] == files


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
    and the checkpoint's files are the same before and after, and the worker has loaded these files. What ``ask`` raises
    is not kept. Words drawn at random without a seed are asked for each time.
    """
    from sa2va_host.config import load_settings

    limit = load_settings().comfyui_cache_bytes
    is_random = generation.do_sample and generation.seed is None
    images = content() if limit and not is_random else None
    if images is None:
        answered = ask()
        watch.note(answered.notes)
        return answered.value
    files = _files(sa.specification)
    key = (question, generation, sa.specification, sa.settings.worker_python, files, images)
    kept = RESULTS.get(key)
    if kept is not None:
        watch.answered_earlier([*sa.notes, *kept.notes])
        _leave(sa)
        value: T = kept.value
        return value
    surely = _newest(files) > time.time() - CLOCKS and not sa.status()
    answered = ask()
    watch.note(answered.notes)
    if (
        answered.worker is not None
        and (files, images) == (_files(sa.specification), content())
        and RESULTS.has_loaded(answered.worker, files, surely=surely)
    ):
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


def _files(specification: Specification) -> Files:
    """What is on disk for a model; nothing for one that is no folder."""
    folders = [folder for folder in (specification.checkpoint, specification.tracker_decoder) if folder]
    return tuple(file for folder in folders for file in _in_folder(folder))


def _in_folder(folder: str) -> Files:
    """All files, in subfolders too, but for hidden ones (`.git`, `.cache`), of which no checkpoint is made."""
    found = []
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118 - a fraction of the time, and this is asked for each image
            with contextlib.suppress(OSError):
                about = os.stat(path)  # noqa: PTH116
                times = about.st_mtime_ns, about.st_ctime_ns
                found.append((path, about.st_size, *times, about.st_ino))
    return tuple(sorted(found))


def _newest(files: Files) -> float:
    """When any of the files was changed last, in seconds since 1970; 0 for none.

    Their time of change cannot be set by hand; where it is that of their creation (Windows), the other one counts too.
    """
    times = [max(mtime, ctime) if os.name == "nt" else ctime for _, _, mtime, ctime, _ in files]
    return max(times, default=0) / 1e9
