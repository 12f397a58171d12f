"""The run directory: how processes that do not know each other agree on one worker.

::

    <checkpoint>-<specification>.json   connection record of a living worker, owner-only, replaced atomically
    <checkpoint>.spawn                  lock: who holds it may start a worker for this checkpoint
    <checkpoint>-<specification>.life   lock: held by the worker for its whole life: never a second one
    <checkpoint>-<specification>.deaths when workers died before they were ready (stops endless restarts)
    <incarnation>.sock, .log            of one worker process: its socket, its output,
    <incarnation>.ready, .exit          whether its model was ever loaded, why it ended

Locks are the kernel's: they vanish with their holder. Everything is owner-only, and a directory that is
open to others is refused, since the records hold the token. Nothing here starts, signals or talks to a
process.

A directory belongs to one PID namespace, since process ids mean nothing in another: what runs in a container that
mounts the host's directory meets in a folder of it, `ns-<inode>` (`run_directory_of`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sa2va_host.errors import ConfigError, WorkerError
from sa2va_host.machine.processes import ProcessId, boot_id, is_alive, pid_namespace
from sa2va_host.protocol.envelope import PROTOCOL
from sa2va_host.protocol.specification import ModelInfo, Specification
from sa2va_host.protocol.transport import MAX_PATH, Endpoint

if TYPE_CHECKING:
    from filelock import FileLock

_MAX_RECORD = 1 << 20
_KEPT_LOGS = 10
_OLD = 60.0
"""Seconds after which a file that belongs to nobody is deleted."""
_UNUSED = 3600.0
"""The same for the empty folder of a PID namespace."""
_OF_ONE_WORKER = frozenset({".sock", ".log", ".ready", ".exit"})
_SUFFIXES = _OF_ONE_WORKER | {".json", ".spawn", ".life", ".deaths"}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one living worker. ``info`` is there once its model is loaded. ``created``: seconds
    since 1970.

    Fields that we do not know are passed over: a newer version's worker must be found, so that it can say that its
    protocol is another.
    """

    protocol: int = PROTOCOL
    incarnation: str
    token: str
    process: ProcessId
    specification: Specification
    endpoint: Endpoint
    log: str
    created: float
    launcher: ProcessId
    info: ModelInfo | None = None
    environment: str = ""
    """That of the Python that runs the worker (`sa2va_host.machine.environments`)."""

    def serves(self, specification: Specification) -> bool:
        """Whether a request for this specification is the worker's to answer."""
        return specification.is_served_by(self.specification, self.info, self.environment)

    @property
    def file_name(self) -> str:
        return f"{_stem(self.specification)}.json"


class ExitNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why a worker ended. ``orderly``: it had no calls left, so one that never began may go to the next
    worker.

    ``code``, ``message`` and ``advice`` are those of an error of `sa2va_host.errors` when it ended with one.
    """

    reason: str
    orderly: bool = False
    resend: bool = False
    code: str = ""
    message: str = ""
    advice: str = ""


class _Deaths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    boot: str
    times: list[float]
    last: str


class RunDirectory:
    """One owner-only directory, made on first use. Raises `ConfigError` when it cannot be trusted. ``within`` is the
    one that it is a folder of.
    """

    def __init__(self, path: Path, within: RunDirectory | None = None) -> None:
        self.path = _owner_only(path)
        self._within = within

    def write(self, record: Record) -> None:
        """Make the worker known, or change what is known of it. Atomic; readers see the old or the new
        one.
        """
        _replace(self.path / record.file_name, msgspec.json.encode(record))

    def remove(self, record: Record) -> None:
        """Forget a worker, and its socket file. Leaves the record of a later incarnation alone."""
        path = self.path / record.file_name
        found = self.place_of(record)
        if found is not None and found.incarnation == record.incarnation:
            path.unlink(missing_ok=True)
        if record.endpoint.path is not None:
            record.endpoint.path.unlink(missing_ok=True)

    def place_of(self, record: Record) -> Record | None:
        """The record that stands where this one is written; None when it is missing or damaged. Raises `WorkerError`
        where that is unknown.
        """
        return _read(self.path / record.file_name)

    def records(self) -> Iterator[Record]:
        """Every readable record, of the living and the dead, oldest first. Raises `WorkerError` where the directory
        cannot be read, for want of a file descriptor perhaps: what is not seen is not gone.
        """
        try:
            names = [entry.name for entry in os.scandir(self.path) if entry.name.endswith(".json")]
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise _unreadable(self.path, error) from error
        found = [record for name in names if (record := _read(self.path / name)) is not None]
        yield from sorted(found, key=lambda record: record.created)

    def living(self) -> Iterator[Record]:
        """The records whose very process is alive."""
        return (record for record in self.records() if is_alive(record.process))

    def find(self, specification: Specification) -> Record | None:
        """A living worker that serves this specification; the one started for exactly it first."""
        fitting = [record for record in self.living() if record.serves(specification) and _has_socket(record)]
        fitting.sort(key=lambda record: record.specification.key != specification.key)
        return fitting[0] if fitting else None

    def is_loading(self, specification: Specification) -> bool:
        """Whether a living worker may turn out to serve this specification once its model is loaded."""
        return any(
            record.info is None and specification.may_be_served_by(record.specification, record.environment)
            for record in self.living()
        )

    def spawn_lock(self, specification: Specification) -> FileLock:
        """Who holds it may start a worker for this checkpoint."""
        return self.spawn_lock_of(specification.checkpoint_key)

    def spawn_lock_of(self, checkpoint_key: str) -> FileLock:
        """The same by a specification's ``checkpoint_key``."""
        return _lock(self.path / f"{checkpoint_key}.spawn")

    def close_to_others(self) -> None:
        """For whoever has just taken the spawn lock: where the directory was deleted meanwhile, taking the lock has
        made it anew, as open as the umask says. Only our own user can have done so: others cannot write above it.
        """
        if sys.platform == "win32":
            return
        if self._within is not None:
            self._within.close_to_others()
        self.path.chmod(0o700)

    def life_lock(self, specification: Specification) -> FileLock:
        """Held by the worker itself, from before its socket exists until it ends."""
        return _lock(self.path / f"{_stem(specification)}.life")

    def log_path(self, incarnation: str) -> Path:
        return self.path / f"{incarnation}.log"

    def socket_path(self, incarnation: str) -> Path:
        """Where the worker binds. A short directory of our own under the temp directory when this path is
        too long.
        """
        path = self.path / f"{incarnation}.sock"
        if len(os.fsencode(path)) <= MAX_PATH:
            return path
        return _owner_only(self._short_folder()) / path.name

    def _short_folder(self) -> Path:
        """Where sockets are whose path here would be too long; each PID namespace has its own, as here."""
        short = Path(tempfile.gettempdir()) / f"sa2va-{_user()}"
        return short if self._within is None else short / self.path.name

    def write_exit(self, incarnation: str, note: ExitNote, *, unless_known: bool = False) -> None:
        """Say why a worker ends. With ``unless_known`` an earlier note stays."""
        path = self.path / f"{incarnation}.exit"
        if not (unless_known and path.exists()):
            _replace(path, msgspec.json.encode(note))

    def read_exit(self, incarnation: str) -> ExitNote | None:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode((self.path / f"{incarnation}.exit").read_bytes(), type=ExitNote)
        return None

    def mark_ready(self, incarnation: str) -> None:
        """The worker's model is loaded. A file of its own: the record may be swept before anybody looks."""
        _replace(self.path / f"{incarnation}.ready", b"")

    def was_ready(self, incarnation: str) -> bool:
        return (self.path / f"{incarnation}.ready").exists()

    def log_tail(self, incarnation: str, lines: int = 40) -> list[str]:
        """The last lines a worker wrote, without reading a long log."""
        try:
            with self.log_path(incarnation).open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - 16384))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line[:500] for line in text.splitlines() if line.strip()][-lines:]

    def note_death(self, specification: Specification, reason: str, window: float) -> None:
        """Count a worker that died while starting or loading."""
        now = time.monotonic()
        times = [moment for moment in self._deaths(specification).times if 0 <= now - moment < window]
        deaths = _Deaths(boot_id(), [*times, now][-100:], reason)
        _replace(self.path / f"{_stem(specification)}.deaths", msgspec.json.encode(deaths))

    def recent_deaths(self, specification: Specification, window: float) -> tuple[int, str]:
        """How many died within the last ``window`` seconds, and why the last one did."""
        deaths = self._deaths(specification)
        now = time.monotonic()
        return sum(0 <= now - moment < window for moment in deaths.times), deaths.last

    def forget_deaths(self, specification: Specification) -> None:
        """The model loaded: start counting anew."""
        (self.path / f"{_stem(specification)}.deaths").unlink(missing_ok=True)

    def _deaths(self, specification: Specification) -> _Deaths:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            path = self.path / f"{_stem(specification)}.deaths"
            deaths = msgspec.json.decode(path.read_bytes(), type=_Deaths)
            if deaths.boot == boot_id():  # the monotonic clock counts from the boot
                return deaths
        return _Deaths(boot_id(), [], "")

    def dead(self) -> list[Record]:
        """Records of workers that are known to be dead."""
        return [record for record in self.records() if not is_alive(record.process)]

    def stale(self, checkpoint_key: str) -> list[Record]:
        """Those of one checkpoint. Only for the holder of its spawn lock."""
        return [record for record in self.dead() if record.specification.checkpoint_key == checkpoint_key]

    def sweep_files(self) -> None:
        """Delete what workers long gone, and writers that were killed, have left; the latest logs stay to be read."""
        living = {record.incarnation for record in self.living()}
        kept = {log.stem for log in sorted(self.path.glob("*.log"), key=_age)[:_KEPT_LOGS]} | living
        for path in list(self.path.iterdir()):
            if path.suffix == ".sock":
                continue
            is_left = path.name.startswith(".") or (path.suffix in _OF_ONE_WORKER and path.stem not in kept)
            if is_left and _age(path) > _OLD:
                path.unlink(missing_ok=True)
        for folder in (self.path, self._short_folder()):
            _sweep_sockets(folder, living)
        _sweep_namespaces((self._within or self).path, self.path)


def _stem(specification: Specification) -> str:
    return f"{specification.checkpoint_key}-{specification.key}"


def _sweep_sockets(folder: Path, living: set[str]) -> None:
    """Delete the sockets that nobody listens to: of workers that were killed, and whose records are gone. ``living``:
    the incarnations that are known to live, which are not asked.

    The system knows, and refuses a connection; whatever else it answers is no proof. A young one may belong to a worker
    that has bound it and does not listen yet.
    """
    if sys.platform == "win32":  # whose workers use TCP
        return
    import socket

    with contextlib.suppress(OSError):
        found = [path for path in folder.iterdir() if path.suffix == ".sock" and path.stem not in living]
        for path in found:
            if _age(path) <= _OLD:
                continue
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
                asking.setblocking(False)
                try:
                    asking.connect(str(path))
                except ConnectionRefusedError:
                    path.unlink(missing_ok=True)
                except OSError:
                    continue


def _sweep_namespaces(folder: Path, own: Path) -> None:
    """Delete the empty folders of other PID namespaces that nobody has used for long. A namespace that lives loses
    nothing: whoever takes a lock in a folder that is gone makes it anew (`RunDirectory.close_to_others`).
    """
    with contextlib.suppress(OSError):
        for path in folder.glob("ns-*"):
            if path != own and path.name[3:].isdigit() and not path.is_symlink() and _age(path) > _UNUSED:
                with contextlib.suppress(OSError):  # it is not empty, or another one was first
                    path.rmdir()


def _lock(path: Path) -> FileLock:
    from filelock import FileLock

    return FileLock(path, thread_local=False, mode=0o600)


def _has_socket(record: Record) -> bool:
    """Whether a worker can be reached; its socket is there before its record is, and goes after it."""
    return record.endpoint.path is None or record.endpoint.path.exists()


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> Record | None:
    """The record in a file; None when there is none, or none of ours. Raises `WorkerError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            record = msgspec.json.decode(file.read(_MAX_RECORD), type=Record)
    except (FileNotFoundError, PermissionError, IsADirectoryError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    return record if record.file_name == path.name else None


def _unreadable(path: Path, error: OSError) -> WorkerError:
    return WorkerError(
        f"{path} cannot be read: {error.strerror}.", advice="This process may have too many files open."
    )


def _replace(path: Path, content: bytes) -> None:
    """Write a file owner-only and atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _user() -> str:
    return str(os.getuid()) if sys.platform != "win32" else os.environ.get("USERNAME", "user")


def default_path() -> Path:
    """The user's runtime directory; every process of a user must come to the same answer. Where that cannot be made or
    is in others' hands, `sa2va-UID` in the system's temporary folder.
    """
    from platformdirs import user_runtime_dir

    fallback = Path(tempfile.gettempdir()) / f"sa2va-{_user()}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no XDG_RUNTIME_DIR; its fallback is as good
            path = Path(user_runtime_dir("sa2va", appauthor=False))
        _make(path)
        return fallback if _replaceable(path) else path
    except OSError:  # platformdirs raises it for a folder of a stranger's in the place of its own
        return fallback


def run_directory_of(path: Path) -> RunDirectory:
    """The run directory at ``path`` that belongs to this PID namespace. Raises `ConfigError` as `RunDirectory` does."""
    run = RunDirectory(path)
    namespace = pid_namespace()
    return RunDirectory(run.path / f"ns-{namespace}", within=run) if namespace else run


def _make(path: Path) -> None:
    """Make the directory and those above it that are missing, all of them owner-only whatever the umask is."""
    for missing in reversed([each for each in (path, *path.parents) if not each.exists()]):
        with contextlib.suppress(FileExistsError):
            missing.mkdir(mode=0o700)


def _owner_only(path: Path) -> Path:
    """Make the directory if it is missing, and refuse one that others could read, write or swap."""
    try:
        _make(path)
        found = path.lstat()
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise ConfigError(
            f"The run directory {path} cannot be made: {getattr(error, 'strerror', None) or error}.",
            advice="Set SA2VA_RUN_DIR to a folder of your own.",
        ) from error
    if sys.platform == "win32":
        return path
    if not path.is_dir() or path.is_symlink():
        raise ConfigError(
            f"The run directory {path} is not a directory.", advice="Set SA2VA_RUN_DIR to another."
        )
    if found.st_uid != os.getuid():
        raise ConfigError(
            f"The run directory {path} belongs to another user.",
            advice="Set SA2VA_RUN_DIR to one of your own.",
        )
    if found.st_mode & 0o077:
        raise ConfigError(
            f"The run directory {path} is open to other users (mode {found.st_mode & 0o777:o}).",
            advice=f"Run: chmod 700 {path}"
            if _is_ours(path)
            else "Set SA2VA_RUN_DIR to a folder of its own.",
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(
            f"The run directory {path} cannot be written.", advice="Set SA2VA_RUN_DIR to another."
        )
    above = _replaceable(path)
    if above:
        raise ConfigError(
            f"Other users could replace the run directory {path}: {above} is theirs or open to them.",
            advice="Set SA2VA_RUN_DIR to a safer place.",
        )
    return path


def _replaceable(path: Path) -> Path | None:
    """The folder above a directory in which another user could put one of its own in its place, up to the root; None
    where each belongs to us or to root, and is written by nobody else or sticky.
    """
    if sys.platform == "win32":
        return None
    ours = (0, os.getuid())
    for above in path.absolute().parents:
        # A link is judged by itself and by what it leads to.
        found = above.stat()
        is_open = found.st_mode & 0o022 and not found.st_mode & 0o1000
        if is_open or found.st_uid not in ours or above.lstat().st_uid not in ours:
            return above
    return None


def _is_ours(path: Path) -> bool:
    """Whether a directory holds nothing but what this file lists, so that its mode is ours to change."""
    return all(child.suffix in _SUFFIXES for child in path.iterdir())
