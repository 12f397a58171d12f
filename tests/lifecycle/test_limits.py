"""What runs short or is odd on one side of the socket costs nobody else an answer."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from sa2va_host import Sa2VAError, WorkerError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX's limits and signals")


def test_a_worker_has_descriptors_for_more_clients_than_its_launchers_shell_would(
    client_program, connect, picture, run
):
    """ZeroMQ aborts a process that has no descriptor left for somebody who connects."""
    launcher = client_program(
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "print(sa.segment(picture, 'objects=1').worker.pid, flush=True)\nsys.stdin.read()"
    )
    pid = int(launcher.stdout.readline())
    (record,) = run.records()
    if record.endpoint.path is None:
        pytest.skip("strangers come over a local socket here")
    strangers = []
    for _ in range(100):
        stranger = socket.socket(socket.AF_UNIX)
        stranger.settimeout(5)
        stranger.connect(str(record.endpoint.path))
        strangers.append(stranger)
    assert connect().segment(picture, "objects=1").worker.pid == pid
    for stranger in strangers:
        stranger.close()


def test_a_client_that_ran_out_of_descriptors_goes_on_when_it_has_some(client_program):
    program = client_program(
        "import os, resource\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "limits = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "sa.segment(picture, 'objects=1')  # with all that is imported for it\n"
        "sa.close()\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "free = os.dup(0)\n"
        "os.close(free)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))  # below every number that is not taken\n"
        "try:\n"
        "    sa.segment(picture, 'objects=1', timeout=5)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error, flush=True)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, limits)\n"
        "print(len(sa.segment(picture, 'objects=1')), flush=True)"
    )
    assert program.stdout.readline().startswith("WorkerError This process can open no connection to a worker")
    assert program.stdout.readline() == "1\n"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_connection_that_failed_by_itself_is_made_anew(connect, picture, monkeypatch):
    """The failure stands for any of our own: what matters is that it is not for ever."""
    sa = connect()
    assert len(sa.segment(picture, "objects=1")) == 1
    with monkeypatch.context() as broken:
        broken.setattr("sa2va_host.calls.link.Link._watch", lambda link: 1 / 0)
        with pytest.raises(WorkerError, match="ZeroDivisionError"):
            sa.segment(picture, "objects=1")
    assert len(sa.segment(picture, "objects=1")) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_that_comes_as_the_connection_fails_is_told_why(connect, picture, monkeypatch, eventually):
    """It holds room with that connection already, so no other one is made for it."""
    sa = connect()
    assert len(sa.segment(picture, "objects=1")) == 1
    link, reserve = sa._session._link, sa._session.reserve

    def reserve_and_fail():
        room = reserve()
        assert room.link is link
        link._watch = lambda: 1 / 0
        link._waker.wake()  # and it looks at what is due
        eventually(lambda: not link._thread.is_alive(), 5)
        return room

    with monkeypatch.context() as broken:
        broken.setattr(sa._session, "reserve", reserve_and_fail)
        with pytest.raises(WorkerError, match="ZeroDivisionError"):
            sa.segment(picture, "objects=1")
    assert len(sa.segment(picture, "objects=1")) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_whose_message_cannot_be_made_is_told_and_nobody_waits_for_ever(connect, picture):
    sa = connect()
    assert len(sa.segment(picture, "objects=1")) == 1
    with pytest.raises(WorkerError, match="ZeroDivisionError"):
        sa._session.call(lambda number, headers: 1 // 0, timeout=10)
    assert len(sa.segment(picture, "objects=1")) == 1


def test_a_program_whose_name_is_no_text_is_served(client_program):
    program = client_program(
        "sys.argv[0] = '/tmp/pro\\udcffgram'\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "print(len(sa.segment(picture, 'objects=1')), sa.status().phase, flush=True)"
    )
    assert program.stdout.readline().startswith("1 ")


def test_a_launcher_that_blocks_sigterm_does_not_hand_that_down(client_program, eventually, connect):
    launcher = client_program(
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "print(sa.segment(picture, 'objects=1').worker.pid, flush=True)\nsys.stdin.read()"
    )
    os.kill(int(launcher.stdout.readline()), signal.SIGTERM)
    sa = connect()
    eventually(lambda: sa.status().phase == "absent", 2)


@pytest.mark.parametrize("answer", ["wide=1", "objects=1001 presence=1"])
def test_an_answer_that_cannot_travel_fails_its_own_call_alone(connect, picture, answer):
    sa = connect()
    pid = sa.segment(picture, "objects=1").worker.pid
    with pytest.raises(Sa2VAError, match="travel"):
        sa.segment(picture, answer)
    assert sa.segment(picture, "objects=1").worker.pid == pid


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system shares no memory by descriptor")
def test_a_client_that_rests_gives_shared_memory_back(connect, eventually, monkeypatch):
    monkeypatch.setattr("sa2va_host.calls.link._TRIM_AFTER", 1.0)
    sa = connect()
    sa.load()
    picture = np.zeros((1080, 1920, 3), np.uint8)
    sa.segment(picture, "objects=1")
    shared = Path("/proc/self/fd") / str(sa._session._link.arena._fd)
    assert shared.stat().st_blocks * 512 >= picture.nbytes
    eventually(lambda: shared.stat().st_blocks == 0, 3)
    assert len(sa.segment(picture, "objects=1")) == 1
