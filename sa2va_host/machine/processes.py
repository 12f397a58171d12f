"""Processes as the operating system knows them: who is alive, in which state, how it is signalled.

A process id alone names nobody, since the system uses ids again. `ProcessId` adds the start time (kernel
clock ticks on Linux, so that clock changes do not matter, milliseconds elsewhere) and the boot it counts
from; nothing here signals a process without comparing both first. Linux reads /proc; other systems go
through psutil.

Unknown is not dead: where the system does not answer, for want of a file descriptor perhaps, a process counts as alive,
and what would have to know more raises `WorkerError`. Only "no such process" is taken for a death.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import sys
import time
from pathlib import Path

import msgspec

from sa2va_host.errors import WorkerError

_PROC = Path("/proc")
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of Linux's include/linux/proc_ns.h."""
LINUX = sys.platform == "linux"
_REAPED_WITHIN, _OTHERS_REAP_WITHIN = 1.0, 0.1
"""How long `wait_reaped` waits for threads of this process, and for another process, in seconds."""


class ProcessId(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One process, for ever."""

    pid: int
    started: int
    boot: str


@functools.cache
def boot_id() -> str:
    """Differs from boot to boot where the system has such a thing (Linux), else empty. Raises `OSError` where it cannot
    be read now; an answer is kept, an error is not.
    """
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""


def pid_namespace() -> int:
    """The inode of the PID namespace of this process, in which process ids mean something (a container has one of its
    own); 0 in the system's first one, and where there is no other.
    """
    try:
        inode = (_PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return 0
    return 0 if inode == _FIRST_PID_NAMESPACE else inode


def _linux_stat(pid: int) -> tuple[str, int, int] | None:
    """(state, process group, start ticks) of a process, None when there is none. Raises `OSError` where the system does
    not say.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        # Asking whether it exists takes no descriptor.
        with contextlib.suppress(PermissionError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return None
        raise
    # The second field is the program's name in parentheses, which may hold anything, spaces and ")" included.
    fields = stat[stat.rfind(")") + 2 :].split()
    return fields[0], int(fields[2]), int(fields[19])


def identify(pid: int) -> ProcessId | None:
    """The process that has this id now; None when there is none (or only its zombie). Raises `OSError` where the system
    does not say.
    """
    if LINUX:
        stat = _linux_stat(pid)
        return None if stat is None or stat[0] in "ZX" else ProcessId(pid, stat[2], boot_id())
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessId(pid, int(process.create_time() * 1000), boot_id())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
    except psutil.Error as error:
        raise OSError(str(error)) from error


def current() -> ProcessId:
    """This process. Raises `WorkerError` where the system does not say."""
    try:
        return _current(os.getpid())
    except OSError as error:
        raise _unknown(error) from error


@functools.lru_cache(maxsize=1)
def _current(pid: int) -> ProcessId:
    if LINUX and (shown := (_PROC / "self").readlink().name) != str(pid):
        raise WorkerError(
            f"This process is {pid} to itself and {shown} in /proc, which belongs to another PID namespace.",
            advice="Mount a /proc of the namespace (unshare --mount-proc).",
        )
    found = identify(pid)
    if found is None:
        raise ProcessLookupError(f"no process {pid}")
    return found


def _unknown(error: OSError) -> WorkerError:
    return WorkerError(
        f"The system does not say which processes live: {error}.",
        advice="This process may have too many files open.",
    )


def _knows_alive(process: ProcessId) -> bool | None:
    """True while that very process runs, False once it is gone, None where the system does not say."""
    try:
        return process.boot == boot_id() and identify(process.pid) == process
    except OSError:
        return None


def is_alive(process: ProcessId) -> bool:
    """False once that very process is gone (a zombie is). True while it runs or is stopped, and where the system does
    not say.
    """
    return _knows_alive(process) is not False


def is_client_alive(pid: int, started: int) -> bool:
    """The same for a peer on this machine and boot, as its envelope names it."""
    try:
        found = identify(pid)
    except OSError:
        return True
    return found is not None and found.started == started


def is_stopped(process: ProcessId) -> bool:
    """True when the process is alive and stopped by a signal (SIGSTOP, Ctrl-Z, a debugger)."""
    if LINUX:
        with contextlib.suppress(OSError):
            stat = _linux_stat(process.pid)
            return stat is not None and stat[0] in "Tt" and is_alive(process)
        return False
    import psutil

    with contextlib.suppress(psutil.Error):
        return is_alive(process) and psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    return False


def group_members(leader: ProcessId) -> list[int]:
    """The living processes of the group that ``leader`` leads or led, itself included.

    While any of them lives, the system does not give the leader's id to anybody else. So when a stranger
    has that id now, or the machine was booted since, the group is gone. Raises `WorkerError` where the system does not
    say.
    """
    try:
        return _group_members(leader)
    except OSError as error:
        raise _unknown(error) from error


def _group_members(leader: ProcessId) -> list[int]:
    if leader.boot != boot_id():
        return []
    now = identify(leader.pid)
    if now is not None and now != leader:
        return []
    if not LINUX:
        return _family(leader) if now is not None else []
    members = []
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            stat = _linux_stat(int(entry.name))
            if (
                stat is not None
                and stat[1] == leader.pid
                and stat[0] not in "ZX"
                and stat[2] >= leader.started
            ):
                members.append(int(entry.name))
    return members


def _family(leader: ProcessId) -> list[int]:
    import psutil

    with contextlib.suppress(psutil.Error):
        return [leader.pid, *(child.pid for child in psutil.Process(leader.pid).children(recursive=True))]
    return []


def signal_group(leader: ProcessId, *, kill: bool) -> bool:
    """Send SIGTERM (or SIGKILL) to every living member of the group. False when nobody is left. Raises `WorkerError`
    where the system does not say who is.
    """
    members = group_members(leader)
    if not members:
        return False
    if sys.platform == "win32":
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        return True
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, signal.SIGKILL if kill else signal.SIGTERM)
        if not kill:
            # A stopped process would sleep through SIGTERM.
            os.killpg(leader.pid, signal.SIGCONT)
    return True


def kill_own_child(pid: int) -> None:
    """Kill a child of ours that nobody has waited for (so its id is its own), with the group it leads."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            os.kill(pid, signal.SIGTERM)
        else:
            os.killpg(pid, signal.SIGKILL)


def wait_group_gone(leader: ProcessId, seconds: float) -> bool:
    """True as soon as no member of the group lives; False after ``seconds``. Raises `WorkerError` where that is unknown
    to the end.
    """
    deadline = time.monotonic() + seconds
    while True:
        late = time.monotonic() >= deadline
        try:
            if not group_members(leader):
                return True
        except WorkerError:
            if late:
                raise
        if late:
            return False
        time.sleep(0.01)


def wait_reaped(pid: int) -> None:
    """Wait until the system has forgotten a process that has ended.

    As a child of ours it stays a zombie until one of our threads has waited for it, as whoever started it does; should
    nobody within a second, it is done here. Another parent is given a moment: nobody else can reap its children.
    """
    begun = time.monotonic()
    while sys.platform != "win32":  # which has no zombies
        late = time.monotonic() - begun
        try:
            os.kill(pid, 0)  # asks only, and takes no file descriptor
            # Without this call (macOS before Python 3.13) our own child is given as long as another's.
            os.waitid(
                os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG
            )  # raises where it is no child of ours
            ours = True
        except (ChildProcessError, PermissionError, AttributeError):
            ours = False
        except ProcessLookupError:
            return
        if ours and late > _REAPED_WITHIN:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            return
        if not ours and late > _OTHERS_REAP_WITHIN:
            return
        time.sleep(0.002)


class DeathWatch:
    """Notices the death of one process: through a pidfd that a poller can wait for, else by asking.

    ``fileno()`` is -1 where there is no pidfd that is known to be the process's; then call `is_dead` every `INTERVAL`
    seconds. With one, a death is noticed without a further file descriptor.
    """

    INTERVAL = 0.1

    def __init__(self, process: ProcessId) -> None:
        self.process = process
        self._fd = -1
        self._dead = False
        if sys.platform == "linux" and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._fd = os.pidfd_open(process.pid)
        # The pidfd was opened by number: until the system has said whose it is, it tells nothing.
        self._is_ours = False
        self._ask()

    def fileno(self) -> int:
        return self._fd if self._is_ours else -1

    def is_dead(self) -> bool:
        if not self._dead:
            if self._is_ours:
                # A pidfd tells when the last thread has ended, which may be long after the process counts as dead.
                self._dead = _is_readable(self._fd) or _knows_alive(self.process) is False
            else:
                self._ask()
        return self._dead

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._is_ours = False

    def _ask(self) -> None:
        known = _knows_alive(self.process)
        self._is_ours = known is True and self._fd >= 0
        if known is False:
            self._dead = True
            self.close()


def _is_readable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def describe_exit(code: int) -> str:
    """An exit status as `subprocess` reports it, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def resident_memory(pid: int) -> int:
    """Bytes of main memory that a process holds; 0 when it cannot be told."""
    if LINUX:
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        return 0
    import psutil

    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def peak_memory() -> int:
    """The most main memory that this process ever held, in bytes; 0 when it cannot be told."""
    if LINUX:
        # Not getrusage: its figure outlives exec, so that a large launcher would show in a small worker.
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int((_PROC / "self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
        return 0
    import psutil

    # Windows alone tells psutil; elsewhere what is held now is the best there is.
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))
