"""`sa2va config`: every setting, its value, and where that comes from."""

from __future__ import annotations

import argparse
import json
from typing import Any

from . import options
from .text import table

EXAMPLES = """examples:
  sa2va config
  sa2va config --path                 where the file is, or would be
  SA2VA_DEVICE=cpu sa2va config --json

The file is TOML with lines such as `keep_alive = 600`. A variable such as
SA2VA_KEEP_ALIVE comes before the file, an option such as --keep-alive before
both. What holds for one model stands in a table such as [models."ORG/NAME"].
A name that is no setting is refused, wherever it stands.
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "config",
        help="show the settings and where they come from",
        description="Show every setting with its value and where that comes from: default, file, or environment.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--path", action="store_true", help="print only the path of the configuration file")
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    import msgspec

    from sa2va_host.config import load_settings, origins, settings_file

    file = settings_file()
    if arguments.path:
        print(file)
        return 0
    values, sources = msgspec.to_builtins(load_settings()), origins()
    if arguments.json:
        document = {
            "file": str(file),
            "exists": file.exists(),
            "settings": {name: {"value": values[name], "from": source} for name, source in sources.items()},
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    rows = [(name, shown(values[name]), source) for name, source in sources.items()]
    print(table([("SETTING", "VALUE", "FROM"), *rows]))
    print(f"\nThe file is {file}{'' if file.exists() else ', which does not exist yet'}.")
    return 0


def shown(value: Any) -> str:
    """A value as the file would have it; TOML has no word for none."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
