"""`sa2va completion`: bash itself completes with the script; the other shells at least understand theirs."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess

import pytest

from sa2va_plugins.cli.completion import SHELLS
from sa2va_plugins.cli.main import main

from .conftest import PROGRAM


@pytest.fixture
def complete(environment, tmp_path, capsys):
    """What bash offers for the last word: `complete("sa2va", "st")`."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sa2va").write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    (programs / "sa2va").chmod(0o755)
    ask = (
        'source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); function=$(complete -p sa2va);'
        ' function=${function##*-F }; ${function% *}; printf "%s\\n" "${COMPREPLY[@]}"'
    )

    def run(*words: str) -> set[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", ask, "bash", *words],
            env={**environment, "PATH": f"{programs}:{environment['PATH']}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return set(done.stdout.split())

    return run


def test_commands_and_options(complete):
    assert complete("sa2va", "") >= {"segment", "chat", "ps", "stop", "logs", "doctor", "setup", "completion"}
    assert complete("sa2va", "st") == {"stop"}
    assert complete("sa2va", "segment", "--j") == {"--json"}
    assert complete("sa2va", "logs", "--") >= {"--follow", "--lines", "--help"}
    assert complete("sa2va", "setup", "--extra", "q") == {"quantization"}
    assert complete("sa2va", "completion", "z") == {"zsh"}


def test_files_and_folders(complete, tmp_path):
    (tmp_path / "picture.png").touch()
    (tmp_path / "pictures").mkdir()
    assert complete("sa2va", "segment", "pict") == {"picture.png", "pictures"}
    assert complete("sa2va", "demo", "-o", "pict") == {"pictures"}
    assert complete("sa2va", "setup", "--path", "pict") == {"pictures"}


def test_models(complete, sa2va, picture, tmp_path):
    (tmp_path / "sa2va-own").mkdir()
    assert complete("sa2va", "chat", "--model", "sa2va-") == {"sa2va-tiny", "sa2va-own"}
    assert complete("sa2va", "stop", "") == set()
    sa2va("chat", "--prompt", "hello", "--keep-alive", "1h")
    assert complete("sa2va", "stop", "") == {"scripted:"}
    assert complete("sa2va", "logs", "scr") == {"scripted:"}


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_can_read_its_script(shell, capsys, tmp_path):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "sa2va completion running" in script
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} to read it")
    (tmp_path / "script").write_text(script)
    subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_no_name_that_a_shell_would_run(tmp_path, monkeypatch, capsys):
    for name in ("Sa2VA-good", "Sa2VA-$(touch run)", "Sa2VA-`touch run`", "Sa2VA two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "sa2va_chat"}')
    monkeypatch.setenv("SA2VA_MODEL_FOLDERS", str(tmp_path))
    assert main(["completion", "models"]) == 0
    assert capsys.readouterr().out.splitlines() == ["sa2va-tiny", "Sa2VA-good"]
    assert main(["completion", "models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"models": ["sa2va-tiny", "Sa2VA-good"]}


def test_the_script_in_a_document(capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert main(["completion", "bash", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": "bash", "script": script.removesuffix("\n")}
