"""`sa2va completion`: what makes a shell complete the command's words, options, files and models."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator

from . import options

EXAMPLES = """examples:
  eval "$(sa2va completion bash)"                              in ~/.bashrc
  sa2va completion zsh > "${fpath[1]}/_sa2va"
  sa2va completion fish > ~/.config/fish/completions/sa2va.fish

`sa2va completion models` and `sa2va completion running` print the names that
these scripts offer for MODEL.
"""
SHELLS = ("bash", "zsh", "fish")
NAMES = ("models", "running")
RUNNING = ("logs", "stop")
"""The commands whose MODEL is one that a worker serves now."""
PLACES = {"DIR": "directory", "FILE": "file", "IMAGE": "file", "PYTHON": "file"}
"""What shtab is to complete for an argument, by the word that stands for it in the help."""
_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)
"""What every shell takes as one word as it stands; other names are not offered."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes this command in a shell",
        description="Print a script that completes this command in a shell.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", metavar="SHELL", choices=(*SHELLS, *NAMES), help=", ".join(SHELLS))
    options.add_json(parser)
    parser.set_defaults(command=run)


def annotate(parser: argparse.ArgumentParser, command: str = "") -> None:
    """Tell shtab, by attributes as it wants them, which arguments are files, folders and models."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to them
        if isinstance(action.choices, dict):  # of subcommands
            for name, subparser in action.choices.items():
                subparser.description = None  # so that the one-line help is shown beside its name
                annotate(subparser, name)
        elif action.metavar == "MODEL":
            names = "running" if command in RUNNING else "models"
            action.complete = _words(names, folders=bool(action.option_strings))  # type: ignore[attr-defined]
        elif action.metavar in PLACES:
            action.complete = PLACES[action.metavar]  # type: ignore[attr-defined]


def _words(names: str, *, folders: bool) -> dict[str, str | dict[str, str]]:
    """How each shell asks for names, and offers folders beside them; in the form of `shtab.cmd`."""
    # shtab makes bash treat what is offered as paths when the function's name ends so.
    function = f"_sa2va_{names}_dir" if folders else f"_sa2va_{names}"
    ask = f"$(sa2va completion {names} 2>/dev/null)"
    bash = [f'compgen -W "{ask}" -- "$1"', *(['compgen -d -- "$1"'] if folders else [])]
    zsh = [f'compadd -- ${{(f)"{ask}"}}', *(["_files -/"] if folders else [])]
    fish = f"(sa2va completion {names} 2>/dev/null)"
    return {
        "bash": function,
        "zsh": function,
        "fish": f"{fish} (__fish_complete_directories)" if folders else fish,
        "preamble": {
            "bash": f"{function}() {{\n  {'; '.join(bash)}\n}}\n",
            "zsh": f"{function}() {{\n  {'; '.join(zsh)}\n}}\n",
        },
    }


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    if arguments.what in NAMES:
        found = running_models() if arguments.what == "running" else known_models()
        names = [name for name in dict.fromkeys(found) if _PLAIN.fullmatch(name)]
        if arguments.json:
            names = [json.dumps({arguments.what: names})]
        for line in names:
            print(line)
        return 0
    import shtab

    from .main import build_parser, plugged_front_ends

    parser = build_parser("", plugged_front_ends())
    annotate(parser)
    script = shtab.complete(parser, arguments.what)
    print(json.dumps({"shell": arguments.what, "script": script}) if arguments.json else script)
    return 0


def running_models() -> Iterator[str]:
    """The models of the living workers, as people call them."""
    from sa2va_host.config import load_settings
    from sa2va_host.lifecycle.workers import run_directory

    from .workers import short_name

    for record in run_directory(load_settings()).living():
        yield short_name(record.specification.checkpoint)


def known_models() -> Iterator[str]:
    """The names of all models on this machine."""
    from sa2va_host.config import load_settings
    from sa2va_host.models.checkpoints import find_all

    for found in find_all(load_settings().model_folders):
        yield found.name
