"""What the ``timings`` of a result say: seconds by phase, and the names that stand below.

A phase is named as it is in `sa2va_host.events.Progress`. It counts work on this call alone, without the turns that
other calls took in between. The engine, the worker's scheduler and the client's call each add what they know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TOTAL = "total"
"""Seconds from asking to the answer, as the caller's clock saw them: waiting, starting and loading included."""
LOAD = "load"
"""Seconds the worker took, once, to import its libraries and load the model; whichever call waited for it."""
FIRST_TOKEN = "first_token"  # noqa: S105 - a name, no secret
"""Seconds of the call's own work until its first token was there."""
TOKENS = "tokens"
"""How many tokens were generated, the one that ends the answer included."""
TOKENS_PER_SECOND = "tokens_per_second"
"""Those, divided by the seconds of generating, in which the prompt is read too."""
PROCESS_PEAK_BYTES = "process_peak_bytes"
"""The most main memory that the worker ever held."""
DEVICE_PEAK_BYTES = "device_peak_bytes"
"""The most device memory that the worker ever had in use; 0 on a processor, whose memory is the process's."""

_NO_PHASE = {TOTAL, LOAD, FIRST_TOKEN, TOKENS, TOKENS_PER_SECOND, PROCESS_PEAK_BYTES, DEVICE_PEAK_BYTES}
_ADDED = {TOTAL, TOKENS}


def phases(timings: Mapping[str, float]) -> dict[str, float]:
    """The phases alone, in seconds; their sum is the model's own time for the call."""
    return {name: value for name, value in timings.items() if name not in _NO_PHASE}


def together(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The timings of several calls of one worker: what can be added is, of the rest it is the largest."""
    sums: dict[str, float] = {}
    for timings in several:
        for name, value in timings.items():
            added = name in _ADDED or name not in _NO_PHASE
            sums[name] = sums.get(name, 0.0) + value if added else max(sums.get(name, 0.0), value)
    if TOKENS_PER_SECOND in sums and sums.get("generating"):
        sums[TOKENS_PER_SECOND] = sums[TOKENS] / sums["generating"]
    return sums
