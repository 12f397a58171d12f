"""From a bare interpreter to a serving worker, in an order that leaves nothing half-done.

Boot line from the launcher; life lock, so that there is one worker for a specification; socket; connection
record; only then the engine's libraries. Until the record exists, a launcher that vanishes ends this process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import msgspec

from sa2va_host.lifecycle.rendezvous import ExitNote, Record, RunDirectory
from sa2va_host.machine.environments import environment_of
from sa2va_host.machine.processes import current, is_alive
from sa2va_host.machine.terminal import escape_controls
from sa2va_host.protocol import transport
from sa2va_host.protocol.boot import EXIT_ABANDONED, EXIT_BOOT, EXIT_TAKEN, MAX_BYTES, Boot
from sa2va_host.protocol.envelope import PROTOCOL

if TYPE_CHECKING:
    from filelock import FileLock

    from .steps import EngineFactory

_log = logging.getLogger("sa2va_worker")
MAX_FILES = 65536
_TAKEN_AFTER = 0.3
"""How long to wait for the life lock of a predecessor that is leaving; Python's start comes on top of it."""


class _Formatter(logging.Formatter):
    """Spells control characters, and begins no line but a record's own at the margin: what a checkpoint or a client is
    called can neither drive the terminal of whoever reads the log nor forge a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record)).replace("\n", "\n  ")


class _Version(msgspec.Struct):
    """The one field that the boot lines of all versions have."""

    protocol: int


def main(factory: EngineFactory) -> NoReturn:
    """Be the worker. Ends the process without running other threads' clean-up: they may hang in a driver."""
    code = EXIT_BOOT
    try:
        code = _serve(factory)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else EXIT_BOOT
    except BaseException:
        logging.getLogger("sa2va_worker").exception("the worker failed")
        code = EXIT_BOOT
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _serve(factory: EngineFactory) -> int:
    os.umask(0o077)
    _raise_file_limit()
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)  # prints every thread's stack into the log
    boot = _read_boot()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=getattr(logging, boot.log_level.upper(), logging.INFO), handlers=[handler])
    run = RunDirectory(Path(boot.run_dir))
    lock = _take_life_lock(run, boot)
    context = transport.make_context()
    try:
        socket, endpoint = transport.bind(context, run.socket_path(boot.incarnation), boot.transport)
    except transport.TransportError as error:
        run.write_exit(boot.incarnation, ExitNote(reason=f"no socket could be bound: {error}"))
        _log.error("no socket could be bound: %s", error)
        return EXIT_BOOT
    record = Record(
        incarnation=boot.incarnation,
        token=boot.token,
        process=current(),
        specification=boot.specification,
        endpoint=endpoint,
        log=str(run.log_path(boot.incarnation)),
        created=time.time(),
        launcher=boot.launcher,
        environment=environment_of(sys.executable),
    )
    if _is_abandoned(boot):
        run.remove(record)
        return EXIT_ABANDONED
    run.write(record)
    _detach()
    _log.info("worker %d of %s listens", record.process.pid, boot.specification.checkpoint)

    # From here on clients find us. numpy and the rest of our own code are imported now, not before.
    from .lifecycle import Lifecycle
    from .logs import forward_logs
    from .server import Server

    waker = transport.Waker()
    server = Server(
        socket=socket,
        waker=waker,
        record=record,
        run=run,
        lifecycle=Lifecycle(keep_alive=boot.keep_alive, lease_grace=boot.lease_grace),
        queue_bound=boot.queue_bound,
        max_active=boot.max_active,
        cancel_grace=boot.cancel_grace,
        make_room=lock.release,
    )
    _handle_signals(server.terminate)
    forward_logs(server.outbox)
    code = server.run(factory)
    context.term()  # waits for the last replies, as long as the socket's linger says
    lock.release()
    return code


def _read_boot() -> Boot:
    """The launcher's line. Exits when it is missing, wrong, or of another protocol version."""
    line = sys.stdin.buffer.readline(MAX_BYTES)
    if not line.endswith(b"\n"):
        print("sa2va worker: started without a launcher", file=sys.stderr)  # noqa: T201 - no log exists yet
        raise SystemExit(EXIT_ABANDONED)
    try:
        # First, whatever else a launcher of another version may have to say.
        version = msgspec.json.decode(line, type=_Version)
        if version.protocol != PROTOCOL:
            print(f"sa2va worker: protocol {version.protocol}, not {PROTOCOL}", file=sys.stderr)  # noqa: T201
            raise SystemExit(EXIT_BOOT)
        boot = msgspec.json.decode(line, type=Boot)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # Not the line itself: it holds the token.
        print(f"sa2va worker: bad boot line: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(EXIT_BOOT) from None
    return boot


def _take_life_lock(run: RunDirectory, boot: Boot) -> FileLock:
    """Be the only worker for this specification, or exit with a name for why not."""
    from filelock import Timeout

    lock = run.life_lock(boot.specification)
    deadline = time.monotonic() + _TAKEN_AFTER
    while True:
        try:
            lock.acquire(timeout=0)
            return lock
        except Timeout:
            if _is_abandoned(boot):
                raise SystemExit(EXIT_ABANDONED) from None
            if time.monotonic() > deadline:
                reason = "another worker serves this specification already"
                run.write_exit(boot.incarnation, ExitNote(reason=reason, orderly=True))
                _log.error("another worker serves this specification already")
                raise SystemExit(EXIT_TAKEN) from None
        time.sleep(0.02)


def _is_abandoned(boot: Boot) -> bool:
    """True when the launcher is gone: its end of our standard input is closed, or its process is not
    there.
    """
    if not is_alive(boot.launcher):
        return True
    if sys.platform == "win32":
        return False
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable)  # nothing more is ever written, so readable means closed


def _detach() -> None:
    """Let go of the launcher's pipe."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)


def _raise_file_limit() -> None:
    """As many descriptors as the system lets us have: each client takes some, and ZeroMQ aborts when there are none."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _handle_signals(terminate: Callable[[], None]) -> None:

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        terminate()

    signal.signal(signal.SIGTERM, on_signal)
    if hasattr(signal, "pthread_sigmask"):  # a launcher that blocks it hands that down
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
