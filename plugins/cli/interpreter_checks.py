"""What `sa2va doctor` says of the Pythons that run workers: what is installed there, what works, what is unsafe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sa2va_host.machine.commands import pip_command, sa2va_command

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


def worker_python(settings: Settings, *, tried: bool = False) -> Iterator[Finding]:
    """The interpreter of the setting ``worker_python``, and what it makes of the GPU. ``tried``: whether its libraries
    are imported, or only looked up.
    """
    from sa2va_host.machine.distribution import are_small
    from sa2va_host.machine.interpreters import inspect
    from sa2va_host.machine.nvidia import find_driver

    found = inspect(settings.worker_python, tried=tried)
    yield Finding("ok", f"Python {found.python}, {found.executable}")
    yield Finding("ok", listed(found.versions))
    missing = found.missing()
    if problems := found.problems():
        small = bool(missing) and are_small(missing)
        advice = _install(found, *(each.requirement for each in missing)) if small else _setup()
        yield Finding(
            "problem",
            f"the worker cannot run there: it lacks {', '.join(problems)}"
            if missing
            else f"the worker cannot run there: {problems[0]}",
            advice,
        )
    elif not found.is_ours:
        yield Finding(
            "warning",
            "this version of sa2va-host is not installed there, so the worker has none of its plugins",
            _setup(),
        )
    yield from interrupted(found.executable)
    yield from vulnerabilities(found)
    if not missing:
        yield from libraries(found)
    yield from accelerators(found, find_driver())


def other_pythons(settings: Settings, *, tried: bool = False) -> Iterator[Finding]:
    """The interpreters that the settings give single models. ``tried`` as in `worker_python`."""
    from sa2va_host.errors import WorkerStartFailed
    from sa2va_host.machine.distribution import REMOTE_CODE, WORKER
    from sa2va_host.machine.interpreters import inspect

    models: dict[str, list[str]] = {}
    for name, own in settings.models.items():
        if own.worker_python not in ("", settings.worker_python):
            models.setdefault(own.worker_python, []).append(name)
    for python, names in models.items():
        served = ", ".join(names)
        trusted = all(settings.models[name].trust_remote_code for name in names)
        try:
            found = inspect(python, REMOTE_CODE if trusted else WORKER, tried=tried)
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
                _setup(*(["remote-code", "--model", names[0]] if trusted else [])),
            )
        yield from vulnerabilities(found, pinned=trusted)
    if not any(own.trust_remote_code for own in settings.models.values()):
        yield Finding(
            "ok",
            "no model has an environment for remote-code, which checkpoints that bring their own code need",
            f"For such a checkpoint run: {sa2va_command('setup', 'remote-code', '--model')} ORG/NAME",
        )


def vulnerabilities(found: Interpreter, *, pinned: bool = False) -> Iterator[Finding]:
    """What is known to be unsafe there. ``pinned``: a newer version would not do."""
    advisories = affecting(found.versions)
    if not advisories:
        return
    newest = advisories[-1]
    yield Finding(
        "warning",
        f"{newest.distribution} {found.versions[newest.distribution]} has "
        + ", ".join(f"{each.cve} ({each.effect})" for each in advisories),
        "Load only checkpoints that you trust: their code needs this version."
        if pinned
        else _install(found, f"{newest.distribution}>={newest.fixed}"),
    )


def libraries(found: Interpreter) -> Iterator[Finding]:
    """The optional libraries: which are there, or did a small piece of their work, which failed, and which are not
    there.
    """
    there = [name for name in USES if found.versions.get(name)]
    if working := [name for name in there if not found.trials.get(name)]:
        how = " works" if found.tried else ""
        yield Finding(
            "ok", ", ".join(f"{name} {found.versions[name]}{how} ({USES[name]})" for name in working)
        )
    for name, failure in found.trials.items():
        if failure:
            yield Finding(
                "warning",
                f"{name} {found.versions.get(name)} does not work, which {USES[name]} needs: {failure}",
                _install(found, "--force-reinstall", name),
            )
    for name, use in USES.items():
        if name not in there:
            # It is built with the very PyTorch that it is to run with, for CUDA (flash-attn's README, Installation).
            options = ["--no-build-isolation"] if name == "flash-attn" else []
            advice = "" if options and not found.cuda else _install(found, *options, name)
            yield Finding("ok", f"{name} is not installed, which only {use} needs", advice)


def interrupted(python: str) -> Iterator[Finding]:
    """Whether the set-up of an interpreter's environment did not come to its end."""
    from .environment import Environment

    environment = Environment(Path(python).absolute().parent.parent, "")
    if environment.is_interrupted:
        yield Finding(
            "problem",
            f"the set-up of {environment.folder} did not come to its end",
            _setup("--path", str(environment.folder)),
        )


def _install(found: Interpreter, *packages: str) -> str:
    return f"Run: {pip_command(packages, found.executable, has_pip=found.has_pip)}"


def _setup(*words: str) -> str:
    return f"Run: {sa2va_command('setup', *words)}"


def accelerators(found: Interpreter, driver: Driver | None) -> Iterator[Finding]:
    """What the driver has, what torch sees of it, and why it sees less."""
    if driver is not None:
        yield Finding("ok", f"NVIDIA driver {driver.version}, up to CUDA {driver.cuda}")
        for gpu in driver.gpus:
            yield Finding("ok", f"{gpu.name}, {byte_size(gpu.free)} of {byte_size(gpu.memory)} free")
    if not found.versions.get("torch"):
        return
    built = f"torch, built {f'for CUDA {found.cuda}' if found.cuda else 'without CUDA'},"
    if found.devices:
        yield Finding("ok", f"{built} can use {', '.join(found.devices)}")
    elif driver is None or not driver.gpus:
        yield Finding("ok", f"{built} finds no GPU, so models run on the CPU")
    elif not found.cuda:
        yield Finding(
            "warning",
            "torch is built without CUDA, so the GPU is not used",
            _setup("--cuda"),
        )
    elif _major(found.cuda) > _major(driver.cuda):
        # Within a major version any driver will do (NVIDIA's CUDA Compatibility guide).
        yield Finding(
            "problem",
            f"torch is built for CUDA {found.cuda}, and the driver goes up to {driver.cuda}",
            f"Update the driver, or take a torch for CUDA {_major(driver.cuda)}. {_setup('--cuda')}",
        )
    else:
        yield Finding("warning", "torch sees no GPU, and the driver does", "Look at CUDA_VISIBLE_DEVICES.")


def _major(version: str) -> int:
    return int(version.partition(".")[0])
