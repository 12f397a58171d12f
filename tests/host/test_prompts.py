"""What may be asked, and what is refused before anything is sent."""

from __future__ import annotations

import pytest

from sa2va_host.errors import InvalidInput
from sa2va_host.prompts import checked_history
from sa2va_host.protocol.limits import MAX_TURNS, Turn


def test_turns_are_pairs_of_a_prompt_and_an_answer() -> None:
    assert checked_history([("who?", "me"), ["and then?", ""]]) == [Turn("who?", "me"), Turn("and then?", "")]


@pytest.mark.parametrize("turn", ["who?", ("who?",), ("who?", "me", "you"), ("who?", None), ("", "me"), 7])
def test_a_turn_that_is_no_pair(turn: object) -> None:
    with pytest.raises(InvalidInput, match=r"Turn 2 of the history|prompt is empty"):
        checked_history([("who?", "me"), turn])


def test_more_turns_than_a_message_holds() -> None:
    with pytest.raises(InvalidInput, match=f"more than {MAX_TURNS}"):
        checked_history([("who?", "me")] * (MAX_TURNS + 1))
