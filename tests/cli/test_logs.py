"""`sa2va logs` reads what real workers wrote: of the running one, of the last one, and on into the next one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sa2va_host.lifecycle.rendezvous import RunDirectory
from sa2va_plugins.cli.logs import ended_logs, whole_lines
from sa2va_plugins.cli.main import main

from .conftest import PROGRAM

CALL = ("segment", "picture.png", "--prompt", "objects=1", "--keep-alive", "1h", "--json", "--overwrite")
LISTENS = re.compile(r"worker (\d+) of scripted: listens$", re.MULTILINE)


def pid_in(text):
    """The process id with which the log's worker introduces itself."""
    found = LISTENS.search(text)
    assert found is not None, text
    return int(found[1])


def test_of_the_running_worker_and_then_of_the_one_that_ended(sa2va, picture, environment):
    sa2va(*CALL)
    running = sa2va("logs")
    assert running.returncode == 0, running.stderr
    log = Path(running.stderr.removeprefix("==> ").removesuffix(" <==\n"))
    assert running.stdout == log.read_text()
    assert f"worker {pid_in(running.stdout)} " in running.stdout
    assert sa2va("logs", "scripted:", "-n", "1").stdout == running.stdout.splitlines(keepends=True)[-1]
    sa2va("stop", "--all")
    for arguments in (("logs",), ("logs", "scripted:")):
        ended = sa2va(*arguments)
        assert ended.stderr == running.stderr
        assert ended.stdout.startswith(running.stdout)


def test_as_a_document(sa2va, picture, environment):
    sa2va(*CALL)
    text = sa2va("logs").stdout
    document = json.loads(sa2va("logs", "--json").stdout)
    assert document["lines"][: len(text.splitlines())] == text.splitlines()
    assert Path(document["log"]).read_text().startswith(text)
    assert json.loads(sa2va("logs", "--json", "-n", "0").stdout)["lines"] == []


def test_there_may_be_none(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SA2VA_RUN_DIR", str(tmp_path / "run"))
    assert main(["logs", "some"]) == 2
    assert capsys.readouterr().err == f"sa2va: No worker of some has left a log in {tmp_path / 'run'}.\n"


@pytest.fixture
def following(sa2va, picture, environment, tmp_path):
    """`sa2va logs -f` of a running worker, writing to the files `out` and `err`."""
    sa2va(*CALL)
    command = [*PROGRAM, "logs", "-f", "-n", "0"]
    with (
        (tmp_path / "out").open("w") as out,
        (tmp_path / "err").open("w") as err,
        subprocess.Popen(command, env=environment, stdout=out, stderr=err) as process,
    ):
        yield process
        process.kill()


def test_following_goes_on_with_the_next_worker(following, sa2va, tmp_path):
    out, err = tmp_path / "out", tmp_path / "err"
    log = Path(wait_for(err, " <==\n").removeprefix("==> ").removesuffix(" <==\n"))
    with log.open("a") as file:
        file.write("half a line")
        file.flush()
        time.sleep(1)
        assert "half" not in out.read_text()
        file.write(" and its end\n")
    wait_for(out, "half a line and its end\n")
    sa2va("stop", "--all")
    sa2va(*CALL)
    assert pid_in(wait_for(out, " listens\n")) != pid_in(log.read_text())
    following.send_signal(signal.SIGINT)
    assert following.wait(20) == 130
    headers = err.read_text().splitlines()
    assert len(headers) == 2
    assert headers[0] == f"==> {log} <=="
    assert all(re.fullmatch(r"==> .*\.log <==", line) for line in headers), headers


def wait_for(path, words):
    """The file's text as soon as it holds these words."""
    deadline = time.monotonic() + 60
    while words not in (text := path.read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    return text


def test_ended_logs_are_told_apart_by_their_model_and_age(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    folder = directory.path / "models" / "Some-4B"
    for age, name, text in (
        (3, "a", f"2026-01-01 INFO sa2va_worker: worker 7 of {folder} listens\nmore\n"),
        (2, "b", "2026-01-01 INFO sa2va_worker: worker 8 of sa2va-tiny listens\n"),
        (1, "c", "Traceback (most recent call last):\n"),
    ):
        log = directory.path / f"{name}.log"
        log.write_text(text)
        os.utime(log, (time.time() - age, time.time() - age))
    assert [log.stem for log in ended_logs(directory, None)] == ["a", "b", "c"]
    assert [log.stem for log in ended_logs(directory, "sa2va-tiny")] == ["b"]
    assert [log.stem for log in ended_logs(directory, "Some-4B")] == ["a"]
    assert [log.stem for log in ended_logs(directory, str(folder))] == ["a"]
    assert ended_logs(directory, "another") == []


def test_only_whole_lines(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as writer, path.open("rb") as reader:
        for text, lines in ((b"one\ntw", [b"one\n"]), (b"o", []), (b"\n\nthree", [b"two\n", b"\n"])):
            writer.write(text)
            writer.flush()
            assert list(whole_lines(reader)) == lines


@pytest.mark.parametrize("count", ["many", "1.5", ""])
def test_a_count_that_is_none(capsys, count):
    assert main(["logs", "-n", count]) == 2
    assert "is no number of lines" in capsys.readouterr().err
