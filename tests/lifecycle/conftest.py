"""Real workers with a scripted engine, each test in a run directory of its own, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sa2va_host import Cancellation, Sa2VA
from sa2va_host.config import Settings, load_settings
from sa2va_host.lifecycle.rendezvous import Record, RunDirectory
from sa2va_host.lifecycle.workers import run_directory
from sa2va_host.machine import processes
from sa2va_host.protocol import envelope, transport, wire
from sa2va_host.results import Segmentation

from .figures import Figures, promise

SCRIPT = Path(__file__).with_name("scripted_worker.py")
ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(SCRIPT)]
MISBEHAVES = "about to misbehave"
"""What the scripted worker writes into its log at that moment."""
SURVIVE = "SA2VA_SURVIVE" in os.environ
"""Every promise at its full length, on the bundled model too: `python3 tasks.py survive`."""
TRANSPORT = os.environ.get("SA2VA_TRANSPORT") or "auto"
"""Read before the session's fixture cleans the environment: ``SA2VA_TRANSPORT=tcp`` runs all of this over TCP."""


@pytest.fixture
def run_path() -> Iterator[Path]:
    """A short path (sockets need that), swept clean of processes and files."""
    # A launcher may still be writing down how its worker ended while the folder goes.
    with tempfile.TemporaryDirectory(prefix="sa2va-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "run"
        yield path
        if path.exists():
            for record in run_directory(load_settings(run_dir=str(path))).records():
                processes.signal_group(record.process, kill=True)
                processes.wait_group_gone(record.process, 5)


@pytest.fixture
def settings(run_path: Path) -> Settings:
    return load_settings(
        run_dir=str(run_path), model="scripted:", timeout=20.0, unload_wait=1.0, transport=TRANSPORT
    )


@pytest.fixture
def run(settings: Settings) -> RunDirectory:
    return run_directory(settings)


@pytest.fixture
def connect(settings: Settings) -> Iterator[Callable[..., Sa2VA]]:
    """Makes clients: ``connect(model, **arguments)``. Closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(model: str = "scripted:", **arguments: Any) -> Sa2VA:
            own = arguments.pop("settings", settings)
            return stack.enter_context(Sa2VA(model, settings=own, command=COMMAND, **arguments))

        yield make


class Peak:
    """The most memory that a process has held since, in bytes above what it held."""

    def __init__(self, pid: int | str) -> None:
        self._process = Path(f"/proc/{pid}")
        (self._process / "clear_refs").write_text("5")  # the peak begins anew: proc(5)
        self._resident, self._mapped = self._bytes("VmRSS"), self._bytes("VmSize")

    def rise(self) -> int:
        """Of resident memory."""
        return self._bytes("VmHWM") - self._resident

    def address_space(self) -> int:
        """Of addresses, now: whatever was allocated and never touched is counted too."""
        return self._bytes("VmSize") - self._mapped

    def _bytes(self, field: str) -> int:
        status = (self._process / "status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) * 1024


@pytest.fixture
def peak() -> Callable[[int | str], Peak]:
    """``peak(pid)``, or ``peak("self")``."""
    return Peak


class BareSocket:
    """A client without a client's manners: it knows the token, and sends whatever it is told to."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._context = transport.make_context()
        self.socket = transport.connect(self._context, record.endpoint)
        me = processes.current()
        self.envelope = envelope.Envelope(
            bytes.fromhex(record.incarnation), bytes.fromhex(record.token), me.pid, me.started
        )
        self.true = self.envelope.pack()

    def send(self, message: wire.Message, *buffers: bytes | memoryview) -> None:
        self.socket.send_multipart([self.true, wire.encode(message), *buffers])

    def wait_for(
        self, wanted: Callable[[wire.WorkerMessage], bool], seconds: float = 10.0
    ) -> wire.WorkerMessage:
        """The first answer that is wanted; the others are passed over."""
        while True:
            assert self.socket.poll(int(seconds * 1000)), "no answer"
            frames = self.socket.recv_multipart()
            reply = wire.decode_from_worker(frames[1]) if len(frames) > 1 else None
            if reply is not None and wanted(reply):
                return reply

    def pass_over(self) -> None:
        """Whatever is here."""
        while self.socket.poll(0):
            self.socket.recv_multipart()

    def close(self) -> None:
        self.socket.close(linger=0)
        self._context.term()


@pytest.fixture
def bare(connect: Callable[..., Sa2VA], run: RunDirectory) -> Iterator[Callable[..., BareSocket]]:
    """Makes bare sockets to a worker that is loaded: ``bare()``, or ``bare(record)``."""
    with contextlib.ExitStack() as stack:

        def make(record: Record | None = None) -> BareSocket:
            if record is None:
                connect().load()
            return stack.enter_context(contextlib.closing(BareSocket(record or next(run.living()))))

        yield make


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def client_program(settings: Settings) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts other client processes: ``client_program(code)`` runs code that finds ``settings`` and ``COMMAND``.
    ``launcher`` is a command that runs it.
    """
    started: list[subprocess.Popen[str]] = []

    def start(code: str, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
        head = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "import numpy as np\nimport msgspec\n"
            "from sa2va_host import Sa2VA\nfrom sa2va_host.config import Settings\n"
            f"COMMAND = {COMMAND!r}\n"
            f"settings = Settings(**{ {name: getattr(settings, name) for name in settings.__struct_fields__}!r})\n"
            "picture = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)\n"
        )
        process = subprocess.Popen(
            [*launcher, sys.executable, "-c", head + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Stopwatch:
    """Asserts deadlines: ``with within(0.5): ...``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.begun = time.monotonic()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            promise(time.monotonic() - self.begun, self.seconds)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """Measured values: ``figure(5, "errors after a kill", seconds, 0.5)`` also asserts the promise."""
    figures = Figures(request.node.name)
    yield figures
    figures.keep()


@pytest.fixture
def repeats() -> Callable[[int, int], range]:
    """How often: ``repeats(2, 20)`` is twice, and twenty times at full length."""
    return lambda few, many: range(many if SURVIVE else few)


@pytest.fixture
def within() -> Callable[[float], Stopwatch]:
    return Stopwatch


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until a condition holds: ``eventually(lambda: ..., 2.0)``."""

    def wait(condition: Callable[[], object], seconds: float) -> None:
        begun = time.monotonic()
        while not condition():
            promise(time.monotonic() - begun, seconds)
            time.sleep(0.01)

    return wait


@pytest.fixture(name="promise")
def _promise() -> Callable[[float, float], None]:
    return promise


@dataclass
class Hanging:
    """A call that misbehaves in the worker at this moment. ``cancel`` ends it for its caller."""

    future: Future[Segmentation]
    cancel: Callable[[], None]


@pytest.fixture
def hang(picture: NDArray[np.uint8], eventually: Callable[..., None]) -> Iterator[Callable[..., Hanging]]:
    """Has a loaded worker misbehave: ``hang(sa, "gil=30")`` returns when it does, as its log says."""
    cancellations: list[Cancellation] = []
    with ThreadPoolExecutor() as pool:

        def start(sa: Sa2VA, how: str) -> Hanging:
            sa.load()
            log = Path(sa.status().log)
            before = log.read_text().count(MISBEHAVES)
            cancellation = Cancellation()
            cancellations.append(cancellation)
            call = pool.submit(sa.segment, picture, how, cancellation=cancellation)
            eventually(lambda: call.done() or log.read_text().count(MISBEHAVES) > before, 5)
            return Hanging(call, cancellation.cancel)

        yield start
        for cancellation in cancellations:
            cancellation.cancel()


@pytest.fixture
def kill() -> Callable[[int], None]:
    """Kills a process and returns when it is dead (a zombie is)."""

    def kill_and_wait(pid: int) -> None:
        who = processes.identify(pid)
        assert who is not None
        os.kill(pid, signal.SIGKILL)
        while processes.is_alive(who):
            time.sleep(0.001)

    return kill_and_wait
