"""Which engine a checkpoint gets, and what is said where there is none to be had."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.machine.distribution import requirements
from sa2va_host.protocol.specification import Specification
from sa2va_worker import lacking
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
    with pytest.raises(ModelLoadFailed, match=r"cannot import our models: .* with: .* setup --path DIR"):
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


@pytest.mark.parametrize(
    ("absent", "said", "advice"),
    [
        (
            ("torch", "transformers", "accelerate"),
            "There is no environment for the worker yet: {python} lacks accelerate>=",
            "Make one with: /a/sa2va setup",
        ),
        (
            ("transformers",),
            "There is no environment for the worker yet: {python} lacks transformers>=",
            "setup",
        ),
        (
            ("accelerate",),
            "The worker's Python {python} lacks accelerate>=",
            "Run: {python} -m pip install 'acc",
        ),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, absent: tuple[str, ...], said: str, advice: str
) -> None:
    def versions(names: Iterable[str]) -> dict[str, str | None]:
        return {name: None if name in absent else "99" for name in names}

    monkeypatch.setattr(lacking, "installed_versions", versions)
    monkeypatch.setenv("SA2VA_COMMAND", "/a/sa2va")
    error = lacking.cannot_import(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert error.message.startswith(said.format(python=sys.executable))
    assert advice.format(python=sys.executable) in error.advice


def test_the_environment_of_other_code_is_known_by_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = dict.fromkeys((each.name for each in requirements("remote-code")), "99")
    versions["transformers"] = "4.57.1"
    monkeypatch.setattr(
        lacking, "installed_versions", lambda names: {name: versions.get(name) for name in names}
    )
    error = lacking.cannot_import(ImportError("no Qwen3"))
    assert "checkpoints that bring their own code" in error.advice
    other = lacking.cannot_import(ImportError("no einops"), "remote-code")
    assert "cannot import our models: no einops" in other.message
