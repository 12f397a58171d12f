"""The note in a folder of the run that wrote it: one run at a time, and none on top of another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sa2va_host.errors import InvalidInput
from sa2va_host.output.run_note import RunNote

SETTINGS = {"threshold": 0.5, "prompts": ["a", "b"]}


def test_a_folder_knows_the_run_that_it_holds(tmp_path: Path) -> None:
    with RunNote(tmp_path, SETTINGS, resume=False) as note:
        assert not list(tmp_path.iterdir())
        note.begin()
    with pytest.raises(InvalidInput, match="holds a run already"):
        RunNote(tmp_path, SETTINGS, resume=False)
    with pytest.raises(InvalidInput, match="other settings: threshold"):
        RunNote(tmp_path, {**SETTINGS, "threshold": 0.4}, resume=True)
    with RunNote(tmp_path, {**SETTINGS, "prompts": ("a", "b")}, resume=True) as resumed:
        resumed.finish({"frames": 3})
    assert json.loads((tmp_path / "run.json").read_text())["frames"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"], "the lock is gone"
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InvalidInput, match="damaged"):
        RunNote(tmp_path, {"threshold": 0.5}, resume=True)


def test_a_folder_is_written_by_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        RunNote(tmp_path, SETTINGS, resume=False) as first,
        RunNote(tmp_path, SETTINGS, resume=False) as second,
    ):
        first.begin()
        with pytest.raises(InvalidInput, match="Another sa2va writes into"):
            second.begin()
        with pytest.raises(InvalidInput, match="Another sa2va writes into"):
            RunNote(tmp_path, SETTINGS, resume=True)
    with RunNote(tmp_path / "later", SETTINGS, resume=False) as late:
        with RunNote(tmp_path / "later", SETTINGS, resume=False) as quick:
            quick.begin()
            quick.finish({})
        with pytest.raises(InvalidInput, match="holds a run already"):
            late.begin()
