"""`sa2va rm`: a model leaves the hub's cache."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_host.errors import InvalidInput, ModelNotFound, UnloadRefused
from sa2va_host.machine.commands import sa2va_command

from . import options
from .text import byte_size

if TYPE_CHECKING:
    from sa2va_host.config import Settings

EXAMPLES = """examples:
  sa2va rm ByteDance/Sa2VA-Qwen3-VL-4B
  sa2va rm ByteDance/Sa2VA-Qwen3-VL-4B --revision v1 --yes
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "rm",
        help="remove a model from the hub's cache",
        description="Remove a model that was fetched from the hub, and get its disk space back. Folders of your own and"
        " the bundled model are never touched.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="ORG/NAME, as the hub calls it")
    parser.add_argument(
        "--revision", metavar="NAME", help="the branch, tag or commit alone (default: all of the model)"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host.config import load_settings
    from sa2va_host.models.checkpoints import repo_folder
    from sa2va_host.models.hub import cached, remove

    settings = load_settings()
    _check_removable(arguments.model, settings)
    commits, size = cached(arguments.model)
    chosen = [_commit(arguments.model, arguments.revision, commits)] if arguments.revision else commits
    folder = repo_folder(arguments.model)
    _check_unused([folder / "snapshots" / commit for commit in chosen], settings)
    what = f"{arguments.model} at {chosen[0]}" if arguments.revision and len(commits) > 1 else arguments.model
    if not arguments.yes and not _agreed(f"Remove {what} ({byte_size(size)} in {folder})?"):
        print("Nothing is removed.", file=sys.stderr)
        return 1
    freed = remove(arguments.model, chosen)
    if arguments.json:
        print(
            json.dumps({"model": arguments.model, "revisions": chosen, "freed": freed, "path": str(folder)})
        )
    else:
        print(f"{what} is removed, {byte_size(freed)} are free again.")
    return 0


def _check_removable(model: str, settings: Settings) -> None:
    """Raises `InvalidInput` for what is no model of the hub's cache."""
    from sa2va_host.models.checkpoints import find, is_hub_name, repo_folder

    if is_hub_name(model) and repo_folder(model).is_dir():
        return
    try:
        found = find(model, folders=settings.model_folders)
    except ModelNotFound:
        if is_hub_name(model):
            return  # `cached` says that it is not there
        raise InvalidInput(
            f"{model!r} is no model of the hub's cache.",
            advice=f"`{sa2va_command('models')}` lists them, as ORG/NAME.",
        ) from None
    if found.source == "bundled":
        raise InvalidInput(f"{found.name} came with the program and is not removed.")
    if found.source == "cache":
        raise InvalidInput(
            f"{model} is {found.name} of the hub's cache.",
            advice=f"Say `{sa2va_command('rm', found.name)}`.",
        )
    raise InvalidInput(
        f"{found.folder} is a folder of your own, which this command never removes.",
        advice="Remove it yourself.",
    )


def _commit(model: str, revision: str, commits: list[str]) -> str:
    """The commit that a revision means."""
    from sa2va_host.models.checkpoints import repo_folder

    if revision in commits:
        return revision
    reference = repo_folder(model) / "refs" / revision
    commit = ""
    if reference.resolve().is_relative_to((repo_folder(model) / "refs").resolve()) and reference.is_file():
        commit = reference.read_text(encoding="utf-8").strip()
    if commit not in commits:
        raise ModelNotFound(
            f"{model} at revision {revision!r} is not in the hub's cache.",
            advice=f"There is: {', '.join(commits) or 'no whole one'}.",
        )
    return commit


def _check_unused(snapshots: list[Path], settings: Settings) -> None:
    """Raises `UnloadRefused` where a worker holds one of these folders."""
    from sa2va_host.lifecycle.workers import run_directory

    folders = {folder.resolve() for folder in snapshots}
    for record in run_directory(settings).living():
        used = (record.specification.checkpoint, record.specification.tracker_decoder)
        if any(Path(each).resolve() in folders for each in used if each):
            pid = record.process.pid
            raise UnloadRefused(
                f"Worker {pid} holds this model.",
                advice=f"End it first: {sa2va_command('stop', str(pid))}.",
                holders=[str(pid)],
            )


def _agreed(question: str) -> bool:
    """Whether the user says yes. Raises `InvalidInput` where there is nobody to ask."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput(
            "There is no terminal to ask on.", advice="Give --yes to remove it without a question."
        )
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
