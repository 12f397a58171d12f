"""The Python that runs the worker, asked whether it could.

It may be another than ours, so it is asked in a process of its own (`sa2va_worker/probe.py`), which takes as long as
importing torch does.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sa2va_host.errors import WorkerStartFailed

from .distribution import DISTRIBUTION, REMOTE_CODE, WORKER, Missing, installed_versions, requirements, unmet
from .worker_program import clean_environment, worker_command

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OPTIONAL = ("quantization", "flash")
"""The extras that the worker uses where they are installed."""
_ENGINES = {WORKER: "sa2va_worker.engine", REMOTE_CODE: "sa2va_worker.own_code.engine"}
"""What either has to be able to import."""
ANSWER_WITHIN = 180.0
"""Seconds for the import of torch and transformers from a cold disk."""


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """What a Python has for the worker."""

    executable: str
    python: str
    """Its version, as `3.12.1`."""
    extra: str = WORKER
    """`WORKER` or `REMOTE_CODE`: for which of the two it was asked."""
    versions: dict[str, str | None]
    """Of this distribution, of each that its extras for the worker name, and of each in `trials`; None for what is not
    installed.
    """
    error: str
    """Why the worker cannot be imported; empty where it can."""
    cuda: str = ""
    """The CUDA version that its torch was built for; empty for a build without."""
    hip: str = ""
    """The same for ROCm."""
    tried: bool = True
    """Whether its libraries were imported, and not only looked up."""
    trials: dict[str, str] = {}
    """Of each optional library that is installed: empty where it did a small piece of its work, else why not; of none
    where nothing was tried.
    """
    devices: tuple[str, ...] = ()
    """The accelerators that its torch can use: `cuda:0 NVIDIA H200`, `mps`."""

    @property
    def is_ours(self) -> bool:
        """Whether it has this very version of this distribution, which is how the worker finds our plugins."""
        return self.versions.get(DISTRIBUTION) == installed_versions([DISTRIBUTION])[DISTRIBUTION]

    @property
    def has_pip(self) -> bool:
        """Whether pip is installed there, which uv leaves out."""
        return bool(self.versions.get("pip"))

    def missing(self, wanted: Iterable[Requirement] = ()) -> list[Missing]:
        """What it lacks of the extra that it was asked for, or of what is wanted besides."""
        return unmet([*requirements(self.extra), *wanted], self.versions)

    def problems(self, wanted: Iterable[Requirement] = ()) -> list[str]:
        """Why it could not run the worker, or lacks what is wanted besides; empty when all is well."""
        return [str(each) for each in self.missing(wanted)] or ([self.error] if self.error else [])


def inspect(
    python: str, extra: str = WORKER, *, tried: bool = True, seconds: float = ANSWER_WITHIN
) -> Interpreter:
    """Ask an interpreter (the setting ``worker_python``), in the environment that a worker would have.

    ``extra``: `WORKER`, or `REMOTE_CODE` for one where checkpoints run their own code. ``tried``: import the worker's
    libraries and try the optional ones; without, versions are read and torch alone is imported, for its devices, in a
    third of the time. Starts no worker. Raises
    `WorkerStartFailed` when it cannot be run, is too slow, or is no Python.
    """
    program, worker = worker_command(python)
    extras = (extra, *OPTIONAL) if extra == WORKER else (extra,)
    names = dict.fromkeys(requirement.name for requirement in requirements(*extras))
    names["pip"] = None
    try:
        done = subprocess.run(
            [
                program,
                str(Path(worker).with_name("probe.py")),
                _ENGINES[extra] if tried else "-",
                DISTRIBUTION,
                *names,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=clean_environment(os.environ),
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise WorkerStartFailed(
            f"The interpreter {program} cannot be started: {error.strerror or error}.",
            advice="Check worker_python.",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise WorkerStartFailed(
            f"The interpreter {program} did not import the worker's libraries within {seconds:g} s.",
            advice="Try again; the first import is the slowest.",
        ) from error
    try:
        found = msgspec.json.decode(done.stdout, type=Interpreter)
    except msgspec.MsgspecError as error:
        raise WorkerStartFailed(
            f"{program} does not answer as a Python does (exit code {done.returncode}).",
            advice="Check worker_python.",
            log_tail=done.stderr.decode("utf-8", "replace").splitlines(),
        ) from error
    return msgspec.structs.replace(found, extra=extra, tried=tried)
