"""How libraries are imported: without what is never used of them, and without a search for garbage meanwhile."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

UNUSED = ("scipy", "sklearn")
"""What transformers imports with every model where it is installed, sklearn in earlier versions, and no model needs."""


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Around the worker's first import of torch, transformers and what of ours needs them.

    Libraries make half a million objects that all stay. The collector would look through them nearly a thousand times
    meanwhile; afterwards it leaves them alone for good. A process that has transformers already is left as it is.
    """
    if "transformers" in sys.modules:
        yield
        return
    collecting = gc.isenabled()
    gc.disable()
    try:
        with _passed_over():
            yield
        gc.freeze()
    finally:
        if collecting:
            gc.enable()


@contextlib.contextmanager
def absent(name: str) -> Iterator[None]:
    """Have Python say meanwhile that a library is not installed."""
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment] # as Python has it for what must not be imported
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


@contextlib.contextmanager
def _passed_over() -> Iterator[None]:
    """Have transformers, and nobody else, believe meanwhile that what is `UNUSED` is not installed."""
    from transformers.utils import import_utils

    # It remembers what it was told; before 5.0 it asks when it is imported itself, and that has happened.
    questions = {name: getattr(import_utils, f"is_{name}_available") for name in UNUSED}
    remembered = {name: ask for name, ask in questions.items() if hasattr(ask, "cache_clear")}
    for name, ask in remembered.items():
        ask.cache_clear()
        with absent(name):
            ask()
    try:
        yield
    finally:
        for ask in remembered.values():
            ask.cache_clear()
