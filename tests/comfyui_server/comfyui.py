"""A real ComfyUI server with this repository as its node pack, in folders of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .workflows import LOSSLESS, PICTURE

ROOT = Path(__file__).resolve().parents[2]
PACK = "any-name.v1"
"""The folder that the pack is cloned under: not its own name, and with a dot, which is none of a module."""
START_WITHIN = 500.0
RUN_WITHIN = 300.0


@dataclass
class Run:
    """What became of a workflow: ComfyUI's history entry."""

    prompt_id: str
    status: str
    """`success` or `error`, which an interrupted one is too."""
    messages: dict[str, Any]
    """By kind, the last of each: `execution_error`, `execution_interrupted`, ..."""
    outputs: dict[str, Any]

    @property
    def error(self) -> str:
        """The sentence on the node."""
        found = self.messages.get("execution_error", {}).get("exception_message", "")
        return str(found).strip()


class ComfyUI:
    """One server process on a free port of the loopback interface."""

    def __init__(self, folder: Path, base: Path, *, python: str, environment: Mapping[str, str]) -> None:
        self.base = base
        self.port = _free_port()
        self.log = base / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [python, "main.py", "--cpu", "--port", str(self.port), "--base-directory", str(base)],
                cwd=folder,
                env={**environment, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.await_start()

    def get(self, path: str) -> Any:
        """A document of the server's API."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def post(self, path: str, document: Mapping[str, Any]) -> Any:
        """The answer to a document. Raises `urllib.error.HTTPError`, whose body says what the server refused."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(document).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            body = answer.read()
        return json.loads(body) if body else None

    def queue(self, prompt: Mapping[str, Any]) -> str:
        """Start a workflow in API form; returns its id."""
        answer = self.post("/prompt", {"prompt": prompt, "client_id": uuid.uuid4().hex})
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, seconds: float = RUN_WITHIN) -> Run:
        """How a queued workflow ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry.get("status"):
                status = entry["status"]
                return Run(prompt_id, status["status_str"], dict(status["messages"]), entry["outputs"])
            time.sleep(0.05)
        raise AssertionError(f"the workflow did not end within {seconds:g} s:\n{self.tail()}")

    def run(self, prompt: Mapping[str, Any], seconds: float = RUN_WITHIN) -> Run:
        """Queue a workflow and wait for its end."""
        return self.wait(self.queue(prompt), seconds)

    def saved(self, run: Run, node: str) -> list[Path]:
        """The files that a Save Image or preview node wrote."""
        return [
            self.base / each["type"] / each["subfolder"] / each["filename"]
            for each in run.outputs[node]["images"]
        ]

    def tail(self) -> str:
        """The last lines of the server's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def stop(self) -> None:
        """End the server; its worker is not touched."""
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()

    def await_start(self) -> None:
        """Return when the server answers. Raises `AssertionError` where it ended, or takes too long."""
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                self.get("/queue")
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        self.process.kill()
        self.process.wait()
        raise AssertionError(f"ComfyUI did not start:\n{self.tail()}")


def prepare(base: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """Folders as ComfyUI has them, with a link to this repository among the node packs."""
    for name in ("custom_nodes", "models", "input", "output", "temp", "user/default"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "custom_nodes" / PACK).symlink_to(ROOT, target_is_directory=True)
    for picture in (ROOT / "example_workflows" / "pictures").iterdir():
        shutil.copy(picture, base / "input")
    Image.open(PICTURE).save(base / "input" / LOSSLESS)
    if settings:
        (base / "user" / "default" / "comfy.settings.json").write_text(json.dumps(settings))
    return base


@contextlib.contextmanager
def serving(
    folder: Path, base: Path, *, python: str, environment: Mapping[str, str] | None = None
) -> Iterator[ComfyUI]:
    """A server while inside."""
    server = ComfyUI(folder, base, python=python, environment={**os.environ, **(environment or {})})
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
