"""Which checkpoints are one: by what their folders hold, and without their weights being read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sa2va_host.machine.environments import environment_of
from sa2va_host.models.checkpoints import find
from sa2va_host.models.identity import checkpoint_identity

BUNDLED = find("sa2va-tiny").folder


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED, tmp_path / "original"))


def test_a_copy_that_keeps_its_times_is_the_same_and_one_of_other_times_is_not(
    original: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(original, tmp_path / "copy"))
    assert checkpoint_identity(copy) == checkpoint_identity(original)
    os.utime(copy / "model.safetensors", (1, 1))
    assert checkpoint_identity(copy) != checkpoint_identity(original)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "new.py"])
def test_what_is_edited_is_another_checkpoint_though_its_size_and_time_are_kept(
    original: Path, name: str
) -> None:
    file = original / name
    if not file.exists():
        file.write_text("a = 1")
    about, content = file.stat(), bytearray(file.read_bytes())
    before = checkpoint_identity(original)
    content[20 if name == "model.safetensors" else 0] ^= 1  # of the weights the header
    file.write_bytes(content)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert checkpoint_identity(original) != before


def test_what_no_model_reads_does_not_count(original: Path) -> None:
    before = checkpoint_identity(original)
    (original / "README.md").write_text("read me")
    (original / ".cache").mkdir()
    (original / ".cache" / "x").touch()
    assert checkpoint_identity(original) == before
    (original / "part").mkdir()
    (original / "part" / "weights.bin").write_bytes(b"1")
    assert checkpoint_identity(original) != before


def test_two_snapshots_of_the_hub_s_cache_with_the_same_blobs_are_one(original: Path, tmp_path: Path) -> None:
    snapshots = [tmp_path / "models--a--b" / "snapshots" / (digit * 40) for digit in "ab"]
    for snapshot in snapshots:
        snapshot.mkdir(parents=True)
        for file in original.iterdir():
            (snapshot / file.name).symlink_to(file)
    assert len({checkpoint_identity(each) for each in (*snapshots, original)}) == 1


def test_a_bundled_model_counts_by_its_content_alone(tmp_path: Path) -> None:
    clone = tmp_path / "clone" / "sa2va_worker"
    shutil.copytree(BUNDLED, clone / "bundled" / "sa2va-tiny")
    shutil.copy(BUNDLED.parents[1] / "__main__.py", clone)
    folder = clone / "bundled" / "sa2va-tiny"
    weights = folder / "model.safetensors"
    os.utime(weights, (1, 1))
    assert checkpoint_identity(folder) == checkpoint_identity(BUNDLED)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, (1, 1))
    assert checkpoint_identity(folder) != checkpoint_identity(BUNDLED)


@pytest.mark.parametrize("name", ["missing", "a\0b"])
def test_a_folder_that_is_none_stands_for_itself(tmp_path: Path, name: str) -> None:
    assert len(checkpoint_identity(f"{tmp_path}/{name}")) == 32


def test_the_names_of_an_environment_s_python_mean_one_environment(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyvenv.cfg").touch()
    for name in ("python", "python3"):
        (tmp_path / "bin" / name).symlink_to("/usr/bin/env")
    assert {environment_of(f"{tmp_path}/bin/{name}") for name in ("python", "python3")} == {str(tmp_path)}
    assert environment_of("/usr/bin/env") == str(Path("/usr/bin/env").resolve())
