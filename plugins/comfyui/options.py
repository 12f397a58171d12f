"""What the node Model Options says, as it travels to the other nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

from sa2va_host.generation import GREEDY, Generation


@dataclass(frozen=True)
class Options:
    """Settings of the worker and of its answers. What is None comes from the user's settings (`sa2va_host.config`)."""

    quantization: str | None = None
    attention: str | None = None
    dtype: str | None = None
    device: str | None = None
    keep_alive: float | None = None
    """Seconds; 0 ends the worker after each call, negative keeps it for ever."""
    worker_python: str | None = None
    """The interpreter that runs the worker."""
    revision: str | None = None
    """The branch, tag or commit of a model of the hub."""
    trust_remote_code: bool | None = None
    """Whether a checkpoint's own code runs."""
    generation: Generation = field(default=GREEDY)


DEFAULT = Options()
