"""Whose code may run: only code that lies in the folder, and only where the user said so, in a worker known for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sa2va_host import ConfigError, ModelLoadFailed, Sa2VA
from sa2va_host.models.checkpoint_folder import CheckpointFolder
from sa2va_host.models.checkpoints import hub_cache
from sa2va_host.models.hub import pull
from sa2va_host.models.own_code import find_own_code
from sa2va_host.protocol.specification import Specification
from sa2va_plugins.cli.main import main
from tests.parity.weights import write_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "somebody/brought-7b"


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


@pytest.fixture
def in_cache(brought: Path) -> Path:
    """The same checkpoint as the hub's cache keeps it: a snapshot of links to blobs."""
    repo = hub_cache() / f"models--{MODEL.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    if not snapshot.exists():
        (repo / "blobs").mkdir(parents=True)
        snapshot.mkdir(parents=True)
        for number, file in enumerate(path for path in brought.iterdir() if path.is_file()):
            shutil.copy(file, repo / "blobs" / f"{number:040x}")
            (snapshot / file.name).symlink_to(Path("../../blobs") / f"{number:040x}")
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_untrusted_code_is_refused_by_name(brought: Path, picture: NDArray[np.uint8]) -> None:
    with Sa2VA(brought, device="cpu", keep_alive=0) as sa, pytest.raises(ModelLoadFailed) as caught:
        sa.segment(picture, "what is there?")
    assert caught.value.message == (
        "brought-7b can only be run by the code in its folder (configuration_brought.py, modeling_brought.py,"
        " sam2.py), which is not trusted."
    )
    assert "--trust-remote-code" in caught.value.advice


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_trusted_code_runs_in_a_worker_of_its_own(brought: Path, picture: NDArray[np.uint8]) -> None:
    with Sa2VA(brought, device="cpu", trust_remote_code=True, keep_alive=60) as sa:
        result = sa.segment(picture, "what is there?")
        assert (result.text, len(result)) == ("S[SEG]a[SEG]", 2)
        chances = result.probabilities()
        assert chances.shape == (2, 60, 90)
        assert len(np.unique(chances)) > chances.size / 2
        np.testing.assert_array_equal(result.masks(0.3), chances > 0.3)
        video = sa.segment_video([picture] * 7, "what is there?")
        assert video.masks().shape == (2, 7, 60, 90)
        assert sa.chat("who are you?").text == "S[SEG]a[SEG]"
        assert sa.load().details["class"] == "BroughtModel"
        assert sa.status().running
        assert not Sa2VA(brought, device="cpu").status().running
        sa.unload()


def test_a_trusting_worker_serves_nobody_who_does_not_trust() -> None:
    spec = Specification(checkpoint="/models/one")
    trusting = Specification(checkpoint="/models/one", trust_remote_code=True)
    assert spec.key != trusting.key
    assert spec.checkpoint_key == trusting.checkpoint_key
    assert not spec.is_served_by(trusting)
    assert not trusting.is_served_by(spec)
    assert not spec.may_be_served_by(trusting)


def test_a_native_family_stays_native_although_its_folder_names_code(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    folder = write_checkpoint("qwen3", tmp_path / "qwen3")
    assert "auto_map" in json.loads((folder / "config.json").read_text())
    (folder / "modeling_sa2va_qwen.py").write_text("raise SystemExit('this must not run')\n")
    with Sa2VA(folder, device="cpu", keep_alive=0) as sa:
        assert sa.load().family == "qwen3_vl"


@pytest.mark.parametrize(
    ("file", "auto_map"),
    [
        ("config.json", {"AutoModel": "../evil.Model"}),
        ("config.json", {"AutoModel": "/tmp/evil.Model"}),
        ("config.json", {"AutoModel": "else/where--modeling_brought.BroughtModel"}),
        ("config.json", {"AutoModel": "modeling_brought"}),
        ("config.json", {"AutoModel": "modeling_missing.Model"}),
        ("config.json", {"AutoModel": "modeling_brought.BroughtModel", "AutoConfig": "..evil.Config"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["../evil.Tokenizer", None]}),
    ],
)
def test_code_that_is_not_in_the_folder_is_refused(
    changed: Callable[..., Path], file: str, auto_map: dict[str, object]
) -> None:
    folder = changed(file, auto_map=auto_map)
    (folder.parent / "evil.py").write_text("raise SystemExit('this must not run')\n")
    with pytest.raises(ModelLoadFailed, match=r"whose code is not in the folder\. Fetch"):
        find_own_code(CheckpointFolder(folder))


def test_a_link_out_of_the_folder_is_refused(changed: Callable[..., Path]) -> None:
    folder = changed()
    (folder.parent / "evil.py").touch()
    (folder / "sam2.py").unlink()
    (folder / "sam2.py").symlink_to("../evil.py")
    with pytest.raises(ModelLoadFailed, match=r"sam2\.py leads to a file outside the folder"):
        find_own_code(CheckpointFolder(folder))


def test_a_folder_without_code_has_none(changed: Callable[..., Path]) -> None:
    assert find_own_code(CheckpointFolder(changed(auto_map=None))) is None


@pytest.mark.parametrize("revision", ["", "main", COMMIT[:12]])
def test_a_model_of_the_hub_must_be_pinned_to_a_commit(in_cache: Path, revision: str) -> None:
    if revision and revision != "main":
        (in_cache.parents[1] / "refs" / revision).write_text(COMMIT)  # a branch may look like anything
    with pytest.raises(ConfigError) as caught:
        Sa2VA(MODEL, revision=revision or None, trust_remote_code=True)
    assert caught.value.message == (
        f"{MODEL} would run its own code (configuration_brought.py, modeling_brought.py, sam2.py), and no commit of it"
        " is pinned."
    )
    assert caught.value.advice == f"Read {in_cache}, then give --revision {COMMIT}."


def test_the_command_has_the_flag(
    in_cache: Path, tmp_path: Path, picture: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(picture).save(tmp_path / "picture.png")
    asked = ["segment", str(tmp_path / "picture.png"), "--prompt", "what is there?", "--model", MODEL]
    assert main([*asked, "--trust-remote-code"]) == 2
    assert "would run its own code (configuration_brought.py" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_pinned_model_of_the_hub_runs(in_cache: Path, picture: NDArray[np.uint8]) -> None:
    with Sa2VA(MODEL, revision=COMMIT, trust_remote_code=True, device="cpu", keep_alive=0) as sa:
        assert sa.segment(picture, "what is there?").text == "S[SEG]a[SEG]"


@pytest.mark.parametrize("revision", ["", "main"])
def test_code_is_fetched_from_one_commit_only(revision: str) -> None:
    with pytest.raises(ValueError, match="only fetched from one commit"):
        pull(MODEL, revision=revision, code=True)


def test_trust_is_a_setting_of_a_model_too(
    brought: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "sa2va.toml"
    config.write_text(f'[models."{brought}"]\ntrust_remote_code = true\nworker_python = "{sys.executable}"\n')
    monkeypatch.setenv("SA2VA_CONFIG", str(config))
    assert Sa2VA(str(brought)).specification.trust_remote_code
    assert Sa2VA(str(brought)).settings.worker_python == sys.executable
    assert not Sa2VA("sa2va-tiny").specification.trust_remote_code
    assert not Sa2VA(str(brought), trust_remote_code=False).specification.trust_remote_code


def test_the_engine_for_own_code_imports_none_of_our_models() -> None:
    program = "import sys, sa2va_worker.own_code.engine; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.startswith("sa2va_worker.models.")}
    assert ours <= {f"sa2va_worker.models.{name}" for name in ("sampling", "checkpoint", "wrapping")}
