"""A worker's start taken apart: each stage timed, in a process of its own that goes through them as a worker does.

`python -m benchmarks.stages FOLDER DTYPE BEGUN` prints them as JSON, in seconds. BEGUN is when the process was
started, as `time.time` counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

OWN = "interpreter and our own modules"
TORCH = "import torch"
MODELS = "import transformers and our models"
ATTENTION = "try the attention"
EMPTY = "build the empty model"
FRONT = "load tokenizer and processor"
WEIGHTS = "load the weights"
STAGES = (OWN, TORCH, MODELS, ATTENTION, EMPTY, FRONT, WEIGHTS)


def measure(folder: Path, dtype: str) -> dict[str, float]:
    """Seconds of each of `STAGES` for a checkpoint on the processor."""
    command = [sys.executable, "-m", "benchmarks.stages", str(folder), dtype, repr(time.time())]
    seconds: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return seconds


class _Laps(dict[str, float]):
    """Seconds by name; each time that passes goes to the name that is said at its end."""

    def __init__(self, begun: float) -> None:
        self._last = begun

    def end(self, name: str) -> None:
        now = time.time()
        self[name] = self.get(name, 0.0) + now - self._last
        self._last = now


def main() -> None:
    """Start as a worker does, and print how long that took."""
    place, dtype_name, begun = sys.argv[1:]
    laps = _Laps(float(begun))

    from sa2va_worker import process, server  # noqa: F401 - what a worker has before it can be found
    from sa2va_worker.__main__ import make_engine
    from sa2va_worker.libraries import importing

    make_engine()
    laps.end(OWN)
    with importing():
        laps.end(MODELS)
        import torch

        laps.end(TORCH)
        from sa2va_worker import attention, engine  # noqa: F401 - the second for all that it imports
        from sa2va_worker.models.checkpoint import Checkpoint, find_folder
        from sa2va_worker.models.families import family
        from sa2va_worker.models.sa2va import build, load
    laps.end(MODELS)
    device, dtype = torch.device("cpu"), getattr(torch, dtype_name)
    attending = attention.choose("auto", device, dtype)
    laps.end(ATTENTION)
    checkpoint = Checkpoint(find_folder(place))
    model = build(checkpoint, device, dtype, attending.name)
    laps.end(EMPTY)
    family(checkpoint.config).front(checkpoint)
    laps.end(FRONT)
    for _ in load(model, checkpoint):
        pass
    laps.end(WEIGHTS)
    print(json.dumps(laps))


if __name__ == "__main__":
    main()
