"""Phases and keep-alive, with a clock that the test turns."""

import pytest

from sa2va_worker.lifecycle import Lifecycle, Phase


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def life(clock):
    return Lifecycle(keep_alive=300.0, lease_grace=10.0, clock=clock)


def test_keep_alive_counts_from_rest_and_stops_while_busy(life, clock):
    life.ask(5.0)
    assert life.left() is None
    life.rest(True)
    clock.now += 3
    life.rest(True)
    assert life.left() == 2.0
    life.rest(False)
    assert life.left() is None
    clock.now += 100
    life.rest(True)
    assert life.left() == 5.0
    clock.now += 5
    assert life.is_over()


def test_the_latest_wish_wins(life, clock):
    life.ask(1.0)
    life.ask(50.0)
    life.rest(True)
    assert life.left() == 50.0
    life.ask(-1.0)
    assert life.left() is None
    assert not life.is_over()


def test_zero_means_at_once_but_not_before_the_first_call(clock):
    life = Lifecycle(keep_alive=0.0, lease_grace=10.0, clock=clock)
    life.rest(True)
    assert life.left() == 10.0
    life.ask(0.0)
    assert life.is_over()


def test_phases_follow_the_map(life):
    for phase in (
        Phase.LOADING,
        Phase.READY,
        Phase.BUSY,
        Phase.DRAINING,
        Phase.BUSY,
        Phase.READY,
        Phase.ENDING,
    ):
        life.move(phase)
    with pytest.raises(RuntimeError, match="no way from ending to ready"):
        life.move(Phase.READY)


def test_every_phase_can_end(clock):
    for phase in Phase:
        life = Lifecycle(keep_alive=1.0, lease_grace=1.0, clock=clock)
        life.phase = phase
        life.move(Phase.ENDING)


def test_phase_seconds_count_from_the_move(life, clock):
    clock.now += 7
    life.move(Phase.LOADING)
    clock.now += 2
    life.move(Phase.LOADING)
    assert life.phase_seconds() == 2.0
    assert life.uptime() == 9.0
