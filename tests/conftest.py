"""What all tests share: no test sees the user's settings or workers, and none leaves a process behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ours", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("ours")

# A shell that starts us in the background has Ctrl-C ignored, and the programs that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _a_world_of_its_own() -> Iterator[None]:
    """A run directory and an empty configuration for the session; workers left at its end are stopped."""
    folder = Path(tempfile.mkdtemp(prefix="sa2va-test-"))  # short: a socket's path has 107 characters
    (folder / "sa2va.toml").touch()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SA2VA_")]:
            patch.delenv(name)
        patch.setenv("SA2VA_RUN_DIR", str(folder / "run"))
        patch.setenv("SA2VA_CONFIG", str(folder / "sa2va.toml"))
        patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
        yield
        _stop_workers()
    shutil.rmtree(folder, ignore_errors=True)


def _stop_workers() -> None:
    from sa2va_host import list_workers, stop_worker

    for worker in list_workers():
        stop_worker(worker, force=True)
