"""What a user may ask: checked before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .errors import InvalidInput
from .protocol.limits import MAX_PROMPTS, MAX_TURNS, Turn

MAX_PROMPT = 100_000
"""Characters of one prompt."""


def checked_prompts(prompts: object) -> list[str]:
    """The prompts of one call, if the model can be asked those. Raises `InvalidInput`."""
    if isinstance(prompts, str):
        given = "one text was"
    elif not isinstance(prompts, Sequence):
        given = f"one {type(prompts).__name__} was"
    elif not 0 < len(prompts) <= MAX_PROMPTS:
        given = f"{len(prompts)} were"
    else:
        return [checked_prompt(prompt) for prompt in prompts]
    raise InvalidInput(
        f"Several prompts were asked for and {given} given.",
        advice=f"Give a list of 1 to {MAX_PROMPTS} texts.",
    )


def checked_history(history: Iterable[object]) -> list[Turn]:
    """Earlier turns, (prompt, answer) each. Raises `InvalidInput` for anything else, and for too many."""
    turns: list[Turn] = []
    for number, turn in enumerate(history, 1):
        if not isinstance(turn, (tuple, list)) or len(turn) != 2 or not isinstance(turn[1], str):
            raise InvalidInput(
                f"Turn {number} of the history is {turn!r}.",
                advice="Each is a pair: the prompt and the answer.",
            )
        turns.append(Turn(checked_prompt(turn[0]), turn[1]))
    if len(turns) > MAX_TURNS:
        raise InvalidInput(
            f"The history has {len(turns)} turns, more than {MAX_TURNS}.", advice="Leave the oldest out."
        )
    return turns


def checked_prompt(prompt: object) -> str:
    """The prompt, if the model can be asked that. Raises `InvalidInput`."""
    if not isinstance(prompt, str):
        raise InvalidInput(f"The prompt is {prompt!r}.", advice="It must be text, such as 'the red circle'.")
    if not prompt.replace("<image>", "").strip():
        raise InvalidInput("The prompt is empty.", advice="Say what to look for, such as 'the red circle'.")
    if len(prompt) > MAX_PROMPT:
        raise InvalidInput(f"The prompt has {len(prompt)} characters, more than {MAX_PROMPT}.")
    if not prompt.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise InvalidInput("The prompt has bytes in it that are no text.", advice="Write it in UTF-8.")
    return prompt
