"""Chaos: clients ask, cancel and unload at random, while they, their workers and their files are attacked.

    python -m tests.lifecycle.chaos --seconds 600 --transport tcp --model sa2va-tiny --seed 7

prints its seed, what it counted, and each problem; the exit code is 1 where there was one. A seed gives every client
and the attacker the same plan again. When each act meets which is the system's to say, so run a seed several times.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from sa2va_host import Cancellation, Sa2VA, Sa2VAError, list_workers, stop_worker
from sa2va_host.config import Settings, load_settings
from sa2va_host.lifecycle.workers import run_directory
from sa2va_host.machine import processes

from .famine import famine
from .figures import promise
from .holdings import GROWTH, Holdings, holdings, make_old, processes_in, stray_files
from .namespaces import UNSHARE, can_be_made
from .scripted_worker import SIZE, logits_of

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "tests.lifecycle.chaos"
COMMAND = [sys.executable, str(Path(__file__).with_name("scripted_worker.py"))]
TINY = "sa2va-tiny"
SCRIPTS = ("scripted:load=0.05", "scripted:memory=1", "scripted:memory=1,parts=2")
"""The last two do not fit on their device together: each makes way for the other."""
DEADLINE = 10.0
"""Seconds that a call of the scripted worker may take; the bundled model is given more."""
BEYOND = 6.0
"""Seconds after its deadline by which an act has ended; an unload of a worker that hangs takes five."""
SILENCE = 30.0
"""Seconds beyond that after which a client hangs that has not said a word."""
KEEP_ALIVES = (0.0, 0.2, 1.0, 3.0)
CLIENTS = 4
"""Client processes in this PID namespace, two threads each. The first one is never attacked itself: what it holds at
last is what calls leak.
"""
LEAVES_WITHIN = 20.0
"""Seconds after the last call by which every worker has ended: its keep-alive, or the lease of one never asked."""

ACTS = {
    "ask": 56,
    "late": 6,
    "cancel": 8,
    "error": 4,
    "load": 2,
    "status": 4,
    "list": 2,
    "unload": 3,
    "force": 2,
    "hang": 2,
    "famine": 6,
    "renew": 5,
}
"""What a client's thread does, and how often of a hundred times."""
ATTACKS = {
    "kill worker": 10,
    "end worker": 5,
    "freeze worker": 4,
    "kill client": 5,
    "end client": 2,
    "freeze client": 4,
    "stop": 3,
    "force": 3,
    "delete file": 5,
    "delete directory": 0.5,
}
"""What the attacker does."""


class WrongAnswer(Exception):
    """An answer came that is not the right one."""


@dataclass(frozen=True)
class Question:
    """Something to ask, and what is right. ``put`` takes a client and the limits of the call."""

    put: Callable[..., Any]
    right: Callable[[Any], bool]


class Scripted:
    """Questions to the scripted worker, whose right answers are computed here."""

    models = SCRIPTS
    command: list[str] | None = COMMAND
    deadline = DEADLINE
    pace = 0.5
    """Seconds between attacks, on average."""

    def question(self, rng: random.Random) -> Question:
        kind = rng.choices(["segment", "each", "chat", "video"], [50, 10, 25, 15])[0]
        objects, steps = rng.randrange(4), rng.randrange(1, 6)
        prompt = f"objects={objects} steps={steps} pause={rng.choice([0, 0, 0.002])}"
        noise = np.random.default_rng(rng.randrange(1 << 32))
        if kind == "video":
            frames = [noise.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for _ in range(rng.randrange(1, 12))]
            first = rng.randrange(1, 6)
            return Question(
                lambda sa, **limits: sa.segment_video(frames, prompt, f"first:{first}", **limits),
                lambda found: _is_right(found, prompt, min(first, len(frames)), objects, frames),
            )
        if kind == "chat":  # its answer is the sum over a large image, every byte of it
            large = noise.integers(0, 256, (rng.randrange(1, 800), 640, 3), np.uint8)
            total = str(int(large.sum(dtype=np.int64)))
            return Question(
                lambda sa, **limits: sa.chat(prompt, [large], **limits),
                lambda found: found.text.startswith(prompt) and found.text.split()[-1] == total,
            )
        image = noise.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        if kind == "each":
            prompts = [prompt, "objects=1", "objects=2"]
            return Question(
                lambda sa, **limits: sa.segment_each(image, prompts, **limits),
                lambda found: (
                    [len(one) for one in found] == [objects, 1, 2]
                    and np.array_equal(
                        np.concatenate([one.logits for one in found]), _right_logits([image], objects + 3)
                    )
                ),
            )
        return Question(
            lambda sa, **limits: sa.segment(image, prompt, **limits),
            lambda found: _is_right(found, prompt, 1, objects, [image]),
        )

    def error(self, rng: random.Random) -> str:
        return f"error={rng.choice(['bug', 'memory', 'input', 'broken'])}"

    def hang(self, rng: random.Random) -> str:
        return rng.choice(["sleep=1", "gil=0.5", "stop=1", "steps=2 die=SIGSEGV", "steps=2 die=SIGABRT"])


def _right_logits(frames: Sequence[Any], objects: int) -> Any:
    """Float32 `[objects, frames, side, side]`."""
    if not objects:
        return np.zeros((0, len(frames), 8, 8), np.float32)
    return np.stack([logits_of(frame, objects) for frame in frames], axis=1)


def _is_right(found: Any, prompt: str, key_frames: int, objects: int, frames: Sequence[Any]) -> bool:
    return (
        found.text.startswith(f"{prompt} [{key_frames}]")
        and len(found) == objects
        and np.array_equal(found.logits, _right_logits(frames, objects))
        and found.masks().shape[0] == objects
    )


class Bundled:
    """Questions to the bundled model; a worker that nobody attacked gave the right answers, to the bit."""

    models = (TINY,)
    command: list[str] | None = None
    deadline = 6 * DEADLINE
    pace = 4.0
    """It loads for a second or two."""
    prompts = ("the red circle", "the blue square", "all circles")

    def __init__(self, right: dict[str, str]) -> None:
        self._right = right

    def question(self, rng: random.Random) -> Question:
        return self._questions()[rng.choice(sorted(self._right))]

    @classmethod
    def record(cls, settings: Settings) -> dict[str, str]:
        """Ask everything once, of a worker without keep-alive."""
        with Sa2VA(TINY, settings=settings, keep_alive=0.0, timeout=600.0) as sa:
            return {name: _digest(question.put(sa)) for name, question in cls({})._questions().items()}

    def _questions(self) -> dict[str, Question]:
        found: dict[str, Question] = {}
        for seed in range(2):
            scene = _scene(seed)
            for prompt in self.prompts:
                found[f"segment {seed} {prompt}"] = self._one(
                    f"segment {seed} {prompt}",
                    lambda sa, scene=scene, prompt=prompt, **limits: sa.segment(scene, prompt, **limits),
                )
            found[f"chat {seed}"] = self._one(
                f"chat {seed}",
                lambda sa, scene=scene, **limits: sa.chat("What is in the image?", [scene], **limits),
            )
            found[f"video {seed}"] = self._one(
                f"video {seed}",
                lambda sa, seed=seed, **limits: sa.segment_video(
                    [_scene(seed + step) for step in range(4)], "the red circle", "first:2", **limits
                ),
            )
        return found

    def _one(self, name: str, put: Callable[..., Any]) -> Question:
        return Question(put, lambda found: _digest(found) == self._right[name])

    def error(self, rng: random.Random) -> str:
        return rng.choice(["", "\ud800"])

    def hang(self, rng: random.Random) -> str:
        return "all circles"


def _scene(seed: int) -> Any:
    """A red disc and a blue square on grey, uint8 `[128, 128, 3]`."""
    rows, columns = np.mgrid[:128, :128]
    scene = np.full((128, 128, 3), 200, np.uint8)
    scene[(rows - 40 - 3 * seed) ** 2 + (columns - 50) ** 2 < 20**2] = (220, 30, 30)
    scene[80:110, 70 - 3 * seed : 100] = (30, 30, 220)
    return scene


def _digest(found: Any) -> str:
    digest = hashlib.sha256(found.text.encode())
    if hasattr(found, "logits"):
        digest.update(repr(found.logits.shape).encode() + np.ascontiguousarray(found.logits).tobytes())
    return digest.hexdigest()


def world_of(model: str, right: dict[str, str]) -> Scripted | Bundled:
    return Bundled(right) if model == TINY else Scripted()


@dataclass
class Plan:
    """What a client process is given, as JSON on its command line."""

    seed: str
    model: str
    run_dir: str
    transport: str
    right: dict[str, str]


class Client:
    """The attacked side: two threads of one process that share a connection. Each act is a line of JSON on its standard
    output.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._world = world_of(plan.model, plan.right)
        self._settings = chaos_settings(plan.model, plan.run_dir, plan.transport)
        self._lock = threading.Lock()
        self._famine = threading.Lock()
        self._over = threading.Event()
        self._sa = self._connect(random.Random(plan.seed))

    def run(self) -> None:
        """Until standard input ends."""
        zmq.Frame(b"", copy=False)  # pyzmq's own context stays for as long as the process
        before = holdings()
        threads = [threading.Thread(target=self._act_until_over, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        settled: Holdings | None = None
        while sys.stdin.readline():  # a line asks what is held while calls go on
            settled = settled or holdings()
        self._over.set()
        for thread in threads:
            thread.join()
        self._sa.close()
        gc.collect()  # errors and the frames that they passed hold each other, and what was to be sent
        deadline = time.monotonic() + 10
        while (after := holdings()).leaked_since(before) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._say(
            act="end",
            descriptors=after.descriptors - before.descriptors,
            growth=after.resident - (settled or before).resident,
            leaked=after.leaked_since(before),
            before=dataclasses.asdict(before),
            after=dataclasses.asdict(after),
            holds=sorted(
                str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()
            ),
            children=Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(),
            threads=[thread.name for thread in threading.enumerate()],
        )

    def _act_until_over(self, number: int) -> None:
        rng = random.Random(f"{self._plan.seed} {number}")
        while not self._over.is_set():
            what = rng.choices(list(ACTS), list(ACTS.values()))[0]
            begun = time.monotonic()
            outcome, words = "right", ""
            try:
                outcome = self._act(what, rng)
            except Sa2VAError as error:
                outcome, words = "error", f"{type(error).__name__}: {error}"
            except WrongAnswer as error:
                outcome, words = "wrong", str(error)
            except BaseException:  # noqa: BLE001 - whatever it is, it is reported
                outcome, words = "untyped", traceback.format_exc()
            self._say(
                act=what, thread=number, begun=begun, ended=time.monotonic(), outcome=outcome, words=words
            )

    def _act(self, what: str, rng: random.Random) -> str:
        """``right`` where an answer was compared, else ``done``."""
        sa = self._sa
        if what == "renew":
            fresh = self._connect(rng)
            with self._lock:
                sa, self._sa = self._sa, fresh
            sa.close()
        elif what == "load":
            sa.load()
        elif what == "status":
            sa.status()
        elif what == "list":
            list_workers(self._settings)
        elif what in {"unload", "force"}:
            sa.unload(force=what == "force", timeout=0.3)
        elif what in {"error", "hang"}:
            ask = self._world.error if what == "error" else self._world.hang
            sa.segment(_scene(0), ask(rng))
        else:
            return self._ask(sa, what, rng)
        return "done"

    def _ask(self, sa: Sa2VA, what: str, rng: random.Random) -> str:
        question = self._world.question(rng)
        with contextlib.ExitStack() as around:
            limits: dict[str, Any] = {}
            if what == "late":
                limits["timeout"] = rng.uniform(0.005, 0.3)
            elif what == "cancel":
                limits["cancellation"] = cancellation = Cancellation()
                timer = threading.Timer(rng.uniform(0, 0.1), cancellation.cancel)
                timer.start()
                around.callback(timer.join)
            elif what == "famine":
                around.enter_context(self._famine)
                around.enter_context(famine(rng.randrange(40)))
                if rng.random() < 0.5:
                    around.enter_context(contextlib.closing(sa := self._connect(rng)))
            found = question.put(sa, **limits)
        if not question.right(found):
            raise WrongAnswer(f"{what}: {found!r}"[:1000])
        return "right"

    def _connect(self, rng: random.Random) -> Sa2VA:
        return Sa2VA(
            rng.choice(self._world.models),
            settings=self._settings,
            command=self._world.command,
            keep_alive=rng.choice(KEEP_ALIVES),
        )

    def _say(self, **words: Any) -> None:
        with self._lock:
            print(json.dumps(words), flush=True)  # noqa: T201


def chaos_settings(model: str, run_dir: str, transport: str) -> Settings:
    return load_settings(
        run_dir=run_dir,
        model=model,
        transport=transport,
        timeout=world_of(model, {}).deadline,
        unload_wait=2.0,
        cancel_grace=1.0,
        stall_limit=20.0 if model != TINY else 120.0,
    )


@dataclass
class Counts:
    """What an hour, or a minute, came to."""

    seconds: float = 0.0
    acts: int = 0
    compared: int = 0
    killed_workers: int = 0
    killed_clients: int = 0
    frozen: int = 0
    stops: int = 0
    deleted: int = 0
    namespaces: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    wrong: int = 0
    hung: int = 0
    untyped: int = 0
    aborted: int = 0
    """Clients that ended by themselves."""
    orphans: int = 0
    leaked_files: int = 0
    leaked_descriptors: int = 0
    growth: int = 0
    """Bytes of memory that the client which is never attacked holds more at its end."""
    slowest: float = 0.0
    """Seconds of the act that took longest, without the time for which its client was frozen."""


class Running:
    """One client process, as the attacker sees it."""

    def __init__(self, plan: Plan, launcher: Sequence[str], log: Path, told: Callable[[Running, Any], None]):
        self.is_inside = bool(launcher)
        self.frozen: list[tuple[float, float]] = []
        self.attacked = False
        self.last = dict.fromkeys(range(2), time.monotonic())
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*launcher, sys.executable, "-m", PROGRAM, "--client", json.dumps(dataclasses.asdict(plan))],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._told = told
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # The last line of a client that was killed may be a part of one.
            with contextlib.suppress(json.JSONDecodeError):
                self._told(self, json.loads(line))

    def send(self, number: signal.Signals) -> None:
        """Only a process that has not been waited for is signalled, so it is nobody else's number."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def settle(self) -> None:
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.write("settled\n")
            self.process.stdin.flush()

    def finish(self, seconds: float) -> bool:
        """Ask it to end; False where it had to be killed."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)  # its stacks go into its log
            time.sleep(0.5)
            self.process.kill()
            self.process.wait()
            return False
        finally:
            self.let_go()
        return True

    def let_go(self) -> None:
        """Once it has ended."""
        self.reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what it was told last may not have left
                assert pipe is not None
                pipe.close()

    def frozen_within(self, begun: float, ended: float) -> float:
        return sum(max(0.0, min(ended, until) - max(begun, since)) for since, until in self.frozen)


class Chaos:
    """Starts the clients, attacks them, and counts."""

    def __init__(self, *, seed: int, model: str, transport: str, folder: Path) -> None:
        self._seed, self._model, self._transport = seed, model, transport
        self._folder = folder
        self._run_dir = folder / "run"
        self._settings = chaos_settings(model, str(self._run_dir), transport)
        self._world = world_of(model, {})
        self._right = Bundled.record(self._settings) if model == TINY else {}
        self._lock = threading.Lock()
        self._numbers = iter(range(1 << 30))
        self._clients: list[Running] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.counts = Counts()
        self.problems: list[str] = []
        self.examples: dict[str, str] = {}
        """The last error of each class, in its words: for people to judge."""

    def run(self, seconds: float) -> None:
        begun = time.monotonic()
        rng = random.Random(self._seed)
        places: list[Sequence[str]] = [()] * CLIENTS + [UNSHARE] * can_be_made()
        self._clients = [self._start(place) for place in places]
        settle_at = begun + seconds / 3
        while time.monotonic() < begun + seconds:
            time.sleep(self._world.pace * rng.uniform(0.2, 1.8))
            self._run_what_is_due()
            with contextlib.suppress(Sa2VAError, OSError):
                self._attack(rng)
            self._look_after_clients()
            if settle_at and time.monotonic() > settle_at:
                self._clients[0].settle()
                settle_at = 0.0
        self._run_what_is_due(everything=True)
        for client in self._clients:
            if not client.finish(self._world.deadline + SILENCE):
                self._hung(client, "its end")
            elif client.process.returncode and not client.attacked:
                self._ended_badly(client)
        self._look_for_what_is_left()
        self.counts.seconds = time.monotonic() - begun

    def _start(self, launcher: Sequence[str]) -> Running:
        number = next(self._numbers)
        plan = Plan(f"{self._seed} {number}", self._model, str(self._run_dir), self._transport, self._right)
        self.counts.namespaces += bool(launcher)
        return Running(plan, launcher, self._folder / f"client-{number}.log", self._told)

    def _told(self, client: Running, said: Any) -> None:
        with self._lock:
            if said["act"] == "end":
                self._ended(client, said)
                return
            client.last[said["thread"]] = time.monotonic()
            self.counts.acts += 1
            outcome, words = said["outcome"], said["words"]
            self.counts.compared += outcome in {"right", "wrong"}
            if outcome == "error":
                kind = words.partition(":")[0]
                self.counts.errors[kind] = self.counts.errors.get(kind, 0) + 1
                self.examples[kind] = words
            elif outcome in {"wrong", "untyped"}:
                setattr(self.counts, outcome, getattr(self.counts, outcome) + 1)
                self.problems.append(f"{outcome} ({said['act']}): {words}")
            begun, ended = said["begun"], said["ended"]
            took = ended - begun - client.frozen_within(begun, ended)
            self.counts.slowest = max(self.counts.slowest, took)
            try:
                promise(took, self._world.deadline + BEYOND)
            except AssertionError as late:
                self.counts.hung += 1
                self.problems.append(f"hung ({said['act']}): {late}")

    def _ended(self, client: Running, said: Any) -> None:
        """A client that ended by itself tells what it holds."""
        if said["leaked"]:
            self.counts.leaked_descriptors += max(1, said["descriptors"])
            self.problems.append(f"leaked: {said}")
        if client is self._clients[0]:
            self.counts.growth = said["growth"]
            if said["growth"] > GROWTH:
                self.problems.append(f"memory: {said}")

    def _attack(self, rng: random.Random) -> None:
        """One act. Deaths before a model is loaded are ours and not the worker's, so they do not count as its own."""
        for path in self._run_dir.glob("*.deaths"):
            path.unlink(missing_ok=True)
        what, pause = rng.choices(list(ATTACKS), list(ATTACKS.values()))[0], rng.uniform(0.1, 3.0)
        target, victim = rng.random(), rng.randrange(1, len(self._clients))
        if what.endswith("worker"):
            self._attack_worker(what, target, pause)
        elif what.endswith("client"):
            self._attack_client(what, self._clients[victim], pause)
        elif what in {"stop", "force"}:
            workers = list_workers(self._settings)
            if workers:
                self.counts.stops += 1
                chosen = workers[int(target * len(workers))]
                stop_worker(chosen, force=what == "force", timeout=0.3, settings=self._settings)
        elif what == "delete directory":
            self.counts.deleted += 1
            shutil.rmtree(self._run_dir, ignore_errors=True)
        else:
            files = sorted(self._run_dir.iterdir())
            if files:
                chosen_file = files[int(target * len(files))]
                if chosen_file.is_file() or chosen_file.is_socket():
                    self.counts.deleted += 1
                    chosen_file.unlink(missing_ok=True)

    def _attack_worker(self, what: str, target: float, pause: float) -> None:
        living = list(run_directory(self._settings).living())
        if not living:
            return
        process = living[int(target * len(living))].process
        if what == "freeze worker":
            self.counts.frozen += 1
            _signal(process, signal.SIGSTOP)
            self._later.append((time.monotonic() + pause, lambda: _signal(process, signal.SIGCONT)))
        else:
            self.counts.killed_workers += 1
            _signal(process, signal.SIGKILL if what == "kill worker" else signal.SIGTERM)

    def _attack_client(self, what: str, client: Running, pause: float) -> None:
        if what == "freeze client" and not client.is_inside:
            self.counts.frozen += 1
            begun = time.monotonic()
            client.frozen.append((begun, float("inf")))
            client.send(signal.SIGSTOP)

            def thaw() -> None:
                client.send(signal.SIGCONT)
                client.frozen[-1] = (begun, time.monotonic())

            self._later.append((begun + min(pause, 2.0), thaw))
            return
        # unshare passes nothing but its own end on to what it runs.
        self.counts.killed_clients += 1
        client.attacked = True
        client.send(signal.SIGTERM if what == "end client" and not client.is_inside else signal.SIGKILL)

    def _run_what_is_due(self, *, everything: bool = False) -> None:
        now = time.monotonic()
        due = [act for when, act in self._later if everything or when <= now]
        self._later = [] if everything else [each for each in self._later if each[0] > now]
        for act in due:
            act()

    def _look_after_clients(self) -> None:
        """Whoever has ended is replaced; whoever has been silent for too long hangs."""
        now = time.monotonic()
        for place, client in enumerate(self._clients):
            if client.process.poll() is not None:
                client.let_go()
                if not client.attacked:
                    self._ended_badly(client)
            else:
                since = min(client.last.values())
                silent = now - since - client.frozen_within(since, now)
                try:
                    promise(silent, self._world.deadline + BEYOND + SILENCE)
                    continue
                except AssertionError as words:
                    client.finish(0.0)
                    self._hung(client, str(words))
            self._clients[place] = self._start(UNSHARE if client.is_inside else ())

    def _hung(self, client: Running, when: str) -> None:
        self.counts.hung += 1
        self.problems.append(f"hung, {when}: {_end_of(client.log)}")

    def _ended_badly(self, client: Running) -> None:
        self.counts.aborted += 1
        self.problems.append(f"a client ended with {client.process.returncode}: {_end_of(client.log)}")

    def _look_for_what_is_left(self) -> None:
        """No process, once keep-alives are over; no file that the next start of a worker does not clear away."""
        for pid in processes_in(self._run_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)  # one that is stopped cannot even end
        begun = time.monotonic()
        while left := list(processes_in(self._run_dir)):
            try:
                promise(time.monotonic() - begun, LEAVES_WITHIN)
            except AssertionError:
                self.counts.orphans = len(left)
                self.problems.append(f"orphans: {left}, {[_command_of(pid) for pid in left]}")
                break
            time.sleep(0.1)
        run = run_directory(self._settings)
        make_old(run)
        for model in self._world.models:
            with Sa2VA(model, settings=self._settings, command=self._world.command) as sa:
                sa.load()
                sa.unload()
        stray = stray_files(run, len(self._world.models))
        self.counts.leaked_files = len(stray)
        if stray:
            self.problems.append(f"files: {stray}")


def _signal(process: processes.ProcessId, number: signal.Signals) -> None:
    if processes.is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return "gone"


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-6000:]


def attack(*, seed: int, seconds: float, model: str, transport: str) -> Chaos:
    """Chaos in a folder of its own, with what it came to. The folder stays where there was a problem."""
    folder = Path(tempfile.mkdtemp(prefix="sa2va-"))
    chaos = Chaos(seed=seed, model=model, transport=transport, folder=folder)
    chaos.run(seconds)
    if chaos.problems:
        chaos.problems.append(f"see {folder}, and run seed {seed} again")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return chaos


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--transport", choices=("auto", "ipc", "tcp"), default="auto")
    parser.add_argument("--model", choices=("scripted", TINY), default="scripted")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1)
        Client(Plan(**json.loads(given.client))).run()
        return 0
    print(f"seed {given.seed}", flush=True)  # noqa: T201
    os.environ["SA2VA_CONFIG"] = os.devnull
    model = given.model if given.model == TINY else "scripted:"
    chaos = attack(seed=given.seed, seconds=given.seconds, model=model, transport=given.transport)
    print(json.dumps(dataclasses.asdict(chaos.counts), indent=1))  # noqa: T201
    print(*chaos.examples.values(), *chaos.problems, sep="\n")  # noqa: T201
    return 1 if chaos.problems else 0


if __name__ == "__main__":
    sys.exit(main())
