"""The hub's code files, fetched when one commit of them is trusted, and never otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sa2va_host.models.checkpoint_folder import CheckpointFolder
from sa2va_host.models.own_code import find_own_code
from tests.host.hub_server import COMMIT, Hub, Repo, serving

MODEL = "Org/Brought"
CONFIG = json.dumps({"model_type": "sa2va_chat", "auto_map": {"AutoModel": "modeling_own.Own"}})
FILES = {
    "config.json": CONFIG.encode(),
    "model.safetensors": b"weights",
    "modeling_own.py": b"raise SystemExit('nobody runs this here')",
    "sam2.py": b"",
    "scripts/train.py": b"",
    "pytorch_model.bin": b"a pickle",
}
PROGRAM = """
import sys
from sa2va_host.models.hub import pull
print(pull(sys.argv[1], revision=sys.argv[2], code=sys.argv[3] == "code").folder)
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a user whose hub is a little server here, and whose cache is empty."""
    with serving(Hub({MODEL: Repo({COMMIT: FILES})})) as hub:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        yield {
            **clean,
            "HF_HOME": str(tmp_path),
            "HF_ENDPOINT": hub.endpoint,
            "NO_PROXY": "127.0.0.1,localhost",
        }


def pull(environment: dict[str, str], revision: str, what: str) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, MODEL, revision, what],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_code_comes_only_when_it_is_asked_for_and_then_of_the_pinned_commit(
    environment: dict[str, str],
) -> None:
    folder = pull(environment, "", "no code")
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    again = pull(environment, COMMIT, "code")
    assert again == folder
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "modeling_own.py",
        "sam2.py",
    }
    code = find_own_code(CheckpointFolder(folder))
    assert code is not None
    assert code.files == ("modeling_own.py", "sam2.py")
