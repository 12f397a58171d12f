"""`sa2va show`: all that is known of one model, whether it is on this machine or not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sa2va_host.errors import ModelLoadFailed, ModelNotFound
from sa2va_host.machine.commands import sa2va_command

from . import options
from .text import byte_size

if TYPE_CHECKING:
    from sa2va_host.config import Settings
    from sa2va_host.models.checkpoints import Found
    from sa2va_host.plugins.hookspecs import KnownModel

EXAMPLES = """examples:
  sa2va show sa2va-tiny
  sa2va show ByteDance/Sa2VA-Qwen3-VL-4B
  sa2va show ./checkpoints/mine --json
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "show",
        help="show what is known of one model",
        description="Show what is known of one model: its family, size, precision, files, revision, place, licence and"
        " memory, and whether it is complete. Of one that is not on this machine, what the table of known models says.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a bundled name, a checkpoint folder or ORG/NAME")
    parser.add_argument(
        "--revision", metavar="NAME", help="the commit of a model of the hub (default: all here)"
    )
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from sa2va_host.config import load_settings

    settings = load_settings()
    found = [
        each
        for each in _meant(arguments.model, settings)
        if not arguments.revision or each.revision == arguments.revision
    ]
    known = _known(found[0].name if found else arguments.model, settings)
    if not found and known is None:
        raise ModelNotFound(
            f"There is no model {arguments.model!r} on this machine, nor among the known ones.",
            advice=f"`{sa2va_command('models', '--all')}` lists them.",
        )
    documents = [document(each, known) for each in found] or [_absent(known, settings)]  # type: ignore[arg-type]
    if arguments.json:
        print(json.dumps({"models": documents}, indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(_lines(each) for each in documents))
    return 0


def document(found: Found, known: KnownModel | None) -> dict[str, Any]:
    """One model on this machine, as `--json` prints it: sizes in bytes, null for what is not known."""
    from sa2va_host.models.weights import parameters

    contents = found.contents
    problem = contents.problem
    precisions: dict[str, int] = {}
    try:
        precisions = parameters(contents.files)
    except (ModelLoadFailed, OSError, ValueError) as error:
        problem = problem or (error.message if isinstance(error, ModelLoadFailed) else str(error))
    count = sum(precisions.values())
    try:
        files = {file.name: file.stat().st_size for file in sorted(found.folder.iterdir()) if file.is_file()}
    except OSError as error:
        files, problem = {}, problem or error.strerror or "it cannot be looked into"
    return {
        "name": found.name,
        "family": contents.family or None,
        "complete": not problem,
        "problem": problem or None,
        "size": contents.size_on_disk,
        "parameters": count or None,
        "dtype": next(iter(precisions), None),
        "memory": _memory(known, count),
        "licence": (known.licence if known else "") or ("MIT" if found.source == "bundled" else None),
        "source": found.source,
        "revision": found.revision or None,
        "path": str(found.folder),
        "files": files,
    }


def _absent(known: KnownModel, settings: Settings) -> dict[str, Any]:
    """One that is not on this machine."""
    from .models import known_document

    about = known_document(known, settings)
    return {
        "name": known.name,
        "family": about["family"],
        "complete": False,
        "problem": "it is not on this machine",
        "size": about["download"],
        "parameters": about["parameters"],
        "dtype": None,
        "memory": about["memory"],
        "licence": about["licence"],
        "source": None,
        "revision": None,
        "path": None,
        "files": {},
        "command": about["command"],
    }


def _memory(known: KnownModel | None, parameters: int) -> dict[str, int | None]:
    """Bytes that a device holds, by quantization: of a known model as the table says, else from its parameters."""
    from sa2va_host.models.known_models import PLAIN, QUANTIZED_BYTES, WORKING_MEMORY, memory

    if known is not None and known.parameters:
        return {each: memory(known, each) or None for each in QUANTIZED_BYTES}
    plain = round(parameters * PLAIN + WORKING_MEMORY) if parameters else None
    return {each: plain if each == "none" else None for each in QUANTIZED_BYTES}


def _lines(about: dict[str, Any]) -> str:
    """One model as people read it."""
    memory = ", ".join(
        f"{byte_size(size)}{'' if each == 'none' else f' in {each}'}"
        for each, size in about["memory"].items()
        if size
    )
    rows = {
        "family": about["family"],
        "complete": "yes" if about["complete"] else f"no: {about['problem']}",
        "size": byte_size(about["size"]) if about["size"] else None,
        "parameters": f"{about['parameters'] / 1e6:,.1f} million" if about["parameters"] else None,
        "dtype": about["dtype"],
        "memory": f"about {memory}" if memory else None,
        "licence": about["licence"],
        "source": about["source"],
        "revision": about["revision"],
        "path": about["path"],
        "fetch with": about.get("command"),
    }
    lines = [
        about["name"],
        *(f"  {name:<11} {value or '-'}" for name, value in rows.items() if name != "fetch with" or value),
    ]
    lines += [
        f"  {'files' if not place else '':<11} {name}  {byte_size(size) if size >= 5e5 else f'{size} bytes'}"
        for place, (name, size) in enumerate(about["files"].items())
    ]
    return "\n".join(lines)


def _meant(model: str, settings: Settings) -> list[Found]:
    """The checkpoints on this machine that a name or a path means, broken ones too."""
    from sa2va_host.models.checkpoints import bundled_folder, find, identify, is_hub_name, repo_folder

    from .models import present

    path = Path(model).expanduser()
    if (bundled_folder() / model / "config.json").is_file():
        return [identify(bundled_folder() / model)]
    if is_hub_name(model) and (repo_folder(model) / "snapshots").is_dir():
        return [
            identify(each) for each in sorted((repo_folder(model) / "snapshots").iterdir()) if each.is_dir()
        ]
    listed = [each for each in present(settings) if model in (each.name, each.name.rpartition("/")[2])]
    if listed:
        return listed
    if path.is_dir():
        return [identify(path)]
    try:
        return [find(model, folders=settings.model_folders)]
    except ModelNotFound:
        return []


def _known(name: str, settings: Settings) -> KnownModel | None:
    from sa2va_host.models.known_models import known_models
    from sa2va_host.plugins.manager import create_manager, find_known_models

    plugged = find_known_models(create_manager()).values()
    return next(
        (
            each
            for each in known_models(settings, plugged)
            if name in (each.name, each.name.rpartition("/")[2])
        ),
        None,
    )
