"""Run the measurements and print them as a Markdown table: `python -m benchmarks [import] [warm] [cold]`."""

from __future__ import annotations

import argparse
import sys

from . import host_import
from .figures import Figure, table

MEASUREMENTS = ("import", "warm", "cold")


def main() -> int:
    """Returns 1 when a figure misses its aim."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="*", default=MEASUREMENTS, help="import, warm, cold (default: all)")
    parser.add_argument("--model", default="sa2va-tiny")
    parser.add_argument("--prompt", default="the red circle")
    parser.add_argument("--repeat", type=int, default=10)
    arguments = parser.parse_args()
    unknown = set(arguments.what) - set(MEASUREMENTS)
    if unknown:
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    if "import" in arguments.what:
        figures += host_import.measure(arguments.repeat)
    if "warm" in arguments.what:
        from . import warm_call

        figures += warm_call.measure(arguments.model, arguments.prompt, arguments.repeat)
    if "cold" in arguments.what:
        from . import cold_start

        figures += cold_start.measure(arguments.model, arguments.prompt, min(arguments.repeat, 3))
    print(table(figures))
    missed = [figure for figure in figures if figure.aim is not None and figure.median > figure.aim]
    for figure in missed:
        print(f"missed its aim: {figure.name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
