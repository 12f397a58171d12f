"""Measures parts one after the other, and keeps a report of what is known so far."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from . import machine, report
from .figures import Figure, NotMeasured, table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Part:
    """Figures under a title. `measure` gives them all at once or one by one, and raises `NotMeasured` where the machine
    lacks something.
    """

    title: str
    measure: Callable[[], Iterable[Figure]]


def run(parts: Mapping[str, Part], folder: Path | None, suffix: str = "") -> int:
    """Measure parts by their names, print them, and write the report, by default into `results/DATE` and the suffix.

    Returns 1 when a figure misses its aim, 2 when a part failed.
    """
    now = datetime.now(timezone.utc)
    folder = folder or RESULTS / f"{now:%Y-%m-%d}{suffix}"
    about = {"date": f"{now:%Y-%m-%d %H:%M} UTC", **machine.describe()}
    # A program that was started before finds its byte code; some build environments keep none.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    done: list[report.Section] = []
    failed = False
    with workers_of_its_own():
        for name, part in parts.items():
            print(f"{name} ...", file=sys.stderr, flush=True)
            section = report.Section(name, part.title, ())
            for section, well in measure(name, part):
                failed = failed or not well
                report.write(folder, about, [*done, section])  # what breaks or ends it later loses nothing
            done.append(section)
            if section.reason:
                print(f"not measured: {section.reason}", flush=True)
            if section.figures:
                print(table(section.figures), flush=True)
    print(folder / report.NAME)
    return 2 if failed else int(any(figure.missed for section in done for figure in section.figures))


def measure(name: str, part: Part) -> Iterator[tuple[report.Section, bool]]:
    """What is known of a part after each of its figures and at its end, and whether it did what it should: a machine
    that lacks something is no failure.
    """
    begun = time.monotonic()
    section = report.Section(name, part.title, ())
    try:
        for figure in part.measure():
            section = replace(section, figures=(*section.figures, figure))
            print(f"{time.monotonic() - begun:5.0f} s  {figure.panel} {figure.name}", file=sys.stderr)
            yield section, True
    except NotMeasured as why:
        section = replace(section, reason=str(why))
        yield section, True
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are measured
        traceback.print_exc()
        yield replace(section, reason=f"it failed with {type(error).__name__}: {error}"), False
    else:
        yield section, True


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
