"""The commands and programs of README.md and docs/ are what the project has, and succeed after the README's first one.

Every indented or fenced block counts. An HTML comment on the line before a block says what it is otherwise:
`<!-- needs: ... -->` for commands that need more than the bundled model and images, which are parsed and not run;
`<!-- output -->` for what is printed; `<!-- part of: ... -->` for a piece of a program.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

import tasks
from sa2va_host.machine.distribution import extras
from sa2va_plugins.cli.main import build_parser

from .conftest import PROGRAM

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
"""The README last: its commands end with the worker's."""
MARK = re.compile(r"<!-- (needs: .+|output|part of: .+) -->")
INLINE = re.compile(r"`(sa2va [a-z][^`]*)`")
DATA = frozenset({"toml", "json"})


@dataclass(frozen=True)
class Block:
    """Lines of code in a document; `language` is empty for an indented one, which holds commands."""

    place: str
    language: str
    mark: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return self.place


def blocks(file: Path) -> Iterator[Block]:
    """All blocks of a document."""
    lines = file.read_text("utf-8").splitlines()
    number = 0
    while number < len(lines):
        begin, line = number, lines[number]
        before = [each for each in lines[:begin] if each][-1:]
        mark = MARK.fullmatch(before[0].strip()) if before else None
        number += 1
        if line.startswith("```"):
            end = next(each for each in range(number, len(lines)) if lines[each].startswith("```"))
            inside, language, number = lines[number:end], line.strip("`") or "text", end + 1
        elif line.startswith("    ") and begin and not lines[begin - 1].strip():
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            inside, language = [each[4:] for each in lines[begin:number] if each.strip()], ""
        else:
            continue
        yield Block(f"{file.name}:{begin + 1}", language, mark[1] if mark else "", tuple(inside))


BLOCKS = {file: list(blocks(file)) for file in FILES}
COMMANDS = [
    (block, line)
    for found in BLOCKS.values()
    for block in found
    if not block.language
    for line in block.lines
]


def parse_sa2va(words: list[str]) -> None:
    """Raises AssertionError for what the command line does not take."""
    said, code = io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            build_parser(words[0]).parse_args(words)
        except SystemExit as stop:  # --help leaves too
            code = int(stop.code or 0)
    assert code == 0, said.getvalue()


def check_python(words: list[str]) -> None:
    """`python3 tasks.py WORD`, or `python -m MODULE`."""
    if words[0] == "tasks.py":
        assert words[1] in tasks.WORDS
    elif words[:2] == ["-m", "pip"]:
        check_pip(words[2:])
    elif words[0] == "-m":
        assert find_spec(words[1].partition(".")[0])
        assert (ROOT / words[1].replace(".", "/")).exists() or find_spec(words[1])
    else:
        assert words == ["sa2va", "setup"], "the clone of docs/comfyui.md"


def check_make(words: list[str]) -> None:
    """A target of the Makefile, which stand for the words of tasks.py."""
    assert words[0] in tasks.WORDS


def check_pip(words: list[str]) -> None:
    """`pip install` of the checkout, with extras that there are, or of a file of requirements that is there."""
    assert words[0] == "install"
    for word in words[1:]:
        if "[" in word:
            assert set(word.partition("[")[2].rstrip("]").split(",")) <= set(extras())
        elif word.endswith(".txt"):
            assert (ROOT / Path(word).name).is_file()
        else:
            assert word in (".", "-r")


def anything(words: list[str]) -> None:
    """What is not ours to check."""


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "sa2va": parse_sa2va,
    "python": check_python,
    "python3": check_python,
    "PYTHON": check_python,
    "make": check_make,
    "pip": check_pip,
    "source": anything,
    "cd": anything,
    "git": anything,
}
"""By a command's first word. Another word is a mistake, or the block is not of commands."""


def split(line: str) -> list[str]:
    """The words of a command, without variables before it, and a comment and redirections after it."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    redirections = [place for place, word in enumerate(words) if word in ("<", ">", "|")]
    return words[: redirections[0]] if redirections else words


@pytest.mark.parametrize(("block", "line"), COMMANDS, ids=lambda each: str(each)[:60])
def test_every_command_is_one(block: Block, line: str) -> None:
    if block.mark == "output":
        return
    program, *words = split(line)
    assert program in CHECKS, "mark the block with <!-- output --> if these are no commands"
    CHECKS[program](words)


@pytest.mark.parametrize(
    ("file", "command"),
    [(file, found) for file in FILES for found in INLINE.findall(" ".join(file.read_text("utf-8").split()))],
    ids=lambda each: getattr(each, "name", each),
)
def test_every_command_within_a_sentence_is_one(file: Path, command: str) -> None:
    """A command alone is a name, and `...` stands for whatever it needs; the rest has to be taken as it stands."""
    words = split(command)[1:]
    if len(words) == 1 or "..." in command:
        build_parser(words[0]).format_help()
    else:
        parse_sa2va(
            [*words, *(["--prompt", "x", "IMAGE"] if words[0] in ("segment", "chat", "video") else [])]
        )


@pytest.fixture(scope="module")
def after_demo() -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder in which the README's first command was run, and variables for one warm worker."""
    pytest.importorskip("transformers")
    pytest.importorskip("av")
    with tempfile.TemporaryDirectory(prefix="sa2va-") as folder:
        environment = {
            **os.environ,
            "SA2VA_RUN_DIR": f"{folder}/run",
            "SA2VA_DEVICE": "cpu",
        }
        here = Path(folder) / "here"
        here.mkdir()
        run([*PROGRAM, "demo"], here, environment)
        yield here, environment
        run([*PROGRAM, "stop", "--all"], here, environment)


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Raises AssertionError with what a command said that failed."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_needs_nothing_else_succeeds(file: Path, after_demo: tuple[Path, dict[str, str]]) -> None:
    folder, environment = after_demo
    for block in BLOCKS[file]:
        if block.mark or block.language in DATA:
            continue
        if block.language == "python":
            run([sys.executable, "-c", "\n".join(block.lines)], folder, environment)
            continue
        assert block.language in ("", "text"), f"{block}: what is this?"
        for line in block.lines if not block.language else ():
            program, *words = split(line)
            if program == "sa2va":
                run([*PROGRAM, *words], folder, environment)
