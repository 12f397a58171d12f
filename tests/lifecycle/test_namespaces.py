"""Two PID namespaces with one run directory, as where a container mounts its host's: neither takes the other's worker
for dead.
"""

from __future__ import annotations

import pytest

from sa2va_host import list_workers

from .namespaces import UNSHARE, can_be_made

WORK = (
    "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
    "for line in sys.stdin:\n"
    "    print(len(sa.segment(picture, line.strip(), timeout=20)), sa.status().phase, flush=True)\n"
)


@pytest.fixture(scope="module", autouse=True)
def _namespaces_can_be_made():
    if not can_be_made():
        pytest.skip("making a PID namespace takes unshare and root")


def ask(program, prompt):
    program.stdin.write(f"{prompt}\n")
    program.stdin.flush()
    return program.stdout.readline()


def test_each_namespace_has_a_worker_of_its_own_and_leaves_the_other_s_alone(
    client_program, connect, picture, settings, run
):
    sa = connect()
    pid = sa.segment(picture, "objects=1").worker.pid
    inside = client_program(WORK, launcher=UNSHARE)
    for objects in (1, 2, 1):
        assert ask(inside, f"objects={objects}") == f"{objects} ready\n"
        found = sa.segment(picture, f"objects={objects}")
        assert (len(found), found.worker.pid) == (objects, pid)
    (record,) = run.records()
    assert record.process.pid == pid
    assert [worker.pid for worker in list_workers(settings)] == [pid]


def test_the_end_of_a_namespace_costs_the_others_nothing(client_program, connect, picture):
    sa = connect()
    pid = sa.segment(picture, "objects=1").worker.pid
    inside = client_program(WORK, launcher=UNSHARE)
    assert ask(inside, "objects=1") == "1 ready\n"
    inside.kill()
    inside.wait()
    again = client_program(WORK, launcher=UNSHARE)
    assert ask(again, "objects=2") == "2 ready\n"
    assert sa.segment(picture, "objects=1").worker.pid == pid


def test_a_proc_of_another_namespace_is_told_in_words(client_program):
    program = client_program(
        "try:\n"
        "    Sa2VA('scripted:', settings=settings, command=COMMAND).segment(picture, 'objects=1')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error, flush=True)\n",
        launcher=UNSHARE[:-1],
    )
    words = program.stdout.readline()
    assert words.startswith("WorkerError This process is")
    assert "--mount-proc" in words


REUSE = (
    "import os, signal, time\n"
    "from pathlib import Path\n"
    "from sa2va_host import list_workers\n"
    "from sa2va_host.lifecycle.stopping import stop\n"
    "from sa2va_host.lifecycle.workers import run_directory\n"
    "from tests.lifecycle.namespaces import Stranger\n"
    "def eventually(condition):\n"
    "    deadline = time.monotonic() + 30\n"
    "    while not condition():\n"
    "        assert time.monotonic() < deadline\n"
    "        time.sleep(0.01)\n"
    "sa, other = (Sa2VA('scripted:', settings=settings, command=COMMAND) for _ in range(2))\n"
    "pid = sa.segment(picture, 'objects=1').worker.pid\n"
    "run = run_directory(settings)\n"
    "(record,) = run.records()\n"
)


def test_a_stranger_with_a_dead_worker_s_number_is_never_signalled(client_program):
    program = client_program(
        REUSE + "os.kill(pid, signal.SIGKILL)\n"
        "eventually(lambda: not Path(f'/proc/{pid}').exists())\n"
        "stranger = Stranger(pid)\n"
        "run.write(record)\n"
        "print(bool(sa.status()), list_workers(settings), stop(record, run, force=True, wait=0.0).rung, flush=True)\n"
        "run.write(record)\n"
        "for client in (other, sa):\n"
        "    found = client.segment(picture, 'objects=2')\n"
        "    assert len(found) == 2 and found.worker.pid != pid\n"
        "print(sa.unload(force=True).rung, stranger.signals(), flush=True)\n",
        launcher=UNSHARE,
    )
    assert program.stdout.readline() == "False [] absent\n"
    assert program.stdout.readline() == "asked ['[]']\n"


def test_a_stranger_with_a_dead_client_s_number_does_not_keep_its_calls(client_program):
    program = client_program(
        REUSE + "child = os.fork()\n"
        "if not child:\n"
        "    Sa2VA('scripted:', settings=settings, command=COMMAND).segment(picture, 'steps=100000 pause=0.01')\n"
        "eventually(lambda: sa.status().active)\n"
        "os.kill(child, signal.SIGKILL)\n"
        "os.waitpid(child, 0)\n"
        "stranger = Stranger(child)\n"
        "eventually(lambda: not sa.status().active)\n"
        "print(sa.segment(picture, 'objects=1').worker.pid == pid, stranger.signals(), flush=True)\n",
        launcher=UNSHARE,
    )
    assert program.stdout.readline() == "True ['[]']\n"
