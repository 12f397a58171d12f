"""What the driver counts as free once a worker was unloaded, and when."""

from __future__ import annotations

import time
from collections.abc import Callable

from sa2va_host.machine.nvidia import find_driver

from .figures import Figure, not_measured

WITHIN = 1.0
"""Seconds after which nothing may be left."""
_LEFT = "device memory left after unload, by the driver"
_UNTIL = "from unload until the driver counts as much free as before"


def free_memory() -> int | None:
    """Bytes that the driver says are free on all GPUs; None without a driver, or where it does not tell."""
    driver = find_driver()
    if driver is None or not all(gpu.memory for gpu in driver.gpus):
        return None
    return sum(gpu.free for gpu in driver.gpus)


def measure(unload: Callable[[], object], before: int | None) -> list[Figure]:
    """Unload the only worker that uses a GPU. `before` is what was free before it was started.

    What is left is what was left a second after `unload` was called, or when it returned, whichever is later.
    """
    begun = time.perf_counter()
    unload()
    returned = time.perf_counter() - begun
    took = Figure("unload", (returned,), WITHIN)
    if before is None:
        why = "no NVIDIA driver tells it here."
        return [took, not_measured(_UNTIL, why), not_measured(_LEFT, why)]
    while (left := before - (free_memory() or 0)) > 0 and time.perf_counter() - begun < WITHIN:
        time.sleep(0.01)
    until = Figure(_UNTIL, (time.perf_counter() - begun,), WITHIN)
    if left > 0:
        until = not_measured(_UNTIL, f"it did not within {WITHIN:g} s.")
    return [took, until, Figure(_LEFT, (float(max(0, left)),), 0.0, "bytes")]
