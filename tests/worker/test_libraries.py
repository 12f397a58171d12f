"""What a worker imports, and what it does not, which is most of how long its start takes."""

from __future__ import annotations

import gc
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sa2va_worker.libraries import absent, importing

ROOT = Path(__file__).resolve().parents[2]
NEVER = {
    "av",
    "bitsandbytes",
    "cv2",
    "matplotlib",
    "pandas",
    "sa2va_plugins.vitmatte.matte",
    "sa2va_worker.own_code",
    "scipy",
    "sklearn",
    "tensorboard",
    "torch.utils.tensorboard",
    "torchvision",
    "transformers.models.vitmatte",
    "transformers.trainer",
}
WORKER = """
import gc, json, sys
from sa2va_host.protocol.specification import Specification
from sa2va_worker.__main__ import make_engine

searches = []
gc.callbacks.append(lambda phase, about: searches.append(about["generation"]) if phase == "stop" else None)
engine = make_engine()
for _ in engine.load(Specification(checkpoint="sa2va-tiny", device="cpu")):
    pass
modules, kept = sorted(sys.modules), gc.get_freeze_count()
from transformers.utils import is_scipy_available
print(json.dumps([modules, searches, kept, gc.isenabled(), is_scipy_available()]))
"""


@pytest.fixture(scope="module")
def started() -> list[Any]:
    """What the program of a worker that has loaded the bundled model says of itself."""
    command = [sys.executable, "-c", WORKER]
    ran = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True, timeout=120)
    found: list[Any] = json.loads(ran.stdout)
    return found


def test_a_worker_imports_nothing_that_it_does_not_use(started: list[Any]) -> None:
    assert sorted(NEVER & set(started[0])) == []


def test_a_start_searches_no_library_for_garbage(started: list[Any]) -> None:
    _, searches, kept, collecting, _ = started
    assert kept > 100_000, "the libraries' objects are kept for good"
    assert searches.count(2) <= 2, "the collector looked through everything"
    assert len(searches) < 300, "it stood still while libraries were imported"
    assert collecting, "it works on once they are there"


def test_what_was_passed_over_is_there_for_others(started: list[Any]) -> None:
    assert started[-1] is (importlib.util.find_spec("scipy") is not None)


def test_a_process_that_has_the_libraries_is_left_as_it_is() -> None:
    kept = gc.get_freeze_count()
    with importing():
        assert gc.isenabled()
    assert gc.get_freeze_count() == kept


def test_a_library_is_absent_for_a_while() -> None:
    before = sys.modules["json"]
    with absent("json"), pytest.raises(ImportError):
        importlib.import_module("json")
    assert sys.modules["json"] is before
    with absent("sa2va_never_installed"):
        pass
    assert "sa2va_never_installed" not in sys.modules
