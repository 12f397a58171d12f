"""Starting a worker process, once, however many clients ask at the same time.

Called by `sa2va_host.calls.link` on a thread of its own. Finds a living worker through the run directory or,
under the checkpoint's spawn lock, starts one. The lock is held only until the worker's socket exists,
never while a model loads. Does not talk to workers and does not decide about restarts, except that it
refuses when workers keep dying.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

import msgspec

from sa2va_host.config import Settings
from sa2va_host.errors import Cancelled, Sa2VAError, WorkerStartFailed, from_wire
from sa2va_host.machine import processes
from sa2va_host.machine.commands import COMMAND_VARIABLE, sa2va_command
from sa2va_host.machine.descriptors import reporting_shortage
from sa2va_host.machine.worker_program import clean_environment, worker_command
from sa2va_host.protocol.boot import EXIT_TAKEN, Boot
from sa2va_host.protocol.specification import Specification

from .rendezvous import ExitNote, Record, RunDirectory

DEATHS_ALLOWED = 3
DEATH_WINDOW = 60.0
LEASE_GRACE = 10.0
"""How long a worker that nobody ever asked for anything stays, in seconds."""
_POLL = 0.01


class _BrokenByOthers(Exception):
    """The new worker has ended before we saw it, and says that who has not begun may try another: others' calls broke
    it. ``failure`` is what to raise where none of several does better.
    """

    def __init__(self, failure: Sa2VAError) -> None:
        super().__init__(failure.message)
        self.failure = failure


def ensure_worker(
    specification: Specification,
    settings: Settings,
    run: RunDirectory,
    *,
    command: Sequence[str] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    starting: Callable[[], None] = lambda: None,
) -> Record:
    """The connection record of a living worker for ``specification``; starts it when there is none.

    ``command`` replaces the worker's program (tests). ``starting`` is called before a process is started.
    Raises `WorkerStartFailed`, or `Cancelled` when ``cancelled()`` becomes true.
    """
    from filelock import Timeout

    choice_by = time.monotonic() + settings.start_timeout
    deadline = choice_by
    broken = 0
    while True:
        if _await_choice(specification, run, choice_by, cancelled):
            deadline = time.monotonic() + settings.start_timeout
        found = run.find(specification)
        if found is not None:
            return found
        if cancelled():
            raise Cancelled("Nobody waits for the worker any more.")
        if time.monotonic() > deadline:
            raise WorkerStartFailed(
                f"No worker could be started within {settings.start_timeout:g} s.",
                advice=f"Another process may hang while it starts one: see `{sa2va_command('ps')}`.",
            )
        try:
            with run.spawn_lock(specification).acquire(timeout=0.05, poll_interval=0.01):
                run.close_to_others()
                found = run.find(specification)
                if found is not None:
                    return found
                if run.is_loading(specification) and time.monotonic() < choice_by:
                    continue  # it was started while we waited for the lock
                starting()
                record = _start(specification, settings, run, command, cancelled)
                if record is not None:
                    return record
        except _BrokenByOthers as error:
            broken += 1
            if broken >= DEATHS_ALLOWED:
                raise error.failure from None
            continue
        except Timeout:
            continue
        except Sa2VAError:  # one of them is an OSError too
            raise
        except OSError as error:
            raise WorkerStartFailed(
                f"The worker cannot be started: {error}.", advice=f"Look into the run directory {run.path}."
            ) from error
        # The one that lives there is on its way in or out; its lock tells us when.
        time.sleep(0.05)


def _await_choice(
    specification: Specification, run: RunDirectory, deadline: float, cancelled: Callable[[], bool]
) -> bool:
    """Let a loading worker say what `auto` became: a second one beside it would need the memory twice. True when that
    was waited for.
    """
    waited = False
    while (
        not cancelled()
        and time.monotonic() < deadline
        and run.find(specification) is None
        and run.is_loading(specification)
    ):
        waited = True
        time.sleep(0.05)
    return waited


def _start(
    specification: Specification,
    settings: Settings,
    run: RunDirectory,
    command: Sequence[str] | None,
    cancelled: Callable[[], bool],
) -> Record | None:
    """One attempt, under the spawn lock. None when another worker still holds the life lock, or the new one has left
    again in order.
    """
    _sweep(specification, run)
    deaths, last = run.recent_deaths(specification, DEATH_WINDOW)
    if deaths >= DEATHS_ALLOWED:
        raise WorkerStartFailed(
            f"The worker died {deaths} times within {DEATH_WINDOW:g} s before it was ready, last by {last}.",
            advice=f"Its logs are in {run.path}; mend the cause, or wait a minute.",
        )
    boot = Boot(
        incarnation=secrets.token_hex(16),
        token=secrets.token_hex(32),
        specification=specification,
        run_dir=str(run.path),
        transport=settings.transport,
        launcher=processes.current(),
        keep_alive=settings.keep_alive,
        lease_grace=LEASE_GRACE,
        cancel_grace=settings.cancel_grace,
        queue_bound=settings.queue_bound,
        max_active=settings.max_active,
        log_level=settings.log_level,
    )
    child = _spawn(list(command or worker_command(settings.worker_python)), boot, run)
    try:
        record = _await_record(child, boot, run, settings.start_timeout, cancelled)
    except BaseException:
        processes.kill_own_child(child.pid)
        child.wait()
        raise
    finally:
        _close(child.stdin)
    if record is not None:
        threading.Thread(target=_reap, args=(child, record, run), name="sa2va-reaper", daemon=True).start()
    return record


def _await_record(
    child: _Child, boot: Boot, run: RunDirectory, seconds: float, cancelled: Callable[[], bool]
) -> Record | None:
    deadline = time.monotonic() + seconds
    while True:
        for record in run.records():
            if record.incarnation == boot.incarnation:
                return record
        if child.has_ended(wait=False):
            reason = child.reason
            note = run.read_exit(boot.incarnation)
            # An orderly one served others meanwhile and left, or found that another one lives.
            if child.returncode == EXIT_TAKEN or (note is not None and note.orderly):
                return None
            tail = run.log_tail(boot.incarnation)
            failure: Sa2VAError
            if note is not None and note.code:  # it came up and went again while we blinked
                failure = from_wire(note.code, note.message, note.advice, tail)
            else:
                failure = WorkerStartFailed(
                    f"The worker ended while it started: {note.reason if note else reason}.",
                    advice=f"Its output is in {run.log_path(boot.incarnation)}.",
                    log_tail=tail,
                )
            if (note is None or not note.code) and not run.was_ready(boot.incarnation):
                run.note_death(boot.specification, reason, DEATH_WINDOW)
            if note is not None and note.resend:
                raise _BrokenByOthers(failure)
            raise failure
        if cancelled():
            raise Cancelled("Nobody waits for the worker any more.")
        if time.monotonic() > deadline:
            run.note_death(boot.specification, "silence", DEATH_WINDOW)
            raise WorkerStartFailed(
                f"The worker did not answer within {seconds:g} s of its start.",
                advice="Raise start_timeout on a very slow machine.",
                log_tail=run.log_tail(boot.incarnation),
            )
        time.sleep(_POLL)


def _sweep(specification: Specification, run: RunDirectory) -> None:
    """Clear away what dead workers left: of this checkpoint at once, children, records and sockets; of others, where
    nobody starts one of theirs at this moment; sockets and logs that are old.
    """
    from filelock import Timeout

    _clear(run, specification.checkpoint_key)
    for other in {record.specification.checkpoint_key for record in run.dead()} - {
        specification.checkpoint_key
    }:
        with contextlib.suppress(Timeout), run.spawn_lock_of(other).acquire(timeout=0):
            _clear(run, other)
    run.sweep_files()


def _clear(run: RunDirectory, checkpoint_key: str) -> None:
    """Under that checkpoint's spawn lock, else its record might be a new worker's by now."""
    for record in run.stale(checkpoint_key):
        processes.signal_group(record.process, kill=True)
        run.remove(record)


class _Child(subprocess.Popen[bytes]):
    """A child that may outlive us: the worker belongs to whoever uses it, so no warning when we leave
    first.
    """

    is_lost = False
    """Whether nobody can tell its exit code: the system keeps none for a program that ignores SIGCHLD, or another part
    of this one has waited for it. `subprocess` calls that code 0.
    """

    def has_ended(self, *, wait: bool) -> bool:
        """Whether it has, and ``returncode``, ``is_lost`` and ``reason`` are known."""
        if self.returncode is None and hasattr(os, "waitid"):
            try:
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG))
            except ChildProcessError:
                self.is_lost = True
        return (self.wait() if wait else self.poll()) is not None

    @property
    def reason(self) -> str:
        """How it ended, in words."""
        return "an exit code that nobody has" if self.is_lost else processes.describe_exit(self.returncode)

    def __del__(self) -> None:
        """Without the base class's ResourceWarning; `_reap` has waited for the child where it could."""


def _spawn(command: list[str], boot: Boot, run: RunDirectory) -> _Child:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    log = os.open(run.log_path(boot.incarnation), flags, 0o600)
    creation = 0
    if sys.platform == "win32":
        creation = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    try:
        with reporting_shortage():
            child = _Child(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=run.path,
                env={**clean_environment(os.environ), COMMAND_VARIABLE: sa2va_command()},
                start_new_session=True,
                creationflags=creation,
            )
    except OSError as error:
        raise WorkerStartFailed(
            f"The worker's program {command[0]!r} cannot be started: {error}.", advice="Check worker_python."
        ) from error
    finally:
        os.close(log)
    assert child.stdin is not None
    with contextlib.suppress(OSError):  # it may have died already; the caller will see
        child.stdin.write(msgspec.json.encode(boot) + b"\n")
        child.stdin.flush()
    return child


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()


def _reap(child: _Child, record: Record, run: RunDirectory) -> None:
    """Wait for our child, so that no zombie stays, and write down how it ended for those who are not its
    parent.
    """
    child.has_ended(wait=True)
    with contextlib.suppress(OSError):
        spoke = run.read_exit(record.incarnation) is not None
        if not child.is_lost:
            run.write_exit(record.incarnation, ExitNote(reason=child.reason), unless_known=True)
        if not spoke and not run.was_ready(record.incarnation):
            run.note_death(record.specification, child.reason, DEATH_WINDOW)
