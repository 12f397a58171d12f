"""What `sa2va doctor` looks at. Each check yields findings; one that raises has found something by that alone."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from .text import byte_size, seconds

if TYPE_CHECKING:
    from sa2va_host.config import Settings
    from sa2va_host.interpreters import Interpreter
    from sa2va_host.nvidia import Driver

RUN_SPACE = 100 << 20
"""Bytes for records, sockets and the logs of ten workers."""
CACHE_SPACE = 12 << 30
"""Bytes of a 4B checkpoint in 16 bit (10 GB), and some room."""
CONTAINER_SHARED_MEMORY = 64 << 20
"""What a container is given when nobody asks for more, in bytes."""


@dataclass(frozen=True)
class Finding:
    """One line of the report. `warn`: something may surprise; `fail`: something does not work."""

    level: Literal["ok", "warn", "fail"]
    message: str
    advice: str = ""


Check: TypeAlias = "Callable[[Settings], Iterator[Finding]]"


def examine() -> Iterator[tuple[str, Finding]]:
    """Each finding with the name of its check, as it is made. Never raises, whatever is broken."""
    from sa2va_host.config import Settings, load_settings
    from sa2va_host.errors import Sa2VAError

    try:
        settings = load_settings()
    except Sa2VAError:  # as the check of the settings will say
        settings = Settings()
    for name, check in CHECKS.items():
        try:
            yield from ((name, finding) for finding in check(settings))
        except Sa2VAError as error:
            yield name, Finding("fail", " ".join([error.message, *error.log_tail[-1:]]), error.advice)
        except Exception as error:  # noqa: BLE001 - whatever is broken, the other checks matter all the more
            yield name, Finding("fail", f"{type(error).__name__}: {error}")


def _system(_: Settings) -> Iterator[Finding]:
    import psutil

    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield Finding("ok", f"{python}, {sys.executable}")
    memory = psutil.virtual_memory()
    yield Finding(
        "ok",
        f"{platform.platform()}, {os.cpu_count()} processors, "
        f"{byte_size(memory.available)} of {byte_size(memory.total)} memory free",
    )


def _packages(_: Settings) -> Iterator[Finding]:
    import sa2va_host
    from sa2va_host.distribution import installed_versions, requirements, unmet
    from sa2va_host.plugins import DISTRIBUTION

    needed = requirements()
    versions = installed_versions([DISTRIBUTION, *(requirement.name for requirement in needed)])
    yield Finding("ok", f"{_listed(versions)}; {Path(sa2va_host.__file__).parent}")
    if missing := unmet(needed, versions):
        command = [sys.executable, "-m", "pip", "install", *(each.requirement for each in missing)]
        yield Finding("fail", f"missing: {', '.join(map(str, missing))}", f"Run: {shlex.join(command)}")


def _settings(_: Settings) -> Iterator[Finding]:
    from sa2va_host.config import load_settings, origins, settings_file

    load_settings()
    file = settings_file()
    given = [f"{name} ({origin})" for name, origin in origins().items() if origin != "default"]
    yield Finding("ok", f"{file}{'' if file.exists() else ' (none)'}; set: {', '.join(given) or 'nothing'}")


def _run_directory(settings: Settings) -> Iterator[Finding]:
    from sa2va_host.transport import MAX_PATH
    from sa2va_host.workers import run_directory

    try:
        directory = run_directory(settings)
        with tempfile.TemporaryFile(dir=directory.path) as file:
            file.write(b"sa2va")
    except OSError as error:
        where = settings.run_dir or "The run directory"
        yield Finding(
            "fail", f"{where} cannot be used: {error}.", "Set SA2VA_RUN_DIR to a folder of your own."
        )
        return
    yield Finding("ok", str(directory.path))
    sockets = directory.socket_path("0" * 32).parent
    if sockets != directory.path:
        yield Finding(
            "warn",
            f"a socket's path may have {MAX_PATH} bytes, so the sockets are in {sockets}",
            "A shorter SA2VA_RUN_DIR keeps everything in one place.",
        )


def _disk_space(settings: Settings) -> Iterator[Finding]:
    from sa2va_host.checkpoints import hub_cache
    from sa2va_host.workers import run_directory

    cache = hub_cache()
    yield _space(cache, CACHE_SPACE, "Set HF_HOME to a folder on a larger disk before `sa2va pull`.")
    yield _space(
        run_directory(settings).path, RUN_SPACE, "Workers cannot write their records on a full disk."
    )


def _space(folder: Path, wanted: int, advice: str) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    message = f"{byte_size(free)} free for {folder}"
    return Finding("ok", message) if free >= wanted else Finding("warn", message, advice)


def _shared_memory(_: Settings) -> Iterator[Finding]:
    folder = Path("/dev/shm")  # noqa: S108 - Linux has it there
    if not folder.is_dir():
        return
    usage = shutil.disk_usage(folder)
    message = f"{byte_size(usage.free)} of {byte_size(usage.total)} free in {folder}"
    if usage.total <= CONTAINER_SHARED_MEMORY:
        yield Finding("warn", message, "Start the container with more, such as --shm-size=1g.")
    else:
        yield Finding("ok", message)


def _workers(settings: Settings) -> Iterator[Finding]:
    from sa2va_host import list_workers, processes
    from sa2va_host.workers import run_directory

    from .workers import short_name

    workers = list_workers(settings)
    if not workers:
        yield Finding("ok", "none is running")
    for worker in workers:
        name = short_name(worker.model)
        message = f"{worker.pid} of {name}: {worker.phase} for {seconds(worker.phase_seconds)}, {worker.log}"
        advice = "" if worker.responding else f"End it with: sa2va stop --force {shlex.quote(name)}"
        yield Finding("ok" if worker.responding else "warn", message, advice)
    for record in run_directory(settings).records():
        if not processes.is_alive(record.process):
            yield Finding(
                "warn",
                f"{record.process.pid} of {short_name(record.specification.checkpoint)} was killed, {record.log}",
                "The next worker of this model clears its record away.",
            )


def _plugins(_: Settings) -> Iterator[Finding]:
    from sa2va_host.plugins import list_plugins

    for plugin in list_plugins():
        message = f"{plugin.name} ({plugin.distribution} {plugin.version}): {plugin.state}"
        if plugin.state == "failed":
            advice = f"Mend or remove {plugin.distribution}, or set SA2VA_DISABLE_PLUGINS={plugin.name}."
            yield Finding("fail", f"{message}, {plugin.reason}", advice)
        else:
            yield Finding("ok", message)


def _worker_python(settings: Settings) -> Iterator[Finding]:
    from sa2va_host.interpreters import inspect
    from sa2va_host.nvidia import find_driver

    found = inspect(settings.worker_python)
    yield Finding("ok", f"Python {found.python}, {found.executable}")
    yield Finding("ok", _listed(found.versions))
    if problems := found.problems():
        yield Finding("fail", f"the worker cannot run there: {', '.join(problems)}", "Run: sa2va setup")
    elif not found.is_ours:
        yield Finding(
            "warn",
            "this version of sa2va-host is not installed there, so the worker has none of its plugins",
            "Run: sa2va setup",
        )
    yield from accelerators(found, find_driver())


def accelerators(found: Interpreter, driver: Driver | None) -> Iterator[Finding]:
    """What the driver has, what torch sees of it, and why it sees less."""
    if driver is not None:
        yield Finding("ok", f"NVIDIA driver {driver.version}, up to CUDA {driver.cuda}")
        for gpu in driver.gpus:
            yield Finding("ok", f"{gpu.name}, {byte_size(gpu.free)} of {byte_size(gpu.memory)} free")
    if found.devices:
        yield Finding("ok", f"torch can use {', '.join(found.devices)}")
    elif driver is None or not driver.gpus:
        yield Finding("ok", "no GPU is found, so models run on the processor")
    elif not found.cuda:
        yield Finding(
            "warn",
            "torch is built without CUDA, so the GPU is not used",
            "Install a build of torch for CUDA in the worker's Python.",
        )
    elif _major(found.cuda) > _major(driver.cuda):
        # Within a major version any driver will do (NVIDIA's CUDA Compatibility guide).
        yield Finding(
            "fail",
            f"torch is built for CUDA {found.cuda}, and the driver goes up to {driver.cuda}",
            f"Update the driver, or install a build of torch for CUDA {_major(driver.cuda)}.",
        )
    else:
        yield Finding("warn", "torch sees no GPU, and the driver does", "Look at CUDA_VISIBLE_DEVICES.")


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _listed(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version or '-'}" for name, version in versions.items())


CHECKS: dict[str, Check] = {
    "system": _system,
    "packages": _packages,
    "settings": _settings,
    "run directory": _run_directory,
    "disk space": _disk_space,
    "shared memory": _shared_memory,
    "plugins": _plugins,
    "workers": _workers,
    "worker python": _worker_python,
}
