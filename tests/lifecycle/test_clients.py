"""Clients that die: their work is dropped, nobody else notices, and the keep-alive runs."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

SEGMENT = (
    "sa = Sa2VA('scripted:', settings=settings, command=COMMAND, keep_alive={keep_alive})\n"
    "sa.load()\nprint('loaded', flush=True)\nsys.stdin.readline()\n"
    "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor()\n"
    "calls = [pool.submit(sa.segment, picture, '{prompt}') for _ in range(4)]\nprint('sent', flush=True)\n"
    "print([len(call.result()) for call in calls])"
)


def start(client_program, prompt, keep_alive=300):
    """A client process with one running and three queued calls, once told to go."""
    client = client_program(SEGMENT.format(prompt=prompt, keep_alive=keep_alive))
    assert client.stdout.readline() == "loaded\n"
    return client


def go(client):
    client.stdin.write("go\n")
    client.stdin.flush()
    assert client.stdout.readline() == "sent\n"


def test_a_dead_clients_calls_are_dropped_and_others_are_not_disturbed(
    client_program, connect, picture, eventually, figure, repeats
):
    clients = [connect(), connect()]
    sa = clients[0]
    alone = sa.segment(picture, "objects=2 steps=20")
    for _ in repeats(1, 20):
        victim = start(client_program, "steps=100000 pause=0.01")
        go(victim)
        eventually(lambda: sa.status().active and len(sa.status().queued) == 3, 2)
        with ThreadPoolExecutor() as pool:
            calls = [pool.submit(each.segment, picture, "objects=2 steps=20") for each in clients]
            victim.kill()
            begun = time.monotonic()
            results = [call.result() for call in calls]
        eventually(lambda: not sa.status().active and not sa.status().queued, 2)
        figure(10, "a dead client's calls are gone", time.monotonic() - begun, 2.0)
        for result in results:
            np.testing.assert_array_equal(result.logits, alone.logits)
            assert result.worker.pid == alone.worker.pid


def test_the_last_client_killed_in_a_long_call_lets_the_worker_go(
    client_program, connect, eventually, figure, repeats
):
    sa = connect()
    for _ in repeats(1, 20):
        victim = start(client_program, "steps=100000 pause=0.01", keep_alive=0.3)
        go(victim)
        eventually(lambda: sa.status().active, 2)
        victim.kill()
        begun = time.monotonic()
        eventually(lambda: not sa.status(), 2)
        figure(9, "the worker is gone, with a keep-alive of 0.3 s", time.monotonic() - begun, 2.0)


def test_a_stopped_client_does_not_stop_the_others(client_program, connect, picture, eventually, promise):
    import signal

    sa = connect()
    other = start(client_program, "objects=1 steps=5 pause=0.01")
    go(other)
    other.send_signal(signal.SIGSTOP)  # whatever it has sent by now
    begun = time.monotonic()
    for _ in range(5):
        assert sa.segment(picture, "objects=1").text
    promise(time.monotonic() - begun, 2.0)
    other.send_signal(signal.SIGCONT)
    assert other.communicate(timeout=10)[0].strip() == "[1, 1, 1, 1]"


def test_closing_a_client_drops_what_it_asked_for(connect, picture, eventually):
    sa, other = connect(), connect()
    sa.load()
    with ThreadPoolExecutor() as pool:
        pool.submit(other.segment, picture, "steps=1000 pause=0.01")
        eventually(lambda: sa.status().active, 1)
        other.close()
        eventually(lambda: not sa.status().active, 0.5)


def test_a_client_attaches_to_a_worker_that_has_its_model_and_starts_none(connect, run, picture, eventually):
    first, second = connect(), connect()
    first.attach()
    assert not list(run.records())
    pid = first.segment(picture, "objects=1").worker.pid
    alone = first.status().clients
    second.attach()
    eventually(lambda: first.status().clients == alone + 1, 5)
    second.attach()
    assert second.segment(picture, "objects=1").worker.pid == pid
    assert first.status().clients == alone + 1


def test_a_worker_that_went_after_a_client_attached_costs_its_call_nothing(
    connect, picture, kill, eventually
):
    first, second = connect(), connect()
    pid = first.segment(picture, "objects=1").worker.pid
    alone = first.status().clients
    second.attach()
    eventually(lambda: first.status().clients == alone + 1, 5)
    kill(pid)
    assert second.segment(picture, "objects=1").worker.pid != pid
