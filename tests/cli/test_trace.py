"""`--trace FILE`: where the time of a command went, with a real worker process."""

from __future__ import annotations

import argparse
import json
import shutil

import pytest

from sa2va_plugins.cli import options


def spans(path):
    return [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]


def test_segment_tells_of_host_transport_and_model(sa2va, picture, tmp_path):
    done = sa2va("segment", picture, "--prompt", "objects=1", "--trace", "trace.json")
    assert done.returncode == 0, done.stderr
    found = spans(tmp_path / "trace.json")
    assert {span["cat"] for span in found} >= {"host", "transport", "model"}
    begins = {span["name"]: span["ts"] for span in reversed(found)}
    assert (
        begins["read"]
        < begins["segment"]
        < begins["to the worker"]
        < begins["from the worker"]
        < begins["save"]
    )
    (call,) = [span for span in found if span["name"] == "segment"]
    assert call["args"]["timings"]["total"] > 0


@pytest.mark.parametrize("command", ["chat", "video"])
def test_the_others_have_it_too(sa2va, picture, tmp_path, command):
    frames = tmp_path / "frames"
    frames.mkdir()
    picture.rename(frames / "0001.png")
    save = ("--save", "none") if command == "video" else ()
    done = sa2va(command, "frames", "--prompt", "objects=1", *save, "--trace", "trace.json")
    assert done.returncode == 0, done.stderr
    assert "to the worker" in {span["name"] for span in spans(tmp_path / "trace.json")}


def test_a_command_that_fails_leaves_what_it_saw(sa2va, picture, tmp_path):
    done = sa2va("segment", picture, "--prompt", "error=input", "--trace", "trace.json")
    assert done.returncode != 0
    assert "segment" in {span["name"] for span in spans(tmp_path / "trace.json")}


def test_a_file_that_cannot_be_written_is_said_before_the_work(sa2va, picture, tmp_path):
    done = sa2va("segment", picture, "--prompt", "objects=1", "--trace", "picture.png/trace.json")
    assert done.returncode == 1
    assert "picture.png" in done.stderr
    assert done.stdout == ""
    assert "starting" not in done.stderr, "no worker was asked"


def test_a_file_that_can_no_longer_be_written_costs_neither_the_answer_nor_the_error(tmp_path, capsys):
    file = tmp_path / "traces" / "trace.json"

    def work():
        with options.tracing(argparse.Namespace(trace=file)):
            shutil.rmtree(file.parent)
            file.parent.touch()
            raise ValueError("the real error")

    with pytest.raises(ValueError, match="the real error"):
        work()
    assert f"The timeline {file} is not written" in capsys.readouterr().err
