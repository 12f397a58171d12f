"""The command line's parser, and the one place where errors become a sentence and an exit code.

Nothing heavy is imported here: each command imports what it needs when it runs, so that help and mistakes
are quick, and a command that was named imports no other.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from sa2va_host import errors

from . import streams

if TYPE_CHECKING:
    from sa2va_host.plugins.hookspecs import FrontEnd

COMMANDS = {
    "segment": "segment",
    "video": "video",
    "chat": "chat",
    "demo": "demo",
    "models": "models",
    "show": "model_details",
    "pull": "models",
    "rm": "removal",
    "load": "workers",
    "ps": "workers",
    "stop": "workers",
    "logs": "logs",
    "config": "settings",
    "plugins": "extensions",
    "doctor": "doctor",
    "setup": "setup",
    "completion": "completion",
}
"""The module that declares each command."""
_LISTING = ("-h", "--help")
"""First words that list the commands, and with them the front ends of plugins."""

EXIT_CODES = {
    0: "done; an answer without objects is an answer",
    1: "something unexpected, a file that could not be written, or a failure that `doctor` found",
    2: "the request is wrong: arguments, a picture that cannot be read, a setting; or some of several pictures failed",
    3: "the model was not found or could not be loaded",
    4: "the worker failed; the next call starts a new one",
    5: "refused, because the worker is busy with the calls of others",
    6: "out of memory",
    7: "a time limit was reached",
    130: "cancelled, by Ctrl-C or by a forced stop",
}

_BY_ERROR: tuple[tuple[type[errors.Sa2VAError], int], ...] = (
    (errors.InvalidInput, 2),
    (errors.ConfigError, 2),
    (errors.ModelNotFound, 3),
    (errors.ModelLoadFailed, 3),
    (errors.UnloadRefused, 5),
    (errors.WorkerBusy, 5),
    (errors.OutOfMemory, 6),
    (errors.DeadlineExceeded, 7),
    (errors.Cancelled, 130),
    (errors.WorkerError, 4),
    (errors.ProtocolMismatch, 4),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see `EXIT_CODES`)."""
    streams.prepare()
    debug = os.environ.pop("SA2VA_DEBUG", "") not in (
        "",
        "0",
    )  # of this command; the library knows no such setting
    try:
        words = sys.argv[1:] if argv is None else argv
        first = words[0] if words else ""
        chosen = build_parser(first, plugged_front_ends() if first in _LISTING else ()).parse_args(words)
    except SystemExit as stop:  # argparse has printed help or a complaint
        return stop.code if isinstance(stop.code, int) else 2
    try:
        code = chosen.command(chosen)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("Cancelled.", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        sentence, code = explain(error)
        print(f"sa2va: {sentence}", file=sys.stderr)
    return int(code)


def sentence(error: BaseException) -> str:
    """What is told of an error where the command goes on after it."""
    if isinstance(error, Exception):
        return explain(error)[0]
    return "Cancelled." if isinstance(error, KeyboardInterrupt) else type(error).__name__


def explain(error: Exception) -> tuple[str, int]:
    """The sentence for people and the exit code of an error."""
    if isinstance(error, errors.Sa2VAError):
        lines = [str(error) or type(error).__name__, *(f"  worker: {line}" for line in error.log_tail[-5:])]
        return "\n".join(lines), next((code for kind, code in _BY_ERROR if isinstance(error, kind)), 1)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or error}.", 1
    return f"unexpected {type(error).__name__}: {error} (SA2VA_DEBUG=1 shows where).", 1


def plugged_front_ends() -> list[FrontEnd]:
    """Those of plugins, in whose place the program never comes here: they are listed, no more."""
    from sa2va_host.plugins.manager import create_manager, find_front_ends

    return [
        each for name, each in find_front_ends(create_manager()).items() if name not in ("cli", *COMMANDS)
    ]


def build_parser(first: str = "", front_ends: Iterable[FrontEnd] = ()) -> argparse.ArgumentParser:
    """The parser of every command; `parse_args` leaves the function to call in `command`.

    Where the command line's first word names a command, the others are left out: it does not pay for their import.
    ``front_ends`` are those of plugins, which are listed beside the commands.
    """
    codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())
    parser = _Parser(
        prog="sa2va",
        description="Say what you mean, get masks. The model stays warm in a worker process between calls.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    chosen = [COMMANDS[first]] if first in COMMANDS else dict.fromkeys(COMMANDS.values())
    for name in chosen:
        import_module(f".{name}", __package__).add_to(commands)
    for each in front_ends:
        summary = " ".join(each.summary.split()).replace("%", "%%")
        commands.add_parser(each.name, help=f"{summary} (plugin)", add_help=False)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where there is more to read. The parsers of the commands are such too."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does, but what is unknown is the mistake of the command that was given it."""
        chosen, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return chosen, rest

    def error(self, message: str) -> NoReturn:
        """Exit with code 2, as argparse does."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=more.get("help"))

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        print(f"sa2va {metadata.version('sa2va-host')}")
        parser.exit()
