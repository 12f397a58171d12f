"""The options of generation, and answers that come word by word."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import Any

import pytest

from sa2va_host import Generation
from sa2va_host.events import Progress, TextPiece
from sa2va_plugins.cli import generation
from sa2va_plugins.cli.chat import _Speech
from sa2va_plugins.cli.main import build_parser

from .conftest import PROGRAM

COMMANDS = [["segment", "picture.png"], ["chat"]]


def read(*options):
    return generation.read(build_parser().parse_args(["chat", "--prompt", "hello", *options]))


def test_without_options_it_is_greedy():
    assert read() == Generation()


def test_every_setting_has_its_option():
    options = (
        "--max-new-tokens=9 --sample --temperature=0.5 --top-p=0.9 --top-k=5 --min-p=0.1"
        " --repetition-penalty=1.2 --seed=3"
    )
    wanted: dict[str, Any] = {
        "max_new_tokens": 9,
        "do_sample": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
    }
    wanted |= {"min_p": 0.1, "repetition_penalty": 1.2, "seed": 3}
    assert set(wanted) == set(Generation.__struct_fields__)
    assert read(*options.split()) == Generation(**wanted)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--temperature", "0.5"], "Greedy decoding does not use temperature. Set do_sample (--sample) too"),
        (["--sample", "--top-p", "3"], "The generation setting top_p is 3.0. It must be a number <= 1.0."),
        (["--max-new-tokens", "0"], "The generation setting max_new_tokens is 0."),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_starts_no_worker(sa2va, picture, command, options, said):
    done = sa2va(*command, "--prompt", "hello", *options)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"sa2va: {said}")
    assert sa2va("ps").stdout == "No worker is running.\n"


def test_what_is_no_number_is_a_mistake_in_usage(sa2va):
    done = sa2va("chat", "--prompt", "hello", "--seed", "lucky")
    assert done.returncode == 2
    assert "argument --seed: invalid int value: 'lucky'" in done.stderr


def on_a_terminal(environment, *arguments):
    """The command with a terminal as its standard output, and that terminal's other end."""
    terminal, output = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    os.close(output)
    return process, terminal


def rest_of(terminal):
    """What is still shown until the command ends."""
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # how Linux says that nobody writes any more
        pass
    finally:
        os.close(terminal)
    return shown.decode()


def test_on_a_terminal_words_come_while_the_next_are_generated(environment):
    process, terminal = on_a_terminal(environment, "chat", "--prompt", "steps=4 pause=0.7")
    shown = b""
    while b"word0" not in shown:
        shown += os.read(terminal, 4096)
    assert process.poll() is None
    assert b"word3" not in shown
    lines = (shown.decode() + rest_of(terminal)).splitlines()
    assert process.wait(30) == 0
    # What the script says in the end is not what it said piece by piece: the whole answer follows.
    assert lines[0].split() == ["word0", "word1", "word2", "word3"]
    assert lines[1].startswith("steps=4 pause=0.7 [0] by ")
    assert len(lines) == 2


def test_one_document_is_one_document_on_a_terminal_too(environment):
    process, terminal = on_a_terminal(environment, "chat", "--prompt", "steps=2", "--json")
    shown = rest_of(terminal)
    assert process.wait(30) == 0
    assert shown.startswith("{")
    assert "word0" not in shown


def test_an_answer_that_was_shown_is_not_shown_again(capsys):
    with _Speech(streams=True) as speech:
        for piece in ("\n", " Two", " circles", " "):
            speech.event(TextPiece(piece))
            speech.event(Progress("generating", 1, None, "tokens"))
        speech.finish("Two circles")
    assert capsys.readouterr() == ("Two circles \n", "")


def test_what_was_not_streamed_is_shown_at_the_end(capsys):
    with _Speech(streams=True) as speech:
        speech.event(TextPiece("Two"))
        speech.finish("Two circles")
        speech.finish("None")
    assert capsys.readouterr().out == "Two circles\nNone\n"


def test_an_answer_that_breaks_off_leaves_a_whole_line(capsys):
    with _Speech(streams=True) as speech:
        speech.event(TextPiece("Two"))
    assert capsys.readouterr().out == "Two\n"
