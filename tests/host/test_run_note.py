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


def test_a_finished_run_says_what_came_of_it(tmp_path: Path) -> None:
    with RunNote(tmp_path, SETTINGS, resume=True) as note:
        assert note.before is None
        note.begin()
    with RunNote(tmp_path, SETTINGS, resume=True) as note:
        assert note.before is None, "it is not finished"
        note.finish({"frames": 3})
    with RunNote(tmp_path, SETTINGS, resume=True) as note:
        assert note.before is not None
        assert note.before["frames"] == 3


def test_nested_settings_are_told_by_their_names(tmp_path: Path) -> None:
    settings = {"masks": {"threshold": 0.5, "presence": 0.5}, "prompts": ["a"]}
    with RunNote(tmp_path, settings, resume=False) as note:
        note.begin()
    with pytest.raises(InvalidInput, match=r"other settings: masks\.presence, more\. "):
        RunNote(
            tmp_path, {"masks": {"threshold": 0.5, "presence": 0}, "prompts": ["a"], "more": 1}, resume=True
        )


def test_a_run_of_an_earlier_version_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(
        json.dumps({"settings": {"masks": [0.5, 0.5, False]}, "finished": False})
    )
    with pytest.raises(InvalidInput, match=r"another version.*--overwrite"):
        RunNote(tmp_path, SETTINGS, resume=True)


def test_overwriting_removes_what_the_earlier_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    ours = [
        "masks/dog/00001.png", "probability/dog/00001.png", "matte/dog/00001.png", "exr/dog/1001.exr",
        "alpha/dog.mov", "Annotations/clip/00001.png", "overlay.mp4", "rle.jsonl", "meta.json",
    ]  # fmt: skip
    theirs = ["masks/notes.txt", "masks/dog/reference.png", "plates/00001.png", "00001.png", "alpha/dog.txt"]
    for name in (*ours, *theirs):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    with RunNote(tmp_path, SETTINGS, resume=False, overwrite=True) as note:
        note.begin()
    assert all((tmp_path / name).exists() for name in ours), "no run says that these are its own"
    with RunNote(tmp_path, {**SETTINGS, "threshold": 0.1}, resume=False, overwrite=True) as note:
        assert all((tmp_path / name).exists() for name in ours), "nothing goes before the new run begins"
        note.begin()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*theirs, "run.json"}
    assert (tmp_path / "empty").is_dir()
    assert not (tmp_path / "exr").exists()


def test_a_manifest_nested_beyond_all_measure_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(InvalidInput, match="is damaged, so the run cannot be resumed"):
        RunNote(tmp_path, {}, resume=True)
