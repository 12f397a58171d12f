"""`sa2va load`, `sa2va ps` and `sa2va stop`: the worker processes of this user."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa2va_host.errors import InvalidInput

from . import options
from .text import byte_size, seconds, table

if TYPE_CHECKING:
    from sa2va_host.lifecycle.status import WorkerStatus

LOAD_EXAMPLES = """examples:
  sa2va load                            what a call without --model takes
  sa2va load sa2va-tiny --keep-alive 1h
  sa2va load ByteDance/Sa2VA-Qwen3-VL-4B --quantization 8bit
"""
PS_EXAMPLES = """examples:
  sa2va ps
  sa2va ps --json
"""
STOP_EXAMPLES = """examples:
  sa2va stop                 the only one there is
  sa2va stop sa2va-tiny
  sa2va stop --all
  sa2va stop --all --force   even while somebody waits for an answer
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    load = commands.add_parser(
        "load",
        help="start a worker and load a model, ahead of the first call",
        description="Start a worker and have it load a model, so that the first call need not wait for that. The worker"
        " stays for the keep-alive. One that is there already is left as it is.",
        epilog=LOAD_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_model(load, positional=True)
    options.add_json(load)
    options.add_quiet(load)
    load.set_defaults(command=run_load)

    ps = commands.add_parser(
        "ps",
        help="list the running workers",
        description="List the running workers: what each serves and does, since when, the memory that it takes, and"
        " how much longer it stays when nobody asks it anything.",
        epilog=PS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_json(ps)
    ps.set_defaults(command=run_ps)

    stop = commands.add_parser(
        "stop",
        help="end a worker and get its memory back",
        description="End workers; returns when the processes are gone and all of their memory is free. Without MODEL it"
        " is the only worker; of several you name one.",
        epilog=STOP_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = stop.add_mutually_exclusive_group()
    which.add_argument(
        "model", metavar="MODEL", nargs="?", help="the model that the worker serves, or the worker's PID"
    )
    which.add_argument("--all", action="store_true", help="every worker of this user")
    stop.add_argument("--force", action="store_true", help="also while calls of others are running")
    options.add_json(stop)
    stop.set_defaults(command=run_stop)


def run_load(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from msgspec import to_builtins

    from .display import Display

    with Display(quiet=arguments.quiet) as display, options.connect(arguments, display) as sa:
        info = sa.load()
        worker = sa.status()
        model = sa.settings.model
    if arguments.json:
        print(json.dumps({"model": model, "loaded": to_builtins(info), "worker": document(worker)}, indent=2))
    elif not arguments.quiet:
        how = "was started and" if display.started_worker else "was there and"
        bits = "" if info.quantization == "none" else f", {info.quantization}"
        print(
            f"{short_name(model)} is in memory ({info.dtype}{bits} on {info.device}); worker {worker.pid} {how} stays"
            f" {'for ever' if worker.keep_alive < 0 else f'for {seconds(worker.keep_alive)}'}."
        )
    return 0


def run_ps(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host import list_workers

    workers = list_workers()
    if arguments.json:
        print(json.dumps({"workers": [document(worker) for worker in workers]}, indent=2))
    elif not workers:
        print("No worker is running.")
    else:
        print(table([HEADINGS, *(row(worker) for worker in workers)]))
    return 0


def run_stop(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code.

    Stopping what does not run is no failure: afterwards it does not run.
    """
    from sa2va_host import Sa2VAError, list_workers, stop_worker

    workers = list_workers()
    if arguments.model is None and not arguments.all and len(workers) > 1:
        raise InvalidInput(
            f"{len(workers)} workers are running:\n{table([HEADINGS, *(row(worker) for worker in workers)])}\n",
            advice="Name one by its model or PID, or give --all.",
        )
    chosen = [
        worker
        for worker in workers
        if arguments.model is None
        or arguments.model == str(worker.pid)
        or serves(worker.model, arguments.model)
    ]
    stopped = []
    refusals: list[Sa2VAError] = []
    for worker in chosen:
        try:
            outcome = stop_worker(worker, force=arguments.force)
        except Sa2VAError as error:  # it must not keep the others alive
            refusals.append(error)
            continue
        stopped.append({"pid": worker.pid, "model": worker.model, "how": outcome.rung})
        if not arguments.json:
            how = "" if outcome.rung in ("asked", "absent") else f"; it had to be {outcome.rung}"
            print(f"Worker {worker.pid} of {short_name(worker.model)} is gone{how}.")
    if arguments.json:
        print(json.dumps({"stopped": stopped}, indent=2))
    elif not chosen:
        of = f" of {arguments.model}" if arguments.model else ""
        print(f"No worker{of} is running.", file=sys.stderr)
    if refusals:
        for refusal in refusals[1:]:
            print(f"sa2va: {refusal}", file=sys.stderr)
        raise refusals[0]
    return 0


def serves(checkpoint: str, model: str) -> bool:
    """Whether a worker of this checkpoint serves this model, given as a name, a folder or a folder's last part."""
    return (
        model in (checkpoint, short_name(checkpoint), Path(checkpoint).name)
        or str(Path(model).resolve()) == checkpoint
    )


def short_name(checkpoint: str) -> str:
    """A checkpoint as people call it: a bundled name, `ORG/NAME`, or the last part of its folder."""
    from sa2va_host.models.checkpoints import identify

    return identify(Path(checkpoint)).name if Path(checkpoint).is_absolute() else checkpoint


HEADINGS = ("PID", "MODEL", "DEVICE", "DTYPE", "PHASE", "SINCE", "MEMORY", "KEEP-ALIVE")


def row(worker: WorkerStatus) -> tuple[str, ...]:
    """One line of `sa2va ps`."""
    memory = worker.memory_used or worker.host_memory
    if worker.keep_alive < 0:
        left = "for ever"
    elif worker.keep_alive_left is None:
        left = "in use"
    else:
        left = f"{seconds(worker.keep_alive_left)} left"
    return (
        str(worker.pid),
        short_name(worker.model),
        worker.device,
        worker.dtype if worker.quantization == "none" else f"{worker.dtype}, {worker.quantization}",
        worker.phase,
        seconds(worker.phase_seconds),
        byte_size(memory),
        left,
    )


def document(worker: WorkerStatus) -> dict[str, Any]:
    """One worker as `ps --json` prints it; times are seconds, memory bytes."""
    return {
        "pid": worker.pid,
        "model": worker.model,
        "device": worker.device,
        "dtype": worker.dtype,
        "quantization": worker.quantization,
        "phase": worker.phase,
        "phase_seconds": round(worker.phase_seconds, 3),
        "started": worker.started,
        "device_memory": worker.memory_used,
        "host_memory": worker.host_memory,
        "keep_alive": worker.keep_alive,
        "keep_alive_left": worker.keep_alive_left,
        "finished_calls": worker.finished_calls,
        "log": worker.log,
    }
