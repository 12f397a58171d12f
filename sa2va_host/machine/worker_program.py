"""The worker's program: where it is, which it is, how it is started, and in which environment."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from sa2va_host.errors import WorkerStartFailed

from .stamps import digest, kept_digest, regular_files

SHARED = (
    "errors",
    "generation",
    "lifecycle.rendezvous",
    "machine.clone",
    "machine.commands",
    "machine.distribution",
    "machine.environments",
    "machine.processes",
    "machine.terminal",
    "models.checkpoint_folder",
    "models.own_code",
    "models.unsupported",
    "models.weights",
    "plugins.hookspecs",
    "plugins.manager",
    "plugins.processing",
    "protocol",
    "timings",
)
"""What the worker imports of the host: modules, and packages with all that is in them."""
_LOOK_EVERY = 0.5
"""Seconds: a model is asked more often than anybody edits our code."""
_seen: tuple[float, str] | None = None
"""When the program was looked at last (monotonic clock), and its identity then."""
_VERSION = re.compile(r'^version *= *"([^"]+)"', re.MULTILINE)

_DROPPED = ("PYTHON", "PYTORCH_", "MALLOC_", "JEMALLOC_", "OMPI_")
"""Prefixes of variables that belong to the launching program, not to the worker."""
_KEPT = frozenset({"PYTHONUTF8", "PYTORCH_ENABLE_MPS_FALLBACK", "PYTORCH_NVML_BASED_CUDA_CHECK"})


def worker_command(python: str) -> list[str]:
    """How the worker is started: by its file, so that nothing of ours has to be on anybody's ``sys.path``."""
    package = find_spec("sa2va_worker")
    locations = list(package.submodule_search_locations or ()) if package else []
    folder = Path(locations[0]) if locations else Path(__file__).resolve().parents[2] / "sa2va_worker"
    if not (folder / "__main__.py").is_file():
        raise WorkerStartFailed(
            "The package sa2va_worker is not installed.", advice="Install sa2va-host[worker]."
        )
    return [python or sys.executable, str(folder / "__main__.py")]


def worker_identity() -> str:
    """Which program `worker_command` starts, as 32 hex digits: by our version and the content of the worker's files, of
    what it shares with the host, and of the plugins of ours that work in it.

    So two installations of one version share a worker, and a clone that was edited, even while this process runs, gets
    one of its own. Takes some 0.3 ms where no file has changed, and looks at them once in `_LOOK_EVERY` seconds.
    """
    global _seen  # noqa: PLW0603 - two threads that look at once see the same
    now = time.monotonic()
    if _seen is None or now - _seen[0] > _LOOK_EVERY:
        root = _root()
        files = _program(root)
        _seen = now, kept_digest(f"program {root}", files, lambda: _digest_of(root, files), on_disk=True)
    return _seen[1]


@functools.cache
def _root() -> Path:
    """The folder that the worker's package lies in, with the host's beside it."""
    return Path(worker_command("")[-1]).parents[1]


def _program(root: Path) -> list[tuple[str, os.stat_result]]:
    """The files that make the worker, by their path in a clone, each with what the system says of it."""
    plugins = "plugins" if (root / "pyproject.toml").is_file() else "sa2va_plugins"
    found: list[tuple[str, os.stat_result]] = []
    for folder, name in (
        ("sa2va_worker", "sa2va_worker"),
        ("sa2va_host/protocol", "sa2va_host/protocol"),
        (f"{plugins}/vitmatte", "plugins/vitmatte"),
    ):
        with contextlib.suppress(OSError):
            found += [(f"{name}/{file}", about) for file, about in regular_files(root / folder, _is_code)]
    for module in SHARED:
        file = f"sa2va_host/{module.replace('.', '/')}.py"
        with contextlib.suppress(OSError):
            found.append((file, (root / file).stat()))
    # The version: of a clone by this file, of an installation by the folder that holds its metadata.
    for place in ("pyproject.toml", ""):
        with contextlib.suppress(OSError):
            found.append((place, (root / place).stat()))
            break
    return found


def _is_code(name: str) -> bool:
    """Whether a file is a module, or a folder one of code."""
    return name.endswith(".py") or ("." not in name and name not in ("__pycache__", "bundled"))


def _digest_of(root: Path, files: list[tuple[str, os.stat_result]]) -> str:
    parts: list[str | bytes] = [_version(root)]
    for name, _ in files:
        if name.endswith(".py"):
            path = root / name
            if not path.is_file():
                path = root / name.replace("plugins/", "sa2va_plugins/", 1)
            with contextlib.suppress(OSError):
                parts += [name, path.read_bytes()]
    return digest(parts)


def _version(root: Path) -> str:
    """Ours, without `importlib.metadata`, whose import takes longer than all of this."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = _VERSION.search((root / "pyproject.toml").read_text("utf-8"))
        return found.group(1) if found else ""
    installed = sorted(path.name for path in root.glob("sa2va_host-*.dist-info"))
    return installed[-1].removeprefix("sa2va_host-").removesuffix(".dist-info") if installed else ""


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment: ours, without what was meant for this Python or this process's allocator."""
    return {
        name: value for name, value in environment.items() if name in _KEPT or not name.startswith(_DROPPED)
    }
