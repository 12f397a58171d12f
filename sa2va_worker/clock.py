"""How long one call takes: its phases and its tokens, as `sa2va_host.timings` names them."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

from sa2va_host.timings import FIRST_TOKEN, TOKENS, TOKENS_PER_SECOND


class Clock:
    """Counts the seconds inside its `with` blocks, so that the turns of other calls in between are not counted."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._tokens = 0
        self._first_token = 0.0

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """What happens inside belongs to `phase`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[phase] += time.monotonic() - began

    def count_token(self) -> None:
        """One more token was generated; it is counted after the `with` block that generated it."""
        if not self._tokens:
            self._first_token = sum(self._seconds.values())
        self._tokens += 1

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by phase, and what there is to say of the tokens once there is one."""
        found = dict(self._seconds)
        if self._tokens:
            found[FIRST_TOKEN] = self._first_token
            found[TOKENS] = float(self._tokens)
            found[TOKENS_PER_SECOND] = self._tokens / max(self._seconds["generating"], 1e-9)
        return found
