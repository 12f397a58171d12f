"""A command keeps its word whatever its standard streams are, and Ctrl-C ends it quietly at any moment."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PROGRAM = [sys.executable, "-c", "from sa2va_plugins.command import main; raise SystemExit(main())"]


def shell(environment, line, **extra):
    """Run ``line`` with the command as ``"$@"``; its redirections are what is tested."""
    return subprocess.run(
        ["sh", "-c", line, "sh", *PROGRAM],
        env={**environment, **extra},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('"$@" ps 2>&-', 0),
        ('"$@" ps >&-', 0),
        ('"$@" ps <&-', 0),
        ('"$@" ps <&- >&- 2>&-', 0),
        ('"$@" segment missing.png --prompt x 2>&-', 2),
        ('"$@" segment missing.png --prompt x <&- >&- 2>&-', 2),
        ('"$@" nonsense 2>&-', 2),
    ],
)
def test_closed_streams_change_neither_answer_nor_exit_code(environment, line, code):
    done = shell(environment, line)
    assert (done.returncode, done.stderr) == (code, b"")
    assert done.stdout in (b"", b"No worker is running.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stderr_that_takes_nothing_does_not_fail_a_command(environment):
    assert shell(environment, '"$@" segment missing.png --prompt x 2>/dev/full').returncode == 2
    assert shell(environment, '"$@" chat --prompt hello 2>/dev/full').stdout.startswith(b"hello")


def test_an_answer_that_the_terminal_cannot_write_is_spelled(environment):
    done = shell(environment, '"$@" chat --prompt grün', PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout[:7]) == (0, b"gr\\xfcn")


@pytest.mark.parametrize("module", ["argparse", "msgspec", "sa2va_plugins.cli", "sa2va_plugins.cli.workers"])
def test_ctrl_c_while_the_command_imports_ends_it_with_130_and_a_word(environment, tmp_path, module):
    """The module stands for the moment: the signal comes when it is about to be imported."""
    hook = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n            os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.argv[1:] = ['ps']\n"
    )
    program = [sys.executable, "-c", hook + PROGRAM[2]]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "Cancelled.\n")


HOSTILE = "a\x1b]0;owned\x07\x9b31m\u202egnp.png"
"""What sets a terminal's title, colours and reverses what follows."""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_a_terminal_is_shown_hostile_names_and_answers_spelled(environment, tmp_path):
    """Below a progress bar, which the start of the worker brings, and without one."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (64, 48)).save(folder / HOSTILE)
    shown = on_a_terminal(
        environment, "segment", folder, "--prompt", "\x1b[8m pause=0.5 steps=1", "-o", tmp_path
    )
    for name in (HOSTILE.removesuffix(".png"), HOSTILE):
        assert name not in shown
    assert "a\\x1b]0;owned\\x07\\x9b31m\\u202egnp.overlay.png" in shown
    assert "owned\x07" not in shown
    assert "\x1b[8m" not in shown
    missing = on_a_terminal(environment, "segment", "no\x1b[31m.png", "--prompt", "x")
    assert "no\\x1b[31m.png" in missing
    assert "\x1b[31m" not in missing


def on_a_terminal(environment, *arguments):
    """What the command writes to a pseudo terminal."""
    import pty

    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        env={**environment, "TERM": "xterm", "COLUMNS": "1000"},
        stdout=follower,
        stderr=follower,
    ):
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # Linux's word for the end of a pseudo terminal
            while part := os.read(leader, 65536):
                shown += part
    os.close(leader)
    return shown.decode("utf-8", "surrogateescape")
