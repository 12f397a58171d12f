"""Where models are on this machine: bundled, in a folder, in the hub's cache. The network is never touched.

A checkpoint has many names (a path, a link to it, `ORG/NAME`, a branch, a commit) and one identity, the folder that it
lies in. `find` goes from the first to the second, so that whoever means one checkpoint shares one worker, and so that
the worker is given something that it can open. `sa2va_host.models.hub` is what fetches.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from sa2va_host.errors import ConfigError, ModelLoadFailed, ModelNotFound
from sa2va_host.machine.commands import sa2va_command

from .checkpoint_folder import MODEL_TYPE, CheckpointFolder
from .own_code import find_own_code

Source = Literal["bundled", "folder", "cache"]
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_HUB_NAME = re.compile(rf"{_NAME.pattern}/{_NAME.pattern}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")


class Found(msgspec.Struct, frozen=True):
    """A checkpoint on this machine."""

    name: str
    """As people call it: `sa2va-tiny`, `ORG/NAME`, or the last part of its folder."""
    folder: Path
    """Absolute, without links."""
    source: Source
    """Shipped with the worker, somewhere in a folder, or in the hub's cache."""
    revision: str = ""
    """The commit (40 hex digits) of a checkpoint in the hub's cache."""
    note: str = ""
    """A sentence on how it was found, where that is not as it was named."""

    @property
    def contents(self) -> CheckpointFolder:
        """What is in the folder."""
        return CheckpointFolder(self.folder)


def find(model: str, *, revision: str = "", folders: Sequence[str] = ()) -> Found:
    """The checkpoint that is meant, by the first of these that has it:

    1. the models that ship with the worker, by name;
    2. a folder, given by its path (its content is the worker's to judge);
    3. ``folders``, the setting ``model_folders``: ``FOLDER/ORG/NAME`` and ``FOLDER/NAME``;
    4. the hub's cache, which alone knows a ``revision``: a branch, a tag, a commit, or seven or more digits that one
       commit begins with. Empty means `main`, and where the cache has no `main` the only snapshot.

    Raises `ModelNotFound`, with the command that would fetch it, or with the snapshots where one of several may be
    meant; `ConfigError` for the revision of a folder; `ModelLoadFailed` for a folder that cannot be told to a worker.
    """
    if _NAME.fullmatch(model) and (bundled_folder() / model / "config.json").is_file():
        return identify(bundled_folder() / model)
    path = _expanded(model)
    if is_path(model) or (len(path.parts) > 1 and _is_folder(path)):
        if not _is_folder(path):
            raise ModelNotFound(f"There is no checkpoint folder {model!r}.", advice="Check the path.")
        if revision:
            raise ConfigError(
                f"revision is {revision!r}, but the folder {model!r} has none.",
                advice="Leave it out, or name the model as ORG/NAME.",
            )
        return _speakable(path)
    problems = []
    for candidate, note in _candidates(model, revision, folders):
        problem = CheckpointFolder(candidate).problem
        if not problem:
            return msgspec.structs.replace(_speakable(candidate), note=note)
        problems.append(f"{candidate} is broken: {problem}.")
    if is_hub_name(model):
        which = f"{model} at revision {revision!r}" if revision else model
        raise ModelNotFound(
            problems[0] if problems else f"{which} is not on this machine.",
            advice=f"Fetch it with `{pull_command(model, revision)}`.",
        )
    names = ", ".join(found.name for found in _bundled())
    raise ModelNotFound(
        problems[0] if problems else f"There is no model {model!r}.",
        advice=f"Name a bundled one ({names}), a folder, or ORG/NAME; `{sa2va_command('models')}` lists what is here.",
    )


def find_all(folders: Sequence[str] = ()) -> list[Found]:
    """Every Sa2VA checkpoint that `find` could be asked for, broken ones too: bundled, in ``folders``, in the cache.

    Those folders hold other models as well. One counts when its `config.json` says Sa2VA or, where that cannot be
    read, when its name does.
    """
    found = _bundled()
    for folder in folders:
        for child in _subfolders(_expanded(folder)):
            found.append(identify(child))
            nested = (identify(grandchild) for grandchild in _subfolders(child))
            found += [
                msgspec.structs.replace(each, name=f"{child.name}/{each.name}")
                if each.source == "folder"
                else each
                for each in nested
            ]
    for repo in _subfolders(hub_cache()):
        found += [identify(snapshot) for snapshot in _subfolders(repo / "snapshots")]
    once = {each.folder: each for each in reversed(found) if _is_sa2va(each)}  # links lead to one folder
    return list(reversed(once.values()))


def identify(folder: Path) -> Found:
    """The one `Found` of a folder, whatever path led to it. Its content is not looked at."""
    folder = folder.resolve()
    if folder.parent == bundled_folder().resolve():
        return Found(folder.name, folder, "bundled")
    repo = folder.parent.parent
    if folder.parent.name == "snapshots" and repo.name.startswith("models--"):
        return Found(repo.name.removeprefix("models--").replace("--", "/"), folder, "cache", folder.name)
    return Found(folder.name, folder, "folder")


def check_pin(found: Found, revision: str) -> None:
    """Refuse to trust the code of a model of the hub that is not pinned to a commit, which alone cannot change.

    Raises `ConfigError`, which names what would be run.
    """
    if found.source != "cache" or is_commit(revision):
        return
    code = find_own_code(found.contents)
    if code is not None:
        raise ConfigError(
            f"{found.name} would run its own code ({code}), and no commit of it is pinned.",
            advice=f"Read {found.folder}, then give --revision {found.revision}.",
        )


def is_path(model: str) -> bool:
    """Whether ``model`` is written as a path, so that it is no name whatever exists."""
    return model.startswith((".", "~", "/", "\\")) or model.endswith(("/", "\\")) or Path(model).is_absolute()


def is_hub_name(model: str) -> bool:
    """Whether ``model`` could be a model of the hub: `ORG/NAME`."""
    return _HUB_NAME.fullmatch(model) is not None


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, in full: a branch or a tag can be moved."""
    return _COMMIT.fullmatch(revision) is not None


def pull_command(model: str, revision: str = "") -> str:
    """What to type to have the hub's ``model`` on this machine: whole, with the paths of this installation."""
    return sa2va_command("pull", model, *(("--revision", revision) if revision else ()))


def bundled_folder() -> Path:
    """Where the models are that ship with the worker: beside its program, whichever interpreter runs that."""
    from sa2va_host.machine.worker_program import worker_command

    return Path(worker_command("")[-1]).parent / "bundled"


def hub_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """The hub's cache, as huggingface_hub (`constants.HF_HUB_CACHE`) finds it; it is not imported for that."""
    for variable, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        if environment.get(variable):
            return _expanded(os.path.expandvars(environment[variable])).absolute() / below
    return _expanded("~/.cache/huggingface/hub")


def repo_folder(model: str) -> Path:
    """Where the hub's cache keeps a model: `refs/REVISION` holds a commit, `snapshots/COMMIT` its files."""
    return hub_cache() / f"models--{model.replace('/', '--')}"


def _speakable(folder: Path) -> Found:
    """`identify`, for a folder whose name can be written in a message, which is UTF-8."""
    found = identify(folder)
    try:
        str(found.folder).encode()
    except UnicodeEncodeError as error:
        raise ModelLoadFailed(
            f"The name of the folder {str(found.folder)!r} is not UTF-8.", advice="Rename it."
        ) from error
    return found


def _candidates(model: str, revision: str, folders: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The existing folders that a name may mean, best first, each with the note of its `Found`."""
    if not (is_hub_name(model) or _NAME.fullmatch(model)):
        return
    for folder in folders if not revision else ():
        for name in dict.fromkeys((model, model.rpartition("/")[2])):
            if _is_folder(path := _expanded(folder) / name):
                yield path, ""
    repo = repo_folder(model)
    try:
        commit = (repo / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision
    if _COMMIT.fullmatch(commit) and _is_folder(repo / "snapshots" / commit):
        yield repo / "snapshots" / commit, ""
    elif not revision or _SHORT_COMMIT.fullmatch(revision):
        yield from _only_snapshot(model, revision)


def _only_snapshot(model: str, revision: str) -> Iterator[tuple[Path, str]]:
    """The only snapshot in the cache, of those that begin with a short ``revision``. Raises `ModelNotFound` where there
    are several.
    """
    snapshots = [
        folder
        for folder in _subfolders(repo_folder(model) / "snapshots")
        if is_commit(folder.name) and folder.name.startswith(revision)
    ]
    if len(snapshots) > 1:
        what = f"{len(snapshots)} snapshots of {model}"
        which = f"that begin with {revision}" if revision else "and none of them is `main`"
        raise ModelNotFound(
            f"{hub_cache()} has {what} {which}: {', '.join(folder.name for folder in snapshots)}.",
            advice="Choose one with --revision COMMIT.",
        )
    for folder in snapshots:
        note = (
            ""
            if revision
            else f"The hub's cache has no `main` of {model}: its only snapshot is used, {folder.name}."
        )
        yield folder, note


def _bundled() -> list[Found]:
    return [identify(folder) for folder in _subfolders(bundled_folder())]


def _is_sa2va(found: Found) -> bool:
    try:
        return bool(found.contents.config.get("model_type") == MODEL_TYPE)
    except ModelLoadFailed:
        return "sa2va" in found.name.lower() and any(child.is_file() for child in found.folder.iterdir())


def _expanded(text: str) -> Path:
    """The path with `~` resolved, or as it stands where nobody knows whose home that is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _is_folder(path: Path) -> bool:
    """False also for what cannot be looked at or is no possible path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where it cannot be looked into."""
    try:
        return sorted(child for child in folder.iterdir() if _is_folder(child))
    except OSError:
        return []
