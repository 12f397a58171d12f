"""A worker that dies, at any moment, ends every pending call with the reason, and the next call just works."""

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from sa2va_host import (
    ConfigError,
    InvalidInput,
    ModelLoadFailed,
    Sa2VA,
    Sa2VAError,
    WorkerDied,
    WorkerError,
    WorkerStalled,
    WorkerStartFailed,
)
from sa2va_host.events import TextPiece
from sa2va_host.lifecycle.watchdog import LOAD_SHARE
from sa2va_host.protocol import wire


def _note(event, speaking, who):
    """Remember who was told a word of an answer."""
    if isinstance(event, TextPiece):
        speaking.add(who)


def test_a_kill_in_mid_call_fails_every_pending_call_with_its_reason(
    connect, picture, kill, eventually, figure, repeats
):
    speaking: set[int] = set()
    clients = [connect(on_event=lambda event, who=who: _note(event, speaking, who)) for who in range(3)]
    for _ in repeats(2, 50):
        pid = clients[0].segment(picture, "objects=1").worker.pid
        speaking.clear()
        with ThreadPoolExecutor() as pool:
            waiting = [pool.submit(sa.segment, picture, "steps=100000 pause=0.01") for sa in clients]
            # A call that was sent a moment ago and has not said a word yet counts as made after the death.
            eventually(lambda: len(speaking) == 3, 2)
            begun = time.monotonic()
            kill(pid)
            errors = [future.exception(timeout=20) for future in waiting]
            figure(5, "pending calls of three clients fail after a kill", time.monotonic() - begun, 0.5)
        for error in errors:
            assert isinstance(error, WorkerDied)
            assert error.pid == pid
            assert "SIGKILL" in error.reason
            assert "SIGKILL" in str(error)
            assert error.log_tail
        result = clients[0].segment(picture, "objects=1")
        assert result.worker.pid != pid


def test_what_a_dead_worker_was_asked_is_never_run_by_the_next_one(
    connect, picture, kill, eventually, repeats
):
    sa, other = connect(), connect()
    for _ in repeats(3, 30):
        sa.load()
        pid = sa.status().pid
        with ThreadPoolExecutor() as pool:
            lost = [pool.submit(sa.segment, picture, "steps=100000 pause=0.01") for _ in range(5)]
            eventually(lambda: len(sa.status().active) + len(sa.status().queued) == 5, 2)
            time.sleep(0.15)  # a call sent within 0.1 s of a death counts as made after it
            kill(pid)
            answers = [other.segment(picture, f"objects={1 + number}") for number in range(3)]
            assert all(isinstance(call.exception(), WorkerDied) for call in lost)
        assert [len(answer) for answer in answers] == [1, 2, 3]
        assert {answer.worker.pid for answer in answers} == {other.status().pid}
        status = other.status()
        assert (status.finished_calls, status.active, status.queued) == (3, (), ())


def test_results_outlive_the_worker(connect, picture, kill):
    sa = connect()
    result = sa.segment(picture, "objects=2")
    before = result.logits.copy()
    kill(result.worker.pid)
    sa.segment(picture, "objects=1")
    assert (result.logits == before).all()
    assert result.masks().shape == (2, 48, 64)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM"])
def test_the_signal_is_named(connect, picture, name):
    sa = connect()
    with pytest.raises(Sa2VAError) as caught:
        sa.segment(picture, f"steps=3 die={name}")
    assert name in str(caught.value)
    if name == "SIGSEGV":
        assert any("Segmentation fault" in line for line in caught.value.log_tail)
    assert sa.segment(picture, "objects=1").text


def test_the_log_tail_holds_the_last_words(connect, picture):
    with pytest.raises(WorkerDied) as caught:
        connect().segment(picture, "die=SIGKILL")
    assert "about to die" in "\n".join(caught.value.log_tail)


def test_a_death_while_idle_is_noticed_before_the_next_call(connect, picture, kill, eventually):
    sa = connect()
    first = sa.segment(picture, "objects=1").worker.pid
    kill(first)
    eventually(lambda: not sa.status(), 1)
    assert sa.segment(picture, "objects=1").worker.pid != first


def test_a_death_during_load_is_told_at_once_with_the_end_of_its_output(connect, picture, figure, repeats):
    for number in repeats(2, 20):
        begun = time.monotonic()
        with pytest.raises(WorkerDied) as caught:
            connect(f"scripted:exitload=3,parts={5 + number}").segment(picture, "objects=1")
        figure(7, "a death during load is told, with the start before it", time.monotonic() - begun, 1.0)
        assert "exit code 3" in str(caught.value)
        assert "about to exit" in "\n".join(caught.value.log_tail)


def test_a_program_that_does_not_start_is_told_at_once(settings, picture, figure, tmp_path):
    program = tmp_path / "broken.py"
    program.write_text("import sys; sys.exit('cannot find my libraries')")
    sa = Sa2VA("scripted:", settings=settings, command=[sys.executable, str(program)])
    begun = time.monotonic()
    with sa, pytest.raises(WorkerStartFailed) as caught:
        sa.segment(picture, "objects=1")
    figure(7, "a program that ends while it imports is told", time.monotonic() - begun, 1.0)
    assert "exit code 1" in str(caught.value)
    assert "cannot find my libraries" in "\n".join(caught.value.log_tail)
    sa = Sa2VA("scripted:", settings=settings, command=["/no/such/program"])
    with sa, pytest.raises(WorkerStartFailed, match="/no/such/program"):
        sa.segment(picture, "objects=1")


def test_three_deaths_before_being_ready_stop_the_restarts(connect, picture, run, within, eventually):
    sa = connect("scripted:dieload=SIGKILL")
    for number in range(3):
        with pytest.raises(WorkerDied):
            sa.segment(picture, "objects=1")
        eventually(lambda died=number + 1: run.recent_deaths(sa.specification, 60.0)[0] == died, 1)
    with within(0.5), pytest.raises(WorkerStartFailed, match="3 times") as caught:
        sa.segment(picture, "objects=1")
    assert "SIGKILL" in str(caught.value)
    assert connect("scripted:").segment(picture, "objects=1").text, "other models are not affected"


def test_deaths_of_a_worker_that_was_ready_do_not_count(connect, picture, kill):
    sa = connect()
    for _ in range(5):
        with pytest.raises(WorkerDied):
            sa.segment(picture, "die=SIGKILL")
    assert sa.segment(picture, "objects=1").text


def test_a_load_that_fails_answers_everybody_and_ends_the_process(connect, picture, eventually, within):
    clients = [connect("scripted:load=0.3,failload=1") for _ in range(3)]
    with within(3), ThreadPoolExecutor() as pool:
        errors = [pool.submit(sa.segment, picture, "objects=1").exception() for sa in clients]
    for error in errors:
        assert isinstance(error, ModelLoadFailed)
        assert "The script says no." in str(error)
        assert "Write another script." in error.advice
    eventually(lambda: not clients[0].status(), 1)


def test_a_load_that_fails_at_once_reaches_a_client_that_connects_too_late(connect):
    for _ in range(3):
        with pytest.raises(ModelLoadFailed, match="The script says no"):
            connect("scripted:failload=1").load()


def test_a_silent_load_ends_at_its_part_of_the_stall_limit(connect, picture, settings, figure):
    limit = 2.0
    sa = connect("scripted:load=60,silent=1", settings=replace(settings, stall_limit=limit / LOAD_SHARE))
    begun = time.monotonic()
    with pytest.raises(WorkerStalled, match="no progress while it loaded for 2 s"):
        sa.segment(picture, "objects=1")
    assert time.monotonic() - begun >= 2
    figure(8, "a silent load is ended, with a limit of 2 s", time.monotonic() - begun, 4.0)
    assert not sa.status()


def test_a_load_that_imports_libraries_lives_though_it_says_nothing(connect, picture, settings):
    """PyTorch from a cold disk, on a machine that has other work, takes longer than the limit of a silent load."""
    patient = replace(settings, stall_limit=2.0 / LOAD_SHARE, timeout=None)
    sa = connect("scripted:load=5,parts=20,silent=1,importing=1", settings=patient)
    assert sa.segment(picture, "objects=1").text


@pytest.mark.timeout(900)
def test_a_slow_load_that_shows_progress_lives(connect, picture, settings, repeats):
    seconds = repeats(4, 600).stop
    patient = replace(settings, stall_limit=2.0 / LOAD_SHARE, timeout=None)
    sa = connect(f"scripted:load={seconds},parts={4 * seconds}", settings=patient)
    assert sa.segment(picture, "objects=1").text


@pytest.mark.parametrize("how", ["stop=1", "gil=30", "sleep=30"])
def test_a_worker_that_hangs_is_ended_at_the_stall_limit(connect, picture, settings, how, within):
    sa = connect(settings=replace(settings, stall_limit=1.0))
    sa.load()
    with within(4), pytest.raises(WorkerStalled):
        sa.segment(picture, f"steps=2 {how}")
    assert sa.segment(picture, "objects=1").text


@pytest.mark.parametrize("how", ["stop=1", "gil=30"])
def test_deadlines_fire_while_the_worker_hangs(connect, picture, how, hang, figure, repeats):
    sa = connect()
    hang(connect(), f"steps=2 {how}")
    for _ in repeats(2, 10):
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            sa.segment(picture, "objects=1", timeout=1.0)
        took = time.monotonic() - begun
        assert took >= 1.0
        figure(11, f"a deadline of 1 s ({how.split('=')[0]})", took, 1.1)


@pytest.mark.parametrize(("how", "phase"), [("stop=1", "stopped"), ("gil=30", "silent")])
def test_status_of_a_worker_that_hangs_comes_from_outside(connect, hang, how, phase, figure, repeats):
    sa = connect()
    pid = sa.load() and sa.status().pid
    hang(sa, f"steps=2 {how}")
    for _ in repeats(2, 20):
        begun = time.monotonic()
        status = sa.status()
        figure(11, f"status ({phase})", time.monotonic() - begun, 0.5)
        assert (status.pid, status.phase, status.responding) == (pid, phase, False)
        assert status.info is not None


def test_a_broken_engine_ends_the_worker_and_the_next_answer_is_right(connect, picture):
    sa = connect()
    first = sa.segment(picture, "objects=1")
    with pytest.raises(WorkerError, match="broke the device"):
        sa.segment(picture, "error=broken")
    second = sa.segment(picture, "objects=1")
    assert second.worker.pid != first.worker.pid
    assert (second.logits == first.logits).all()


def test_no_zombie_stays(connect, picture, kill, eventually):
    from pathlib import Path

    sa = connect()
    for _ in range(2):
        pid = sa.segment(picture, "objects=1").worker.pid
        kill(pid)
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 0.5)


def test_a_killed_worker_leaves_its_signal_for_those_who_are_not_its_parent(
    connect, picture, client_program, kill, eventually
):
    """The worker belongs to another process; that one, alive, writes down how it ended."""
    parent = client_program(
        "sa = Sa2VA('scripted:', settings=settings, command=COMMAND)\n"
        "print(sa.segment(picture, 'objects=1').worker.pid, flush=True)\nsys.stdin.read()"
    )
    pid = int(parent.stdout.readline())
    sa = connect()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(sa.segment, picture, "steps=500 pause=0.02")
        eventually(lambda: sa.status().active, 2)
        kill(pid)
        error = waiting.exception(2)
    assert isinstance(error, WorkerDied)
    assert signal.SIGKILL.name in error.reason


@pytest.mark.parametrize("how", ["stop=1", "gil=60"])
def test_a_cancelled_call_that_hangs_beyond_the_workers_own_reach_is_ended_by_its_client(
    connect, picture, settings, hang, eventually, how
):
    sa = connect(settings=replace(settings, cancel_grace=0.2))
    call = hang(sa, f"steps=2 {how}")
    pid = sa.status().pid
    call.cancel()
    eventually(lambda: sa.status().pid != pid, 5)
    assert sa.segment(picture, "objects=1").text


def test_a_worker_too_deaf_to_say_that_a_call_began_is_ended_by_whoever_cancelled_it(
    connect, picture, settings, eventually
):
    deaf, waiting = connect(), connect(settings=replace(settings, cancel_grace=0.2))
    pid = waiting.segment(picture, "objects=1").worker.pid
    with ThreadPoolExecutor() as pool:
        holder = pool.submit(deaf.segment, picture, "steps=3 pause=0.2 at=2 gil=60")
        eventually(lambda: waiting.status().phase == "silent", 5)
        with pytest.raises(TimeoutError):
            waiting.segment(picture, "objects=1", timeout=0.5)  # it cannot have begun
        assert isinstance(holder.exception(20), WorkerDied)
    assert waiting.segment(picture, "objects=1").worker.pid != pid


def test_an_answer_is_not_lost_when_the_worker_ends_right_after_it(connect, picture):
    """With a keep_alive of 0 every answer is the worker's last word."""
    sa = connect(keep_alive=0)
    pids = set()
    for _ in range(12):
        result = sa.segment(picture, "objects=1")
        assert len(result) == 1
        pids.add(result.worker.pid)
    assert len(pids) == 12, "no call ran twice"


@pytest.mark.parametrize("prompt", ["\ud800", "a\udcffb"])
def test_half_a_character_fails_its_own_call_alone(connect, picture, prompt):
    sa = connect()
    with pytest.raises(InvalidInput, match="no text"):
        sa.segment(picture, prompt)
    assert len(sa.segment(picture, "objects=1")) == 1


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), 1e300, -1, 0, "5"])
def test_an_impossible_timeout_fails_its_own_call_alone(connect, picture, timeout):
    sa = connect()
    with pytest.raises((InvalidInput, ConfigError), match="timeout"):
        sa.segment(picture, "objects=1", timeout=timeout)
    assert len(sa.segment(picture, "objects=1")) == 1


def test_what_the_worker_cannot_read_fails_instead_of_hanging(connect, picture, within):
    """As with a client of another version, whose messages have fields that the worker does not know."""

    class Segment(wire.Segment, frozen=True, kw_only=True, tag="Segment"):
        """Of a later version."""

        later: int = 1

    sa = connect()
    sa.load()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool, within(5.0):
        patch.setattr(wire, "Segment", Segment)
        call = pool.submit(sa.segment, picture, "objects=1")
        with pytest.raises(InvalidInput, match="later"):
            call.result()
    assert len(sa.segment(picture, "objects=1")) == 1
