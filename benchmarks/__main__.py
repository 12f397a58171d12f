"""Measure this machine and write a dated report: `python -m benchmarks [PART ...]`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from .figures import Figure, Plan
from .runner import Part, run

PARTS = {
    "boundary": "The boundary between the processes",
    "host_import": "Importing the host",
    "warm_call": "A call to a warm worker",
    "full_size_masks": "Masks at full size",
    "cold_start": "Cold start",
    "load_memory": "Memory of loading",
    "language": "The language model",
    "upstream": "Against upstream's code",
    "gpu": "On a GPU",
}
"""Each is a module here whose `measure(plan: Plan)` gives `Figure`s, or raises `NotMeasured`."""


def main() -> int:
    """Returns 1 when a figure misses its aim, 2 when a part failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--model", default=Plan.model, help="which worker is called (default: %(default)s)")
    parser.add_argument("--prompt", default=Plan.prompt, help="(default: %(default)s)")
    parser.add_argument(
        "--repeat", type=int, default=Plan.repeat, help="of cheap things (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: benchmarks/results/DATE")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    plan = Plan(arguments.repeat, arguments.model, arguments.prompt)
    return run({name: part(name, plan) for name in arguments.parts or PARTS}, arguments.output)


def part(name: str, plan: Plan) -> Part:
    """One of `PARTS`. What its module lacks shows when it is measured."""

    def measure() -> Iterable[Figure]:
        figures: Iterable[Figure] = importlib.import_module(f".{name}", __package__).measure(plan)
        return figures

    return Part(PARTS[name], measure)


if __name__ == "__main__":
    sys.exit(main())
