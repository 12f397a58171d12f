"""What `sa2va doctor` says of the Pythons that run workers: what is installed there, what works, what is unsafe."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .advisories import affecting
from .findings import Finding, listed
from .text import byte_size

if TYPE_CHECKING:
    from sa2va_host.config import Settings
    from sa2va_host.machine.interpreters import Interpreter
    from sa2va_host.machine.nvidia import Driver

USES = {
    "bitsandbytes": "quantization 8bit and 4bit",
    "flash-attn": "attention flash_attention_2",
    "kernels": "attention by prebuilt kernels",
}
"""What each optional library is for."""


def worker_python(settings: Settings) -> Iterator[Finding]:
    """The interpreter of the setting ``worker_python``, and what it makes of the GPU."""
    from sa2va_host.machine.interpreters import inspect
    from sa2va_host.machine.nvidia import find_driver

    found = inspect(settings.worker_python)
    yield Finding("ok", f"Python {found.python}, {found.executable}")
    yield Finding("ok", listed(found.versions))
    if problems := found.problems():
        yield Finding("problem", f"the worker cannot run there: {', '.join(problems)}", "Run: sa2va setup")
    elif not found.is_ours:
        yield Finding(
            "warning",
            "this version of sa2va-host is not installed there, so the worker has none of its plugins",
            "Run: sa2va setup",
        )
    yield from vulnerabilities(found)
    yield from libraries(found)
    yield from accelerators(found, find_driver())


def other_pythons(settings: Settings) -> Iterator[Finding]:
    """The interpreters that the settings give single models."""
    from sa2va_host.errors import WorkerStartFailed
    from sa2va_host.machine.interpreters import REMOTE_CODE, WORKER, inspect

    models: dict[str, list[str]] = {}
    for name, own in settings.models.items():
        if own.worker_python not in ("", settings.worker_python):
            models.setdefault(own.worker_python, []).append(name)
    for python, names in models.items():
        served = ", ".join(names)
        trusted = all(settings.models[name].trust_remote_code for name in names)
        try:
            found = inspect(python, REMOTE_CODE if trusted else WORKER)
        except WorkerStartFailed as error:
            yield Finding("problem", f"for {served}: {error.message}", error.advice)
            continue
        yield Finding(
            "ok", f"for {served}: Python {found.python}, {found.executable}; {listed(found.versions)}"
        )
        if problems := found.problems():
            yield Finding(
                "problem",
                f"the worker of {served} cannot run there: {', '.join(problems)}",
                f"Run: sa2va setup{' remote-code' if trusted else ''}",
            )
        yield from vulnerabilities(found, pinned=trusted)


def vulnerabilities(found: Interpreter, *, pinned: bool = False) -> Iterator[Finding]:
    """What is known to be unsafe there. ``pinned``: a newer version would not do."""
    advisories = affecting(found.versions)
    if not advisories:
        return
    newest = advisories[-1]
    update = [found.executable, "-m", "pip", "install", f"{newest.distribution}>={newest.fixed}"]
    yield Finding(
        "warning",
        f"{newest.distribution} {found.versions[newest.distribution]} has "
        + ", ".join(f"{each.cve} ({each.effect})" for each in advisories),
        "Load only checkpoints that you trust: their code needs this version."
        if pinned
        else f"Run: {shlex.join(update)}",
    )


def libraries(found: Interpreter) -> Iterator[Finding]:
    """The optional libraries: which did a small piece of their work, which failed, which are not there."""
    working = [name for name, failure in found.trials.items() if not failure]
    if working:
        yield Finding("ok", ", ".join(f"{name} works ({USES[name]})" for name in working))
    for name, failure in found.trials.items():
        if failure:
            again = [found.executable, "-m", "pip", "install", "--force-reinstall", name]
            yield Finding(
                "warning",
                f"{name} {found.versions.get(name)} does not work, which {USES[name]} needs: {failure}",
                f"Run: {shlex.join(again)}",
            )
    if absent := [f"{name} ({use})" for name, use in USES.items() if name not in found.trials]:
        yield Finding("ok", f"not installed, and not needed otherwise: {', '.join(absent)}")


def accelerators(found: Interpreter, driver: Driver | None) -> Iterator[Finding]:
    """What the driver has, what torch sees of it, and why it sees less."""
    if driver is not None:
        yield Finding("ok", f"NVIDIA driver {driver.version}, up to CUDA {driver.cuda}")
        for gpu in driver.gpus:
            yield Finding("ok", f"{gpu.name}, {byte_size(gpu.free)} of {byte_size(gpu.memory)} free")
    built = f"torch, built {f'for CUDA {found.cuda}' if found.cuda else 'without CUDA'},"
    if found.devices:
        yield Finding("ok", f"{built} can use {', '.join(found.devices)}")
    elif driver is None or not driver.gpus:
        yield Finding("ok", f"{built} finds no GPU, so models run on the processor")
    elif not found.cuda:
        yield Finding(
            "warning",
            "torch is built without CUDA, so the GPU is not used",
            "Install a build of torch for CUDA in the worker's Python.",
        )
    elif _major(found.cuda) > _major(driver.cuda):
        # Within a major version any driver will do (NVIDIA's CUDA Compatibility guide).
        yield Finding(
            "problem",
            f"torch is built for CUDA {found.cuda}, and the driver goes up to {driver.cuda}",
            f"Update the driver, or install a build of torch for CUDA {_major(driver.cuda)}.",
        )
    else:
        yield Finding("warning", "torch sees no GPU, and the driver does", "Look at CUDA_VISIBLE_DEVICES.")


def _major(version: str) -> int:
    return int(version.partition(".")[0])
