"""The worker's program: where it is, how it is started, and in which environment."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from sa2va_host.errors import WorkerStartFailed

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


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment: ours, without what was meant for this Python or this process's allocator."""
    return {
        name: value for name, value in environment.items() if name in _KEPT or not name.startswith(_DROPPED)
    }
