"""Commands that errors give the user: whole, for this installation, and one line for the shell of this system."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sa2va_host.machine.commands import COMMAND_VARIABLE, joined, pip_command, sa2va_command
from sa2va_host.models.checkpoints import pull_command

ROOT = Path(__file__).resolve().parents[2]
BARE = re.compile(
    r"\bsa2va (chat|completion|demo|doctor|load|logs|models|ps|pull|rm|segment|setup|show|stop|unload|video)\b"
    r"|\bpip3? (install|download)\b"
)
"""A command that lacks its paths: whoever reads it in ComfyUI has no `sa2va`, and another Python's `pip`."""
HELP = {"epilog", "help", "description", "tooltip", "metavar", "summary"}
"""Arguments that are documentation, which shows commands as people type them who have them."""
DOCUMENTS = ("EXAMPLES", "EPILOG")
"""How the names of such documentation end."""
SHELL = {"plugins/cli/completion.py"}
"""Completion scripts are for shells that have the command by its name."""


def texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each string that the program says; no docstrings, no help."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.keyword) and node.arg in HELP:
        return
    if isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id.endswith(DOCUMENTS) for target in node.targets
    ):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


def test_every_command_that_the_program_says_has_its_paths():
    found = []
    for package in ("sa2va_host", "sa2va_worker", "plugins"):
        for file in sorted((ROOT / package).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            if name in SHELL:
                continue
            said = texts(ast.parse(file.read_text(encoding="utf-8")))
            found += [f"{name}:{line}: {text}" for line, text in said if BARE.search(text)]
    assert found == []


def test_that_search_finds_what_it_looks_for():
    source = (
        '"""Use `sa2va pull`."""\nadvice = f"Run `sa2va pull {model}`."\nparse(help="see sa2va models")\n'
    )
    assert [line for line, text in texts(ast.parse(source)) if BARE.search(text)] == [2]


@pytest.mark.parametrize("words", [("models", "--json"), ("setup", "--dry-run", "--cpu", "--json")])
def test_the_command_can_be_pasted_as_it_is(words, tmp_path):
    done = subprocess.run(
        shlex.split(sa2va_command(*words)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout[0] in "[{"


def test_a_pull_names_its_program_and_quotes_its_revision(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    program, *words = shlex.split(pull_command("Org/Name", "a b"))
    assert Path(program).is_absolute()
    assert words[-4:] == ["pull", "Org/Name", "--revision", "a b"]


def test_in_a_worker_it_is_the_hosts_command(monkeypatch):
    monkeypatch.setenv(COMMAND_VARIABLE, "'/my comfy/python' /nodes/sa2va")
    assert pull_command("Org/Name", "v 1") == "'/my comfy/python' /nodes/sa2va pull Org/Name --revision 'v 1'"
    assert sa2va_command() == "'/my comfy/python' /nodes/sa2va"


def test_packages_are_installed_into_this_very_python():
    assert shlex.split(pip_command(["a>=1"], has_pip=True)) == [
        sys.executable,
        "-m",
        "pip",
        "install",
        "a>=1",
    ]
    python = "/my comfy/python"
    assert shlex.split(pip_command(["a"], python, has_pip=False)) == [
        "uv",
        "pip",
        "install",
        "--python",
        python,
        "a",
    ]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        (r"C:\ComfyUI\python_embeded\python.exe", r"C:\ComfyUI\python_embeded\python.exe"),
        (r"C:\My Comfy\python.exe", r'"C:\My Comfy\python.exe"'),
        ("accelerate>=1.0", '"accelerate>=1.0"'),
        ("torch<3", '"torch<3"'),
        ("sa2va-host[worker]", '"sa2va-host[worker]"'),
        (r"C:\R&D (old)\python.exe", r'"C:\R&D (old)\python.exe"'),
        ("C:\\a b\\", '"C:\\a b\\\\"'),
        ('say "it"', r'"say \"it\""'),
        ("", '""'),
        ("--torch-backend=cu130", "--torch-backend=cu130"),
    ],
)
def test_on_windows_a_word_is_quoted_for_the_shell_too(word, line, monkeypatch):
    """`pip install accelerate>=1.0` would install the newest and write a file `=1.0`, in cmd and in PowerShell."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert joined(["python", word]) == f"python {line}"
