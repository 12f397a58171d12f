"""A function that blocks, run piece by piece."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from sa2va_worker.own_code.turns import in_turns


def test_it_stands_still_between_pieces() -> None:
    done: list[int] = []

    def work(hand_over: Callable[[int], None]) -> str:
        for number in range(3):
            done.append(number)
            hand_over(number)
        return "all"

    turns = in_turns(work)
    assert next(turns) == 0
    assert done == [0]
    assert list(turns) == [1, 2]


def test_what_it_returns_and_raises_arrives() -> None:
    def work(hand_over: Callable[[str], None]) -> int:
        hand_over("piece")
        return 7

    turns = in_turns(work)
    assert next(turns) == "piece"
    with pytest.raises(StopIteration) as stopped:
        next(turns)
    assert stopped.value.value == 7

    def fail(_: Callable[[str], None]) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        next(in_turns(fail))


def test_closing_ends_it_where_it_stands() -> None:
    left = threading.Event()

    def work(hand_over: Callable[[int], None]) -> None:
        try:
            hand_over(1)
            raise AssertionError("it went on")
        finally:
            left.set()

    turns = in_turns(work)
    next(turns)
    before = threading.active_count()
    turns.close()
    assert left.is_set()
    assert threading.active_count() < before


def test_code_that_catches_everything_ends_all_the_same() -> None:
    tried: list[int] = []

    def work(hand_over: Callable[[int], None]) -> None:
        for number in range(5):
            try:
                hand_over(number)
            except BaseException:  # noqa: BLE001 - as foreign code does
                tried.append(number)

    turns = in_turns(work)
    next(turns)
    turns.close()
    assert tried == [0, 1, 2, 3, 4]


def test_one_that_is_closed_before_it_begins_never_begins() -> None:
    def work(_: Callable[[int], None]) -> None:
        raise AssertionError("it began")

    in_turns(work).close()
