"""`sa2va logs`: what a worker wrote, the running one or the last one that ended."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn, TypeAlias

from . import options
from .workers import serves

if TYPE_CHECKING:
    from sa2va_host.lifecycle.rendezvous import RunDirectory

EXAMPLES = """examples:
  sa2va logs                    what the newest worker wrote
  sa2va logs -f                 and what it goes on to write, until Ctrl-C
  sa2va logs -n 20 sa2va-tiny   the last lines of one model's worker
  sa2va logs --json             {"log": path, "lines": [...]}; with -f such a
                                document for whatever comes

Ctrl-C is how -f ends, and the exit code is 130 then.
"""
Writer: TypeAlias = "Callable[[Path, Iterable[bytes]], None]"
"""Prints lines of a log, which it is also told."""
_POLL = 0.2
_LISTENS = re.compile(rb" worker \d+ of (.+) listens$", re.MULTILINE)
"""An early line of a worker's log (`sa2va_worker.process`): all that names the model of one that has ended."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "logs",
        help="show what a worker wrote",
        description="Show the log of a running worker, or of the last one that ended if none runs. Without MODEL"
        " it is the newest of all. Which file it is stands on stderr.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="the model that the worker serves")
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="go on with what is written from now on, by this worker and by the next one when it has ended",
    )
    parser.add_argument(
        "-n", "--lines", type=_count, metavar="N", help="only the last N lines (default: all)"
    )
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host.config import load_settings
    from sa2va_host.errors import InvalidInput
    from sa2va_host.lifecycle.workers import run_directory

    directory, model = run_directory(load_settings()), arguments.model
    logs = [*ended_logs(directory, model), *living_logs(directory, model)]
    if not logs:
        of = f" of {model}" if model else ""
        raise InvalidInput(f"No worker{of} has left a log in {directory.path}.")
    write = _write_document if arguments.json else _write
    if arguments.follow:
        try:
            follow(directory, model, logs[-1], arguments.lines, write)
        except KeyboardInterrupt:  # how following ends; nothing was cancelled that a message should tell of
            return 130
    with _open(logs[-1]) as file:
        write(logs[-1], _last(file, arguments.lines))
    return 0


def living_logs(directory: RunDirectory, model: str | None) -> list[Path]:
    """The logs of the workers that live, of this model or of any; the newest worker's is the last."""
    return [
        Path(record.log)
        for record in directory.living()
        if model is None or serves(record.specification.checkpoint, model)
    ]


def ended_logs(directory: RunDirectory, model: str | None) -> list[Path]:
    """All other logs that are kept, of this model or of any; the last is the one that was written last."""
    living = living_logs(directory, None)
    found = []
    for log in directory.path.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):  # whoever starts a worker sweeps old ones away
            if log not in living and (model is None or serves(_model_of(log), model)):
                found.append((log.stat().st_mtime, log))
    return [log for _, log in sorted(found)]


def follow(
    directory: RunDirectory, model: str | None, log: Path, last: int | None, write: Writer
) -> NoReturn:
    """Write the last lines of the log and then each that is added, to it or to the log of the worker after it."""
    while True:
        with _open(log) as file:
            write(log, _last(whole_lines(file), last))
            while not (living := living_logs(directory, model)) or log in living:
                time.sleep(_POLL)
                if lines := list(whole_lines(file)):
                    write(log, lines)
            if rest := list(file):
                write(log, rest)
        log, last = living[-1], None


def whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines that are complete by now; the others are for the next call."""
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line


def _model_of(log: Path) -> str:
    """The checkpoint that the worker was started for; empty where the log does not tell."""
    with log.open("rb") as file:
        found = _LISTENS.search(file.read(1 << 14))
    return found[1].decode("utf-8", "replace") if found else ""


def _last(lines: Iterable[bytes], count: int | None) -> Iterable[bytes]:
    return lines if count is None else deque(lines, maxlen=count)


def _open(log: Path) -> IO[bytes]:
    print(f"==> {log} <==", file=sys.stderr, flush=True)
    return log.open("rb")


def _write(_log: Path, lines: Iterable[bytes]) -> None:
    if sys.stdout.isatty():
        sys.stdout.writelines(line.decode("utf-8", "backslashreplace") for line in lines)
    else:
        sys.stdout.buffer.writelines(lines)
    sys.stdout.flush()


def _write_document(log: Path, lines: Iterable[bytes]) -> None:
    texts = [line.decode("utf-8", "replace").rstrip("\n") for line in lines]
    print(json.dumps({"log": str(log), "lines": texts}, ensure_ascii=False), flush=True)


def _count(text: str) -> int:
    """A number of lines; for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text)
