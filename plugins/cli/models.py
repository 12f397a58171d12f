"""`sa2va models` and `sa2va pull`: which models are on this machine or could be, and how one gets there."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa2va_host.machine.commands import sa2va_command

from . import options
from .text import byte_size, table

if TYPE_CHECKING:
    from sa2va_host.config import Settings
    from sa2va_host.models.checkpoints import Found
    from sa2va_host.plugins.hookspecs import KnownModel

HEADINGS = ("NAME", "FAMILY", "SIZE", "FROM", "STATE", "PATH")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare both commands."""
    models = commands.add_parser(
        "models",
        help="list the models that are on this machine",
        description="List the models that are on this machine: the bundled one, those in the folders of the setting"
        " model_folders, and those in the hub's cache. What is listed can be given to --model, by its name or path.",
        epilog="examples:\n  sa2va models\n  sa2va models --all\n"
        "  SA2VA_MODEL_FOLDERS=/data/models sa2va models --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models.add_argument(
        "--all",
        action="store_true",
        help="list also what the hub has, with its size and the GPU memory it takes",
    )
    options.add_json(models)
    models.set_defaults(command=run_models)

    pull = commands.add_parser(
        "pull",
        help="fetch a model from the hub",
        description="Fetch a model from the hub into its cache: weights, configuration and tokenizer, and code only"
        " with --trust-remote-code. Ctrl-C stops, the same command goes on. HF_ENDPOINT, HF_TOKEN and HF_HOME count.",
        epilog="examples:\n  sa2va pull ByteDance/Sa2VA-Qwen3-VL-4B\n"
        "  sa2va pull ByteDance/Sa2VA-Qwen3-VL-4B --revision main",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pull.add_argument("model", metavar="MODEL", help="ORG/NAME, as the hub calls it")
    options.add_revision(pull)
    options.add_json(pull)
    options.add_quiet(pull)
    pull.set_defaults(command=run_pull)


def run_models(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from msgspec.structs import asdict

    from sa2va_host.config import load_settings
    from sa2va_host.models.choice import choose, recommend
    from sa2va_host.models.known_models import HEADINGS as KNOWN_HEADINGS
    from sa2va_host.models.known_models import cells

    settings = load_settings()
    found = present(settings)
    missing = absent(settings, found) if arguments.all else []
    default = choose(settings)
    better = recommend(settings) if default.fallback else None
    if arguments.json:
        listed: dict[str, Any] = {
            "models": [document(each) for each in found],
            "default": {"model": default.model, "reason": default.reason},
            "recommended": None if better is None else asdict(better),
        }
        if arguments.all:
            listed["absent"] = [known_document(each, settings) for each in missing]
        print(json.dumps(listed, indent=2, ensure_ascii=False))
        return 0
    print(table([HEADINGS, *(row(each) for each in found)]))
    print(f"The default is {default.model}" + (f": {default.reason}" if default.reason else "."))
    if better is not None:
        print(f"For this machine: `{better.command}`. {better.reason}")
    if missing:
        pull = f"{sa2va_command('pull')} NAME"
        print(f"\nNot on this machine; `{pull}` fetches one. A ~ stands before what is computed.")
        print(table([KNOWN_HEADINGS, *(cells(each) for each in missing)]))
    return 0


def present(settings: Settings) -> list[Found]:
    """The models on this machine: those that are found, and those that the settings give a path."""
    from msgspec.structs import replace

    from sa2va_host.models.checkpoints import find_all, identify

    placed = (
        replace(identify(Path(own.path)), name=name) for name, own in settings.models.items() if own.path
    )
    return [*find_all(settings.model_folders), *placed]


def absent(settings: Settings, found: Iterable[Found]) -> list[KnownModel]:
    """The known models that are not among those found, neither as `ORG/NAME` nor as `NAME`."""
    from sa2va_host.models.known_models import known_models
    from sa2va_host.plugins.manager import create_manager, find_known_models

    plugged = find_known_models(create_manager()).values()
    here = {each.name for each in found}
    return [
        each
        for each in known_models(settings, plugged)
        if not here & {each.name, each.name.rpartition("/")[2]}
    ]


def run_pull(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host.config import load_settings
    from sa2va_host.models.hub import pull

    from .display import Display

    settings = load_settings(revision=arguments.revision)
    try:
        with Display(quiet=arguments.quiet) as display:
            found = pull(
                arguments.model,
                revision=settings.revision,
                code=bool(arguments.trust_remote_code),
                offline=settings.offline,
                on_event=display.event,
            )
    except KeyboardInterrupt:
        print("What has come is kept; the same command goes on from there.", file=sys.stderr)
        raise
    if arguments.json:
        print(json.dumps(document(found), indent=2, ensure_ascii=False))
    elif not arguments.quiet:
        print(f"{found.name} is here, {byte_size(found.contents.size_on_disk)} in {found.folder}")
    return 0


def row(found: Found) -> tuple[str, ...]:
    """One line of `sa2va models`."""
    fields = document(found)
    family, state = fields["family"] or "?", fields["problem"] or "ok"
    return found.name, family, byte_size(fields["size"]), found.source, state, str(found.folder)


def document(found: Found) -> dict[str, Any]:
    """One model as `--json` prints it; ``size`` is in bytes, ``problem`` null for a model that is whole and runs."""
    from sa2va_host.models import unsupported

    why = unsupported.refusal(found.name) or unsupported.refusal_of(found.contents)
    problem = found.contents.problem or (why and f"not supported: it {why}")
    return {
        "name": found.name,
        "family": found.contents.family,
        "size": found.contents.size_on_disk,
        "source": found.source,
        "revision": found.revision or None,
        "path": str(found.folder),
        "problem": problem or None,
    }


def known_document(model: KnownModel, settings: Settings) -> dict[str, Any]:
    """One absent model as `--json` prints it: sizes in bytes, null for what is not known.

    ``published`` names the quantizations whose memory is; the others' is computed.
    """
    from sa2va_host.models.checkpoints import pull_command
    from sa2va_host.models.known_models import QUANTIZED_BYTES, memory

    own = settings.models.get(model.name)
    return {
        "name": model.name,
        "family": model.family or None,
        "parameters": model.parameters or None,
        "download": model.download or None,
        "memory": {each: memory(model, each) or None for each in QUANTIZED_BYTES},
        "published": list(model.memory),
        "licence": model.licence or None,
        "command": pull_command(model.name, own.revision if own else ""),
    }
