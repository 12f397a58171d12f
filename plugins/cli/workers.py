"""`sa2va ps` and `sa2va stop`: the worker processes of this user."""

from __future__ import annotations

import argparse

from . import options


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare both commands."""
    ps = commands.add_parser("ps", help="list the running workers", description="List the running workers.")
    options.add_json(ps)
    ps.set_defaults(command=run_ps)

    stop = commands.add_parser(
        "stop",
        help="end a worker and get its memory back",
        description="End workers; returns when the processes are gone and all of their memory is free.",
    )
    which = stop.add_mutually_exclusive_group(required=True)
    which.add_argument("model", metavar="MODEL", nargs="?", help="the model that the worker serves")
    which.add_argument("--all", action="store_true", help="every worker of this user")
    stop.add_argument("--force", action="store_true", help="also while calls of others are running")
    stop.set_defaults(command=run_stop)


def run_ps(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    raise SystemExit(2)


def run_stop(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    raise SystemExit(2)
