"""Processes: who is who, who is dead, and who is never signalled."""

import os
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from sa2va_host.machine import processes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and groups are POSIX")


@pytest.fixture
def sleeper():
    """A process that leads a group with one child."""
    process = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True)
    deadline = time.monotonic() + 2
    while len(group(process.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process
    processes.kill_own_child(process.pid)
    process.wait()


def group(pid):
    found = processes.identify(pid)
    return [] if found is None else processes.group_members(found)


def test_a_process_is_itself_and_not_its_number(sleeper):
    who = processes.identify(sleeper.pid)
    assert who is not None
    assert processes.is_alive(who)
    assert not processes.is_alive(msgspec.structs.replace(who, started=who.started + 1))
    assert not processes.is_alive(msgspec.structs.replace(who, boot="other"))
    assert processes.is_client_alive(who.pid, who.started)
    assert processes.identify(2**22 + 1) is None


def test_a_zombie_is_dead():
    process = subprocess.Popen(["sleep", "60"])
    who = processes.identify(process.pid)
    assert who is not None
    process.kill()
    deadline = time.monotonic() + 2
    while processes.is_alive(who):
        assert time.monotonic() < deadline
    process.wait()


def test_a_death_is_seen_through_the_watch(sleeper):
    who = processes.identify(sleeper.pid)
    assert who is not None
    watch = processes.DeathWatch(who)
    assert not watch.is_dead()
    sleeper.kill()
    begun = time.monotonic()
    while not watch.is_dead():
        assert time.monotonic() - begun < 0.5
    watch.close()
    watch.close()


def test_a_watch_on_a_stranger_is_dead_from_the_start(sleeper):
    who = processes.identify(sleeper.pid)
    assert who is not None
    watch = processes.DeathWatch(msgspec.structs.replace(who, started=who.started - 1))
    assert watch.is_dead()
    assert watch.fileno() == -1


def test_a_group_is_signalled_whole_even_without_its_leader(sleeper):
    who = processes.identify(sleeper.pid)
    assert who is not None
    sleeper.kill()
    sleeper.wait()
    assert len(processes.group_members(who)) == 1
    assert processes.signal_group(who, kill=True)
    assert processes.wait_group_gone(who, 1)
    assert not processes.signal_group(who, kill=True)


def test_a_stranger_is_never_signalled(sleeper):
    who = processes.identify(sleeper.pid)
    assert who is not None
    for stale in (
        msgspec.structs.replace(who, started=who.started - 1),
        msgspec.structs.replace(who, boot="an earlier boot"),
    ):
        assert processes.group_members(stale) == []
        assert not processes.signal_group(stale, kill=True)
    assert sleeper.poll() is None


def test_a_stopped_process_is_alive_and_stopped(sleeper):
    who = processes.identify(sleeper.pid)
    assert who is not None
    os.kill(who.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 2
    while not processes.is_stopped(who):
        assert time.monotonic() < deadline
    assert processes.is_alive(who)
    assert processes.signal_group(who, kill=False)
    assert processes.wait_group_gone(who, 1), "SIGTERM reaches a stopped process too"


def test_a_name_with_parentheses_is_no_trap(tmp_path):
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        time.sleep(0.05)
        who = processes.identify(process.pid)
        assert who is not None
        assert processes.is_alive(who)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "signal SIGKILL"), (-99, "signal 99")]
)
def test_an_exit_in_words(code, words):
    assert processes.describe_exit(code) == words


def test_memory_of_a_process_is_known():
    assert processes.resident_memory(os.getpid()) > 1 << 20
    assert processes.resident_memory(2**22 + 1) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="pidfds and zombies of one thread are Linux's")
def test_a_death_is_noticed_although_another_thread_has_not_ended_yet():
    """As where a killed process of many threads gets little time to end."""
    program = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "input()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as child:
        process = processes.identify(child.pid)
        assert process is not None
        assert child.stdin is not None
        watch = processes.DeathWatch(process)
        assert not watch.is_dead()
        child.stdin.write(b"\n")
        child.stdin.flush()
        while processes.is_alive(process):
            time.sleep(0.01)
        assert watch.is_dead()
        watch.close()
        child.kill()
