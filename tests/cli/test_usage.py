"""The command without a worker: help, mistakes, and what is not loaded on the way."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sa2va_plugins.cli.main import COMMANDS, EXIT_CODES, build_parser

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from sa2va_plugins.command import main; code = main();"


def sa2va(*arguments, **more):
    """Run the command in a process of its own."""
    command = [sys.executable, "-c", f"{PROGRAM} raise SystemExit(code)", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def test_help_names_every_command_and_exit_code():
    done = sa2va("--help")
    assert done.returncode == 0
    for command in (
        "segment",
        "chat",
        "demo",
        "ps",
        "stop",
        "logs",
        "models",
        "show",
        "pull",
        "rm",
        "load",
        "config",
        "plugins",
        "doctor",
        "setup",
        "completion",
    ):
        assert re.search(rf"^    {command} ", done.stdout, re.MULTILINE)
        assert sa2va(command, "--help").returncode == 0
    for code in EXIT_CODES:
        assert re.search(rf"^  {code} ", done.stdout, re.MULTILINE)


def test_the_installed_script():
    script = Path(sys.executable).parent / ("sa2va.exe" if sys.platform == "win32" else "sa2va")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:6]) == (0, "sa2va ")


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["segment"]])
def test_help_and_mistakes_load_nothing_heavy(arguments):
    check = "print(*[m for m in ('numpy', 'cv2', 'PIL', 'zmq', 'rich', 'torch') if m in sys.modules])"
    command = [sys.executable, "-c", f"{PROGRAM} print('loaded:'); {check}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("loaded:")[1].split() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["sgement"], "invalid choice"),
        (["segment"], "IMAGE"),
        (["segment", "a.png"], "--prompt"),
        (["video", "a.mp4"], "--prompt"),
        (["segment", "a.png", "--prompt", "x", "--overwrite", "--skip-existing"], "not allowed with"),
        (["segment", "a.png", "--prompt", "x", "--threshold", "1.5"], "'1.5' is no probability"),
        (["segment", "a.png", "--prompt", "x", "--threshold", "nan"], "'nan' is no probability"),
        (["segment", "a.png", "--prompt", "x", "--keep-alive", "soon"], "'soon' is no duration"),
        (["stop", "some", "--all"], "not allowed with"),
    ],
)
def test_usage_mistakes(arguments, message):
    done = sa2va(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, "one line"


def test_a_usage_mistake_points_to_the_help_of_its_command():
    mistakes = {"segment": ["segment"], "chat": ["chat", "--nothing"]}
    for command, words in mistakes.items():
        assert sa2va(*words).stderr.endswith(f" (see sa2va {command} --help)\n")
    assert sa2va("sgement").stderr.endswith(" (see sa2va --help)\n")


@pytest.mark.parametrize("command", ["segment", "chat"])
def test_a_missing_picture_is_one_sentence(tmp_path, command):
    done = sa2va(command, tmp_path / "nothing.png", "--prompt", "the red circle")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"sa2va: There is no file {tmp_path / 'nothing.png'}."


def test_something_that_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_text("words")
    done = sa2va("segment", tmp_path / "a.png", "--prompt", "the red circle")
    assert done.returncode == 2
    assert "not in an image format" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300", 300), ("90s", 90), ("5m", 300), ("1h", 3600), ("0", 0), ("-1", -1), ("2.5", 2.5)],
)
def test_durations(text, seconds):
    parsed = build_parser().parse_args(["demo", "--keep-alive", text])
    assert parsed.keep_alive == seconds


def test_the_readme_shows_commands_that_parse():
    lines = re.findall(r"^    (sa2va .*?)(?: +#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        build_parser().parse_args(shlex.split(line)[1:])


def test_a_named_command_imports_no_other():
    code = (
        "import sys; from sa2va_plugins.cli.main import build_parser; build_parser('segment');"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "sa2va_plugins.cli.segment" in loaded
    assert not {"sa2va_plugins.cli.video", "sa2va_plugins.cli.doctor", "urllib.request", "numpy"} & set(
        loaded
    )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
def test_what_masks_need_starts_no_threads_and_leaves_the_environment_alone():
    code = (
        "import os; from sa2va_plugins.cli.segment import _import_what_masks_need as load; load();"
        "print('OPENBLAS_NUM_THREADS' in os.environ, len(os.listdir('/proc/self/task')))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "1"]


def test_every_command_is_found_by_its_name():
    whole = build_parser().format_help()
    for name in COMMANDS:
        assert re.search(rf"^    {name} ", whole, re.MULTILINE), name
        assert name in build_parser(name).format_help()
