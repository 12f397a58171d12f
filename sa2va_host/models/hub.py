"""Fetching a checkpoint from the hub into its cache, and removing it: the one place of this project that uses the
network.

huggingface_hub lists, authenticates, transfers and lays out the cache. What is added here is what its
`snapshot_download` lacks: a file that was cut off is taken up where it stopped, in the next call too (newer versions
begin it anew, and a checkpoint has files of 5 GB), Ctrl-C ends it at once (it waits for its threads), and each failure
is one sentence. It reads `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE`; `sa2va_host.models.checkpoints` says where the
cache is.
"""

from __future__ import annotations

import errno
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_host.errors import InvalidInput, ModelNotFound, Sa2VAError
from sa2va_host.events import Event, Progress
from sa2va_host.machine.commands import extra_command

from .checkpoints import Found, find, hub_cache, is_commit, is_hub_name, pull_command, repo_folder
from .choice import check_name

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""Weights, configuration and tokenizer: all that is ever read. No pickles, no code."""
CODE = "*.py"
"""Fetched besides, where the user trusts one commit of it."""
_ETAG = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 2**20
_TIMEOUT = 30.0
"""How long the hub may take to say what a model consists of, in seconds."""


@dataclass(frozen=True)
class _File:
    """One file that is to be fetched. ``size`` is in bytes, 0 where the hub does not tell."""

    name: str
    url: str
    blob: Path
    size: int

    @property
    def partial(self) -> Path:
        return self.blob.with_name(f"{self.blob.name}.incomplete")

    @property
    def begun(self) -> int:
        """Bytes that an earlier call left. They count only where the file's hash can tell that they are right."""
        if not _SHA256.fullmatch(self.blob.name) or not self.partial.is_file():
            return 0
        size = self.partial.stat().st_size
        return size if size <= self.size else 0


def pull(
    model: str,
    *,
    revision: str = "",
    code: bool = False,
    offline: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Found:
    """Have the hub's ``model`` (`ORG/NAME`) in the cache, and say where it is. What is there is not fetched again.

    ``revision`` is a branch, a tag or a commit; empty means `main`. ``code``: also the Python files, for which
    ``revision`` must be a commit. Nothing of it is run. ``offline`` refuses. ``on_event`` receives
    `Progress` of the phase ``downloading``, in bytes, on this thread; what it raises ends the call, as Ctrl-C does,
    and the next call goes on from there.

    Raises `InvalidInput` for what is no `ORG/NAME`, `ModelLoadFailed` for a checkpoint that is known not to run here,
    `ModelNotFound` with the reason when the hub does not give it,
    OSError when it cannot be written, and `Sa2VAError` when another process is fetching it.
    """
    if not is_hub_name(model):
        raise InvalidInput(f"{model!r} is no name of the hub.", advice="It looks like ORG/NAME.")
    check_name(model, trusted=code)
    if code and not is_commit(revision):
        raise InvalidInput(
            f"The code of {model} is only fetched from one commit, and its revision is {revision or 'main'!r}.",
            advice="Read it on the hub, then give the commit (40 digits) that you read.",
        )
    patterns = (*PATTERNS, CODE) if code else PATTERNS
    again = pull_command(model, revision)
    if offline:
        raise ModelNotFound(
            f"{model} is not fetched: offline is set.", advice=f"Unset it (SA2VA_OFFLINE), then `{again}`."
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelNotFound(
            "Fetching models needs the library huggingface_hub.",
            advice=f"`{extra_command('hub')}`, then `{again}`.",
        ) from error
    with _in_words(model, revision), _alone(model), _without_bars():
        files = _missing(model, revision, patterns)
        _fetch_all(files, on_event or (lambda _: None))
        # Every file lies in the cache by now: this makes the snapshot and the reference to it.
        snapshot = snapshot_download(
            model,
            revision=revision or None,
            cache_dir=hub_cache(),
            allow_patterns=list(patterns),
            ignore_patterns="*/*",
        )
        for file in files:  # a file system without links has got a copy, and one is enough
            copy = Path(snapshot) / file.name
            if copy.is_file() and not copy.is_symlink():
                file.blob.unlink(missing_ok=True)
    return find(model, revision=revision)


def cached(model: str) -> tuple[list[str], int]:
    """The commits of the hub's ``model`` that are in the cache, and how many bytes its folder takes there.

    Raises `ModelNotFound` where there is nothing of it, `InvalidInput` for what is no `ORG/NAME`.
    """
    if not is_hub_name(model):
        raise InvalidInput(f"{model!r} is no name of the hub.", advice="It looks like ORG/NAME.")
    repo = repo_folder(model)
    if not repo.is_dir():
        raise ModelNotFound(f"{model} is not in the hub's cache, {hub_cache()}.")
    snapshots = repo / "snapshots"
    commits = sorted(each.name for each in snapshots.iterdir() if each.is_dir()) if snapshots.is_dir() else []
    files = (file for file in repo.rglob("*") if file.is_file() and not file.is_symlink())
    return commits, sum(file.stat().st_size for file in files)


def remove(model: str, commits: Sequence[str] = ()) -> int:
    """Remove the hub's ``model`` from the cache: these commits of it, or all; returns how many bytes came free.

    What another commit needs stays. Raises as `cached` does, `ModelNotFound` where huggingface_hub is missing, OSError
    as the system does, and `Sa2VAError` when another process is fetching it.
    """
    here, before = cached(model)
    try:
        from huggingface_hub import scan_cache_dir
    except ImportError as error:
        raise ModelNotFound(
            "Removing models needs the library huggingface_hub.",
            advice=f"`{extra_command('hub')}`, or remove the folder {repo_folder(model)}.",
        ) from error
    with _alone(model):
        scanned = scan_cache_dir(hub_cache())
        # Of this model alone: a commit may be one of another model's too, such as of a copy on the hub.
        ours = [each for each in scanned.repos if (each.repo_type, each.repo_id) == ("model", model)]
        whole = not commits or set(commits) >= set(here)
        chosen = {each.commit_hash for repo in ours for each in repo.revisions} if whole else set(commits)
        if chosen:
            replace(scanned, repos=frozenset(ours)).delete_revisions(*chosen).execute()
        if whole and repo_folder(model).is_dir():  # what was never whole is none of its revisions
            shutil.rmtree(repo_folder(model))
    return before if whole else before - cached(model)[1]


def _missing(model: str, revision: str, patterns: Sequence[str]) -> list[_File]:
    """What of the checkpoint is not in the cache yet. Raises huggingface_hub's errors, or `ModelNotFound`."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

    info = HfApi().model_info(model, revision=revision or None, timeout=_TIMEOUT)
    names = [file.rfilename for file in info.siblings or () if _is_wanted(file.rfilename, patterns)]
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ModelNotFound(
            f"{model} is no checkpoint that can be used: it lacks a config.json or *.safetensors files.",
            advice="Pickled weights are not loaded, since they can run code.",
        )
    repo = repo_folder(model)
    files: dict[Path, _File] = {}  # by blob: two names may share one
    for name in names:
        if (repo / "snapshots" / str(info.sha) / name).exists():
            continue
        url = hf_hub_url(model, name, revision=info.sha)
        metadata = get_hf_file_metadata(url)
        if not _ETAG.fullmatch(metadata.etag or ""):
            raise ModelNotFound(
                f"What answers at {url} is no hub: it sends no usable ETag.", advice="Check HF_ENDPOINT."
            )
        blob = repo / "blobs" / str(metadata.etag)
        if not blob.exists():
            files[blob] = _File(name, url, blob, metadata.size or 0)
    return list(files.values())


def _fetch_all(files: Sequence[_File], on_event: Callable[[Event], None]) -> None:
    """One after the other, on this thread. Raises OSError before the first when the disk has no room for all."""
    total = sum(file.size for file in files)
    needed = total - sum(file.begun for file in files)
    cache = hub_cache()
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} are free", str(cache)
        )
    done = 0
    for file in files:
        before = done

        def report(position: int, before: int = before) -> None:
            on_event(Progress("downloading", before + position, total, "bytes"))

        _fetch(file, report)
        done += file.size


def _fetch(file: _File, report: Callable[[int], None]) -> None:
    """Bring one file to its blob. `report` is told how many of its bytes are there."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # exported at run time

    begun = file.begun
    file.partial.parent.mkdir(parents=True, exist_ok=True)
    with _Counted(file.partial, "ab" if begun else "wb", report) as opened:
        http_get(
            file.url,
            opened,
            resume_size=begun,
            headers=build_hf_headers(),
            expected_size=file.size or None,
        )
    if begun and _sha256(file.partial) != file.blob.name:
        file.partial.unlink()  # a crash may have left a hole in what was there: all of it anew
        _fetch(file, report)
        return
    file.partial.replace(file.blob)


class _Counted(io.BufferedWriter):
    """A file that tells its length after each write."""

    def __init__(self, path: Path, mode: str, report: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, mode))
        self._report = report

    def write(self, data: ReadableBuffer, /) -> int:
        written = super().write(data)
        self._report(self.tell())
        return written


@contextmanager
def _in_words(model: str, revision: str) -> Iterator[None]:
    """The one place where huggingface_hub's errors, and those of the HTTP library below it, become ours."""
    from huggingface_hub import constants, errors

    login = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelNotFound(
            f"{model} is gated: its authors let in who asks.",
            advice=f"Ask at {constants.ENDPOINT}/{model}, then {login}.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        # To who has not logged in the hub answers 401 for what is private and for what is not there, else 404.
        similar = _similar(model)
        if error.response.status_code == 404:
            raise ModelNotFound(
                f"The hub has no model {model}: the name is wrong{similar}.",
                advice="Check it, capitals included; a private one must be shared with you.",
            ) from error
        raise ModelNotFound(
            f"The hub has no model {model}, or it is private.",
            advice=f"Check the name{similar}; for a private one {login}.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(
            f"{model} has no revision {revision!r}.", advice="Use one of its branches, tags or commits."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise ModelNotFound(
            f"{model} is not fetched: HF_HUB_OFFLINE is set.",
            advice=f"Unset it, then `{pull_command(model, revision)}`.",
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        said = error.response.headers.get("X-Error-Message") or error.response.reason_phrase
        raise ModelNotFound(
            f"The hub answered {status} for {model}: {said}.",
            advice=f"Try again later, or {login}." if status in (401, 403) else "Try again later.",
        ) from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined] # of whichever library it uses
        if (
            isinstance(error, OSError)
            and error.errno
            and not isinstance(error, (ConnectionError, TimeoutError))
        ):
            raise OSError(error.errno, error.strerror, error.filename or str(hub_cache())) from error
        why = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ModelNotFound(
            f"{constants.ENDPOINT} cannot be reached or broke off: {why}.",
            advice=f"What has come is kept; try `{pull_command(model, revision)}` again.",
        ) from error


def _similar(model: str) -> str:
    """` (did you mean ...?)`, of the models that are known."""
    from difflib import get_close_matches

    from .known_models import TABLE

    names = {known.name.casefold(): known.name for known in TABLE}
    close = get_close_matches(model.casefold(), names, n=1, cutoff=0.8)
    return f" (did you mean {names[close[0]]}?)" if close else ""


@contextmanager
def _alone(model: str) -> Iterator[None]:
    """Keep two processes from fetching one model at the same time."""
    from filelock import FileLock, Timeout

    path = hub_cache() / ".locks" / repo_folder(model).name / "sa2va-pull.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path).acquire(timeout=0):
            yield
    except Timeout as error:
        raise Sa2VAError(f"Another process is fetching {model}.", advice="Wait for it.") from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep huggingface_hub from drawing its own progress: events say it."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _is_wanted(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file is one of the repository's top folder that is fetched."""
    return "/" not in name and "\\" not in name and any(fnmatch(name, pattern) for pattern in patterns)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
