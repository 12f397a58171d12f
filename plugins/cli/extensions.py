"""`sa2va plugins`: what is installed, which hooks it implements, and what failed."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from . import options
from .text import table

EXAMPLES = """examples:
  sa2va plugins
  SA2VA_DISABLE_PLUGINS=this,that sa2va plugins   `all` leaves out all but ours
  SA2VA_TRACE_HOOKS=1 sa2va plugins               calls of hooks, on stderr

These are the plugins of this Python. A worker that runs in another one has
those that are installed there.
"""
HEADINGS = ("NAME", "DISTRIBUTION", "VERSION", "STATE", "HOOKS")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "plugins",
        help="list the plugins",
        description="List every installed plugin with the hooks that it implements, and whether it is enabled,"
        " disabled, or failed and why.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host.plugins.manager import list_plugins

    plugins = list_plugins()
    if arguments.json:
        print(json.dumps({"plugins": [asdict(plugin) for plugin in plugins]}, indent=2, ensure_ascii=False))
        return 0
    rows = [
        (plugin.name, plugin.distribution, plugin.version, plugin.state, ", ".join(plugin.hooks) or "-")
        for plugin in plugins
    ]
    print(table([HEADINGS, *rows]))
    for plugin in plugins:
        if plugin.state == "failed":
            print(f"{plugin.name}: {plugin.reason}")
    return 0
