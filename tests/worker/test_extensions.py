"""Which engine a checkpoint gets, and what is said where there is none to be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.protocol.specification import Specification
from sa2va_worker.extensions import PluginEngine
from sa2va_worker.models.checkpoint import BUNDLED

TINY = Specification(checkpoint=str(BUNDLED / "sa2va-tiny"), device="cpu")


@pytest.mark.parametrize("config", ["[" * 100_000, "{", "[1]", "\udcff"])
def test_a_configuration_that_cannot_be_read_is_refused_by_our_own_engine(
    tmp_path: Path, config: str
) -> None:
    (tmp_path / "config.json").write_bytes(config.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelLoadFailed, match=r"config\.json (cannot be read|holds no JSON object)"):
        list(PluginEngine().load(Specification(checkpoint=str(tmp_path), device="cpu")))


@pytest.mark.parametrize("module", ["sa2va_worker.models.families", "sa2va_worker.engine"])
def test_models_that_cannot_be_imported_are_said_to_be_that(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as Python has it for what must not be imported
    with pytest.raises(ModelLoadFailed, match=r"cannot import our models: .* run `sa2va setup`"):
        list(PluginEngine().load(TINY))


def test_the_library_that_is_missing_is_named(tmp_path: Path) -> None:
    """transformers says of its own parts that they cannot be imported, and why only in the cause."""
    (tmp_path / "accelerate.py").write_text("raise ModuleNotFoundError('No module named accelerate')")
    program = f"""
from sa2va_host.protocol.specification import Specification
from sa2va_worker.extensions import PluginEngine
list(PluginEngine().load(Specification(checkpoint={TINY.checkpoint!r}, device="cpu")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr.splitlines()[-1]
    assert said.startswith("sa2va_host.errors.ModelLoadFailed: ")
    assert "cannot import our models: No module named accelerate. " in said
