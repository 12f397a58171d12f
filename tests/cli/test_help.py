"""Help that helps: each command says what it does and shows how, and fits on a terminal."""

from __future__ import annotations

import pytest

from sa2va_plugins.cli.main import COMMANDS, main


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "show",
        "rm",
        "load",
        "ps",
        "stop",
        "logs",
        "config",
        "plugins",
        "doctor",
        "setup",
        "completion",
    ],
)
def test_every_command_says_what_it_does_and_shows_how(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "--help"]) == 0
    usage, description, rest = capsys.readouterr().out.split("\n\n", 2)
    assert usage.startswith(f"usage: sa2va {command} ")
    assert description.endswith(".")
    assert f"sa2va {command}" in rest.partition("examples:\n")[2]
    assert [line for line in rest.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_script_may_read_is_one_document(command, capsys):
    main([command, "--help"])
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["segment", "video", "chat"])
def test_prompts_have_a_short_option_and_everything_can_be_quiet(command, capsys):
    main([command, "--help"])
    shown = capsys.readouterr().out
    assert "-p TEXT, --prompt TEXT" in shown
    assert "-q, --quiet" in shown


@pytest.mark.parametrize("command", ["segment", "video"])
def test_both_commands_say_the_same_of_what_is_there_and_of_turned_images(command, capsys):
    main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("--overwrite", "--skip-existing", "--skip-empty", "--prompt-file", "display orientation"):
        assert words in shown
