"""What `sa2va doctor` looks at. Each check yields findings; one that raises has found something by that alone."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from sa2va_host.machine.commands import extra_command, pip_command, sa2va_command

from .findings import Finding, listed
from .interpreter_checks import other_pythons, worker_python
from .text import byte_size, seconds

if TYPE_CHECKING:
    from sa2va_host.config import Settings

RUN_SPACE = 100 << 20
"""Bytes for records, sockets and the logs of ten workers."""
CACHE_SPACE = 12 << 30
"""Bytes of a 4B checkpoint in 16 bit (10 GB), and some room."""
CONTAINER_SHARED_MEMORY = 64 << 20
"""What a container is given when nobody asks for more, in bytes."""

Check: TypeAlias = "Callable[[Settings], Iterator[Finding]]"


def examine(*, full: bool = False) -> Iterator[tuple[str, Finding]]:
    """Each finding with the name of its check, as it is made. Never raises, whatever is broken.

    ``full``: whether the worker's libraries are imported and tried, or only looked up.
    """
    from sa2va_host.config import Settings, load_settings
    from sa2va_host.errors import Sa2VAError

    try:
        settings = load_settings()
    except Sa2VAError:  # as the check of the settings will say
        settings = Settings()
    for name, check in (CHECKS | (FULL if full else {})).items():
        try:
            yield from ((name, finding) for finding in check(settings))
        except Sa2VAError as error:
            yield name, Finding("problem", " ".join([error.message, *error.log_tail[-1:]]), error.advice)
        except Exception as error:  # noqa: BLE001 - whatever is broken, the other checks matter all the more
            yield name, Finding("problem", f"{type(error).__name__}: {error}")


def _system(_: Settings) -> Iterator[Finding]:
    import psutil

    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield Finding("ok", f"{python}, {sys.executable}")
    memory = psutil.virtual_memory()
    free = f"{byte_size(memory.available)} of {byte_size(memory.total)} memory free"
    yield Finding("ok", f"{platform.platform()}, {os.cpu_count()} CPUs, {free}")


def _packages(_: Settings) -> Iterator[Finding]:
    import sa2va_host
    from sa2va_host.machine.distribution import DISTRIBUTION, installed_versions, requirements, unmet

    needed = requirements()
    versions = installed_versions([DISTRIBUTION, *(requirement.name for requirement in needed)])
    yield Finding("ok", f"{listed(versions)}; {Path(sa2va_host.__file__).parent}")
    if missing := unmet(needed, versions):
        command = pip_command(each.requirement for each in missing)
        yield Finding("problem", f"missing: {', '.join(map(str, missing))}", f"Run: {command}")
    failures = {}
    for name, trial in TRIALS.items():
        try:
            trial()
        except Exception as error:  # noqa: BLE001 - a library that is broken may fail in any way
            failures[name] = f"{type(error).__name__}: {error}"
    for name, failure in failures.items():
        command = pip_command(["--force-reinstall", name])
        yield Finding("problem", f"{name} does not work: {failure}", f"Run: {command}")
    if working := [name for name in TRIALS if name not in failures]:
        yield Finding("ok", f"{', '.join(working)} work")


def _extras(_: Settings) -> Iterator[Finding]:
    """What is optional in this Python: there in a version that fits, or missing, for what, and how it gets here."""
    from sa2va_host.machine.distribution import extras, installed_versions, requirements, unmet

    for extra in extras():
        if extra not in HERE:
            continue
        if extra == "opencv":
            yield _opencv()
            continue
        needed = requirements(extra)
        versions = installed_versions(each.name for each in needed)
        if missing := unmet(needed, versions):
            lacking = ", ".join(map(str, missing))
            yield Finding(
                "ok", f"{extra} is missing, for {HERE[extra]}: {lacking}", f"Run: {extra_command(extra)}"
            )
        else:
            yield Finding("ok", f"{extra}, for {HERE[extra]}: {listed(versions)}")


def _settings(_: Settings) -> Iterator[Finding]:
    from sa2va_host.config import load_settings, origins, settings_file

    load_settings()
    file = settings_file()
    given = [f"{name} ({origin})" for name, origin in origins().items() if origin != "default"]
    yield Finding("ok", f"{file}{'' if file.exists() else ' (none)'}; set: {', '.join(given) or 'nothing'}")


def _run_directory(settings: Settings) -> Iterator[Finding]:
    from sa2va_host.lifecycle.workers import run_directory
    from sa2va_host.protocol.transport import MAX_PATH

    try:
        directory = run_directory(settings)
        with tempfile.TemporaryFile(dir=directory.path) as file:
            file.write(b"sa2va")
    except OSError as error:
        where = settings.run_dir or "The run directory"
        yield Finding(
            "problem", f"{where} cannot be used: {error}.", "Set SA2VA_RUN_DIR to a folder of your own."
        )
        return
    yield Finding("ok", str(directory.path))
    sockets = directory.socket_path("0" * 32).parent
    if sockets != directory.path:
        yield Finding(
            "warning",
            f"a socket's path may have {MAX_PATH} bytes, so the sockets are in {sockets}",
            "A shorter SA2VA_RUN_DIR keeps everything in one place.",
        )


def _disk_space(settings: Settings) -> Iterator[Finding]:
    from sa2va_host.lifecycle.workers import run_directory
    from sa2va_host.models.checkpoints import hub_cache

    cache = hub_cache()
    yield _space(cache, CACHE_SPACE, "Set HF_HOME to a folder on a larger disk before you fetch models.")
    yield _space(
        run_directory(settings).path, RUN_SPACE, "Workers cannot write their records on a full disk."
    )


def _space(folder: Path, wanted: int, advice: str) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    message = f"{byte_size(free)} free for {folder}"
    return Finding("ok", message) if free >= wanted else Finding("warning", message, advice)


def _shared_memory(_: Settings) -> Iterator[Finding]:
    folder = Path("/dev/shm")  # noqa: S108 - Linux has it there
    if not folder.is_dir():
        return
    usage = shutil.disk_usage(folder)
    message = f"{byte_size(usage.free)} of {byte_size(usage.total)} free in {folder}"
    if usage.total <= CONTAINER_SHARED_MEMORY:
        yield Finding("warning", message, "Start the container with more, such as --shm-size=1g.")
    else:
        yield Finding("ok", message)


def _models(settings: Settings) -> Iterator[Finding]:
    from sa2va_host.config import settings_file
    from sa2va_host.models.checkpoints import hub_cache, pull_command
    from sa2va_host.models.choice import choose

    from .models import present

    found = present(settings)
    count = Counter(each.source for each in found)
    for folder in settings.model_folders:
        if not Path(folder).expanduser().is_dir():
            advice = f"Make it, or take it out of model_folders in {settings_file()}."
            yield Finding("warning", f"the model folder {folder} is not there", advice)
    yield Finding(
        "ok",
        f"{count['bundled']} bundled, {count['cache']} in {hub_cache()},"
        f" {count['folder']} in folders ({', '.join(settings.model_folders) or 'none is set'}):"
        f" {', '.join(each.name for each in found)}",
    )
    for each in found:
        if problem := each.contents.problem:
            again = pull_command(each.name, each.revision)
            advice = f"Run: {again}" if each.source == "cache" else "Copy it there again."
            yield Finding("warning", f"{each.name} in {each.folder} is broken: {problem}", advice)
    default = choose(settings)
    yield Finding("ok", f"the default is {default.model}" + (f": {default.reason}" if default.reason else ""))


def _workers(settings: Settings) -> Iterator[Finding]:
    from sa2va_host import list_workers
    from sa2va_host.lifecycle.workers import run_directory
    from sa2va_host.machine import processes

    from .workers import short_name

    workers = list_workers(settings)
    if not workers:
        yield Finding("ok", "none is running")
    for worker in workers:
        name = short_name(worker.model)
        message = f"{worker.pid} of {name}: {worker.phase} for {seconds(worker.phase_seconds)}, {worker.log}"
        advice = "" if worker.responding else f"End it with: {sa2va_command('stop', '--force', name)}"
        yield Finding("ok" if worker.responding else "warning", message, advice)
    for record in run_directory(settings).records():
        if not processes.is_alive(record.process):
            yield Finding(
                "warning",
                f"{record.process.pid} of {short_name(record.specification.checkpoint)} was killed, {record.log}",
                "The next worker that is started clears its record away.",
            )


def _plugins(_: Settings) -> Iterator[Finding]:
    from sa2va_host.plugins.manager import list_plugins

    for plugin in list_plugins():
        message = f"{plugin.name} ({plugin.distribution} {plugin.version}): {plugin.state}"
        if plugin.state == "failed":
            advice = f"Mend or remove {plugin.distribution}, or set SA2VA_DISABLE_PLUGINS={plugin.name}."
            yield Finding("problem", f"{message}, {plugin.reason}", advice)
        else:
            yield Finding("ok", message)


def _encode_mask() -> None:
    import numpy as np

    from sa2va_host.masks.regions import decode, encode

    mask = np.eye(8, dtype=bool)
    if not (decode(encode(mask)) == mask).all():
        raise ArithmeticError("a mask comes back changed")


def _opencv() -> Finding:
    """Whichever distribution brought it: the extra's name says nothing of the others."""
    from sa2va_host.errors import ConfigError
    from sa2va_host.extras import check_opencv, opencv_is_installed

    use = f"opencv, for {HERE['opencv']}"
    try:
        check_opencv("This")
    except ConfigError as error:
        is_broken = opencv_is_installed()
        return Finding("problem" if is_broken else "ok", f"{use}: {error}", error.advice)
    import cv2
    import numpy as np

    if cv2.resize(np.ones((8, 8), np.float32), (16, 16)).mean() != 1:
        return Finding("problem", f"{use}: cv2 {cv2.__version__} resizes wrongly", "Install it again.")
    return Finding("ok", f"{use}: cv2 {cv2.__version__}, {Path(cv2.__file__).parent}")


TRIALS: dict[str, Callable[[], None]] = {
    "pycocotools": _encode_mask,
}
"""A small piece of work for the libraries of ours that are compiled, by distribution."""

HERE = {
    "hub": "fetching models",
    "video": "video files",
    "exr": "EXR files",
    "heif": "HEIC and AVIF images",
    "matting": "clean foreground colors at soft edges",
    "opencv": "refined masks, polygons, cuts of videos, HDR and 16-bit images, and faster masks",
}
"""What each extra is for that belongs into this Python."""
IN_WORKER = ("worker", "quantization", "flash", "remote-code")
"""The extras of the Pythons that run workers, which have checks of their own."""
OF_DEVELOPERS = ("bench", "training", "test", "dev")

CHECKS: dict[str, Check] = {
    "system": _system,
    "packages": _packages,
    "extras": _extras,
    "settings": _settings,
    "run directory": _run_directory,
    "disk space": _disk_space,
    "shared memory": _shared_memory,
    "models": _models,
    "plugins": _plugins,
    "workers": _workers,
    "worker python": worker_python,
    "other pythons": other_pythons,
}

FULL: dict[str, Check] = {
    "worker python": partial(worker_python, tried=True),
    "other pythons": partial(other_pythons, tried=True),
}
"""What takes the place of the checks of these names where all is tried."""
