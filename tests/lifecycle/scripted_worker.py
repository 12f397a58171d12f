"""A real worker process whose engine is a script: no torch, no weights, every misbehaviour on demand.

Started by the launcher instead of the worker's own program. What the model does when it is loaded is told
by its name, ``scripted:load=0.2,children=1``; what a call does by its prompt, ``steps=3 pause=0.1
objects=2``. Each word is listed where it is read.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from sa2va_host.errors import InvalidInput, ModelLoadFailed, OutOfMemory
from sa2va_host.protocol.specification import ModelInfo, Specification
from sa2va_worker.process import main
from sa2va_worker.steps import (
    Answer,
    ChatRequest,
    EngineBroken,
    FrameSource,
    Masks,
    MemoryUse,
    Processed,
    ProcessRequest,
    Progress,
    Said,
    SegmentRequest,
    Step,
    Token,
    Waiting,
)

SIZE = 32
SIDE = 8
_MISBEHAVIOURS = {"sleep", "gil", "stop"}


class Options(dict[str, str]):
    """Words of the form ``name=value``."""

    def __init__(self, text: str, separator: str | None = None) -> None:
        super().__init__(word.split("=", 1) for word in text.split(separator) if "=" in word)

    def number(self, name: str, default: float = 0.0) -> float:
        return float(self.get(name, default))


class ScriptedEngine:
    """Answers what it was told to, as slowly and as badly as it was told to."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._tracked = 0

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            name="scripted",
            family="scripted",
            image_size=SIZE,
            mask_size=SIDE,
            device="cpu",
            dtype="float32",
            attention="eager",
            parameters=0,
        )

    def load(self, spec: Specification) -> Iterator[Step]:
        """``load`` seconds in ``parts``, ``silent``, ``importing`` a module in each part, ``dieload`` by a signal,
        ``exitload`` with a code, ``failload`` with an error, ``deaf`` to SIGTERM, ``children`` that are as deaf.
        """
        options = Options(spec.checkpoint.removeprefix("scripted:"), ",")
        parts = int(options.number("parts", 5))
        if "deaf" in options:
            _ignore_sigterm()
        for _ in range(int(options.number("children"))):
            self._children.append(_deaf_child())
        for part in range(parts):
            if "silent" not in options:
                yield Progress("loading", part * 100, parts * 100, "bytes")
            if "importing" in options:
                sys.modules[f"scripted_{part}"] = types.ModuleType(f"scripted_{part}")
            time.sleep(options.number("load") / parts)
            if part == parts // 2:
                _misbehave(options)
        if "memory" in options:
            _take_the_memory()
        if "failload" in options:
            raise ModelLoadFailed("The script says no.", advice="Write another script.")
        yield Progress("loading", parts * 100, parts * 100, "bytes")

    def segment(self, request: SegmentRequest, frames: FrameSource) -> Iterator[Step]:
        """``objects``, ``wide`` ones as float64, with ``presence`` each less sure than the one before,
        ``steps`` tokens with ``pause`` seconds each, ``sleep`` seconds in one step, ``gil`` seconds in C with
        the interpreter locked, and whatever `_raise` knows. Of several prompts each has its own objects; the
        first one says the rest.
        """
        tracked_before = self._tracked
        scripts = [Options(prompt) for prompt in request.prompts]
        answers = [_say(prompt, len(request.key_frames)) + _where(request) for prompt in request.prompts]
        for script, answer in zip(scripts, answers, strict=True):
            yield from self._speak(script)
            yield Said(answer, int(script.number("objects", 1)))
        options, objects = scripts[0], sum(int(script.number("objects", 1)) for script in scripts)
        index = 0
        while objects:
            frame = frames.get()
            if frame is None:
                if frames.finished:
                    break
                yield Waiting()
                continue
            time.sleep(options.number("pause"))
            presence = -np.arange(objects, dtype=np.float32) if "presence" in options else None
            self._tracked += request.tracked
            logits = logits_of(frame, objects)
            yield Masks(index, logits.astype(np.float64) if "wide" in options else logits, presence)
            index += 1
            yield Progress("tracking", index, request.frame_count)
        meanwhile = float(self._tracked - tracked_before)
        yield Answer("\n".join(answers), objects, {"scripted": 0.001, "frames_meanwhile": meanwhile})

    def chat(self, request: ChatRequest) -> Iterator[Step]:
        """As `segment`, without masks."""
        yield from self._speak(Options(request.prompt))
        sums = " ".join(str(int(image.astype(np.int64).sum())) for image in request.images)
        yield Answer(f"{_say(request.prompt, len(request.images))} {sums}".strip(), 0, {"scripted": 0.001})

    def process(self, request: ProcessRequest) -> Iterator[Step]:
        """Its options are the words; what is 0.25 becomes 0.75, for example."""
        words = " ".join(f"{name}={value}" for name, value in request.options.items())
        yield from self._speak(Options(words))
        for index, probability in enumerate(request.probabilities):
            yield Processed(index, 1 - probability)
        yield Answer("", len(request.probabilities))

    def memory(self) -> MemoryUse:
        return MemoryUse(1, 2, 3)

    def _speak(self, options: Options) -> Iterator[Step]:
        yield Progress("encoding", 0, 1)
        for step in range(int(options.number("steps", 1))):
            time.sleep(options.number("pause"))
            if step == int(options.number("at")):
                _misbehave(options)
            yield Token(f"word{step} ")
            yield Progress("generating", step + 1, None, "tokens")


def logits_of(frame: np.ndarray, objects: int) -> np.ndarray:
    """What the script answers for a frame: its first channel, coarse, a little different for each object."""
    stride = frame.shape[0] // SIDE
    coarse = frame[::stride, ::stride, 0].astype(np.float32)
    return np.stack([coarse - 100 * (index + 1) for index in range(objects)])


def _say(prompt: str, pictures: int) -> str:
    return f"{prompt} [{pictures}] by {os.getpid()}"


def _where(request: SegmentRequest) -> str:
    """What is unusual about the key frames."""
    spread = list(request.positions) != list(range(len(request.key_frames)))
    where = f" at {list(request.positions)}" if spread else ""
    return where + (" on masks" if request.condition_on == "masks" else "")


def _misbehave(options: Options) -> None:
    """``sleep``, ``gil``, ``dieload``/``die`` (a signal's name), ``exitload``, ``stop``, ``error`` (a
    class). Says so in the log first, for tests that wait until it does.
    """
    if _MISBEHAVIOURS & options.keys():
        sys.stderr.write("about to misbehave\n")
        sys.stderr.flush()
    time.sleep(options.number("sleep"))
    if "gil" in options:
        ctypes.PyDLL(None).usleep(int(options.number("gil") * 1e6))  # PyDLL keeps the interpreter locked
    for word in ("die", "dieload"):
        if word in options:
            sys.stderr.write("about to die\n")
            os.kill(os.getpid(), signal.Signals[options[word]])
            time.sleep(60)
    if "exitload" in options:
        sys.stderr.write("about to exit\n")
        os._exit(int(options.number("exitload")))
    if "stop" in options:
        os.kill(os.getpid(), signal.SIGSTOP)
    if "error" in options:
        raise {
            "memory": OutOfMemory("The script has no memory."),
            "input": InvalidInput("The script dislikes this."),
            "broken": EngineBroken("the script broke the device"),
            "bug": ZeroDivisionError("division by zero"),
        }[options["error"]]


def _take_the_memory() -> None:
    """Until the process ends, as a driver gives memory: a lock in the run directory, which is where a worker runs."""
    memory = os.open("device.memory", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(memory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutOfMemory("The script's device is full.", advice="Use a smaller script.") from None


def _ignore_sigterm() -> None:
    """From the engine's thread only C can change what a signal does."""
    ctypes.CDLL(None).signal(int(signal.SIGTERM), ctypes.c_void_p(1))


def _deaf_child() -> subprocess.Popen[bytes]:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    return subprocess.Popen([sys.executable, "-c", program])


if __name__ == "__main__":
    main(ScriptedEngine)
