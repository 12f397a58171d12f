"""Measure this machine and write a dated report: `python -m benchmarks [PART ...]`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from . import machine, report
from .figures import NotMeasured, Plan, table

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
"""Each is a module here whose `measure(plan: Plan)` returns a list of `Figure`, or raises `NotMeasured`."""


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
    now = datetime.now(timezone.utc)
    folder = arguments.output or Path(__file__).parent / "results" / f"{now:%Y-%m-%d}"
    about = {"date": f"{now:%Y-%m-%d %H:%M} UTC", **machine.describe()}
    sections, failed = [], False
    with workers_of_its_own():
        for name in arguments.parts or PARTS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            section, well = measure(name, plan)
            failed = failed or not well
            sections.append(section)
            print(f"not measured: {section.reason}" if section.reason else table(section.figures), flush=True)
            report.write(folder, about, sections)  # after each part: what a later one breaks is not lost
    print(folder / report.NAME)
    return 2 if failed else int(any(figure.missed for section in sections for figure in section.figures))


@contextlib.contextmanager
def workers_of_its_own() -> Iterator[None]:
    """Inside, workers meet in a run directory that nobody else uses: they are stopped again and again."""
    from sa2va_host import list_workers, stop_worker

    with tempfile.TemporaryDirectory(prefix="sa2va-", ignore_cleanup_errors=True) as folder:
        os.environ["SA2VA_RUN_DIR"] = str(Path(folder) / "run")
        try:
            yield
        finally:
            for worker in list_workers():
                stop_worker(worker, force=True)


def measure(name: str, plan: Plan) -> tuple[report.Section, bool]:
    """What came of a part, and whether it did what it should: a machine that lacks something is no failure."""
    begun = time.monotonic()
    try:
        figures = importlib.import_module(f".{name}", __package__).measure(plan)
    except NotMeasured as why:
        return report.Section(name, PARTS[name], (), str(why)), True
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are measured
        traceback.print_exc()
        return report.Section(name, PARTS[name], (), f"it failed with {type(error).__name__}: {error}"), False
    print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return report.Section(name, PARTS[name], figures), True


if __name__ == "__main__":
    sys.exit(main())
