"""What the lifecycle's promises measured: every value is held against its promise, and a table of them can be kept."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = float(os.environ.get("SA2VA_TEST_PATIENCE") or 3.0) if "CI" in os.environ else 1.0
"""Deadlines are multiplied by this."""
FILE = os.environ.get("SA2VA_FIGURES")
"""Where the table goes, one JSON document a line. Read at import: a fixture cleans the environment later."""


def slowness() -> float:
    """How much slower than meant this machine is now: an idle one starts such a Python in a tenth of a second."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import zmq, msgspec, numpy"], check=True)
    crowd = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 1.0
    return max(1.0, crowd, (time.monotonic() - begun) / 0.1)


def promise(took: float, seconds: float) -> None:
    """Assert that something took no longer than promised. Other people's load is measured, and counted out."""
    if took > seconds * PATIENCE:
        assert took <= seconds * PATIENCE * slowness(), f"took {took:.2f} s, promised {seconds:.2f} s"


@dataclass
class Figures:
    """One test's measured values, in seconds, by the promise's number in docs/reliability.md and what was measured."""

    test: str
    values: dict[tuple[int, str, float], list[float]] = field(default_factory=lambda: defaultdict(list))
    counts: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, case: int, what: str, seconds: float, promised: float) -> None:
        """Keep a value, and assert that it is within its promise."""
        self.values[case, what, promised].append(seconds)
        promise(seconds, promised)

    def count(self, case: int, what: str, **counts: object) -> None:
        """Keep what was counted. What it must be is the test's to assert."""
        self.counts.append({"case": case, "what": what, "counts": counts, "test": self.test})

    def keep(self) -> None:
        """Add this test's lines to the table, where one is wanted."""
        if FILE is None:
            return
        with Path(FILE).open("a") as table:
            for (case, what, promised), values in self.values.items():
                line = {
                    "case": case,
                    "what": what,
                    "promised": promised,
                    "worst": round(max(values), 4),
                    "median": round(statistics.median(values), 4),
                    "times": len(values),
                    "test": self.test,
                }
                table.write(json.dumps(line) + "\n")
            table.writelines(json.dumps(counted) + "\n" for counted in self.counts)
