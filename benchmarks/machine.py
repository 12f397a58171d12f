"""What a report must say of where it was made: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pyzmq",
    "torch",
    "transformers",
    "bitsandbytes",
    "flash-attn",
    "pyisolate",
)


def describe() -> dict[str, str]:
    """What stands at the head of a report, by name."""
    return {
        "commit": commit(),
        "machine": f"{platform.system()} {platform.machine()}, {_processor()}, {usable_cores()} cores",
        "memory": _memory(),
        "GPU": gpu(),
        "load at the start": _load(),
        "Python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
    }


def commit() -> str:
    """The commit, `+` where files differ from it; "unknown" outside a checkout."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        return f"{name}+" if _git("status", "--porcelain", "--untracked-files=no") else name
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def gpu() -> str:
    """The NVIDIA devices by name, or "none"."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return "; ".join(listed.stdout.split("\n")).strip("; ")


def status(field: str) -> int:
    """Bytes, as Linux has them of this process in `/proc/self/status` (in kB): `VmRSS`, `VmHWM`."""
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) * 1024


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def _memory() -> str:
    import psutil

    return f"{psutil.virtual_memory().total / 2**30:.0f} GiB"


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
