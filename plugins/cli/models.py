"""`sa2va models` and `sa2va pull`: which models are on this machine, and how one gets there."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from . import options
from .text import byte_size, table

if TYPE_CHECKING:
    from sa2va_host.checkpoints import Found

HEADINGS = ("NAME", "FAMILY", "SIZE", "FROM", "STATE", "PATH")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare both commands."""
    models = commands.add_parser(
        "models",
        help="list the models that are on this machine",
        description="List the models that are on this machine: the bundled one, those in the folders of the setting"
        " model_folders, and those in the hub's cache. What is listed can be given to --model, by its name or path.",
        epilog="examples:\n  sa2va models\n  SA2VA_MODEL_FOLDERS=/data/models sa2va models --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_json(models)
    models.set_defaults(command=run_models)

    pull = commands.add_parser(
        "pull",
        help="fetch a model from the hub",
        description="Fetch a model from the hub into its cache: weights, configuration and tokenizer, no code. Ctrl-C"
        " stops, the same command goes on. HF_ENDPOINT, HF_TOKEN and HF_HOME count.",
        epilog="examples:\n  sa2va pull ByteDance/Sa2VA-Qwen3-VL-4B\n"
        "  sa2va pull ByteDance/Sa2VA-Qwen3-VL-4B --revision main",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pull.add_argument("model", metavar="MODEL", help="ORG/NAME, as the hub calls it")
    options.add_revision(pull)
    options.add_json(pull)
    pull.set_defaults(command=run_pull)


def run_models(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host.checkpoints import find_all
    from sa2va_host.choice import choose
    from sa2va_host.config import load_settings

    settings = load_settings()
    found = find_all(settings.model_folders)
    default = choose(settings)
    if arguments.json:
        listed = [document(each) for each in found]
        print(json.dumps({"models": listed, "default": vars(default)}, indent=2, ensure_ascii=False))
        return 0
    print(table([HEADINGS, *(row(each) for each in found)]))
    print(f"The default is {default.model}" + (f": {default.reason}" if default.reason else "."))
    return 0


def run_pull(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host.config import load_settings
    from sa2va_host.hub import pull

    from .display import Display

    settings = load_settings(revision=arguments.revision)
    try:
        with Display() as display:
            found = pull(
                arguments.model,
                revision=settings.revision,
                offline=settings.offline,
                on_event=display.event,
            )
    except KeyboardInterrupt:
        print("What has come is kept; the same command goes on from there.", file=sys.stderr)
        raise
    if arguments.json:
        print(json.dumps(document(found), indent=2, ensure_ascii=False))
    else:
        print(f"{found.name} is here, {byte_size(found.contents.size_on_disk)} in {found.folder}")
    return 0


def row(found: Found) -> tuple[str, ...]:
    """One line of `sa2va models`."""
    fields = document(found)
    family, state = fields["family"] or "?", fields["problem"] or "ok"
    return found.name, family, byte_size(fields["size"]), found.source, state, str(found.folder)


def document(found: Found) -> dict[str, Any]:
    """One model as `--json` prints it; ``size`` is in bytes, ``problem`` null for a model that is whole."""
    problem = found.contents.problem
    return {
        "name": found.name,
        "family": found.contents.family,
        "size": found.contents.size_on_disk,
        "source": found.source,
        "revision": found.revision or None,
        "path": str(found.folder),
        "problem": problem or None,
    }
