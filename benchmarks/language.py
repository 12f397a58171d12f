"""The language model: our loop against transformers' `generate`, and several prompts in one call against as many calls.

On the processor, with the bundled model, the weights take so little time that this is what the loop itself costs.
"""

from __future__ import annotations

from functools import partial

from sa2va_host import Sa2VA
from sa2va_worker.models.checkpoint import find_folder

from .figures import Figure, Plan, ratio, times
from .model import Model
from .pictures import noise

TOKENS = 32
PICTURE = (240, 320)
PROMPTS = ("the red circle", "the green square", "the blue triangle", "everything")


def measure(plan: Plan) -> list[Figure]:
    """Tokens per second and the first token's time, of so many tokens about a picture; and prompts of one picture."""
    return [*_against_generate(plan), *_prompts(plan)]


def _against_generate(plan: Plan) -> list[Figure]:
    model, picture = Model(find_folder(plan.model), "auto"), noise(PICTURE)
    speak, generate = partial(model.speak, picture), partial(model.generate, picture)
    ours, theirs = times(plan.repeat, partial(speak, TOKENS), partial(generate, TOKENS))
    first, their_first = times(plan.repeat, partial(speak, 1), partial(generate, 1))
    speed = [
        Figure(name, tuple(TOKENS / second for second in seconds), unit="tokens/s", panel="tokens per second")
        for name, seconds in (("ours", ours), ("generate", theirs))
    ]
    begin = [
        Figure(name, seconds, panel="first token")
        for name, seconds in (("ours", first), ("generate", their_first))
    ]
    return [
        *speed,
        *begin,
        ratio(f"time of {TOKENS} tokens, ours against generate", Figure("", ours), Figure("", theirs)),
    ]


def _prompts(plan: Plan) -> list[Figure]:
    picture = noise(PICTURE)
    with Sa2VA(model=plan.model) as sa:
        sa.load()
        together, alone = times(
            plan.repeat,
            lambda: sa.segment_each(picture, PROMPTS),
            lambda: [sa.segment(picture, prompt) for prompt in PROMPTS],
        )
    one = Figure(f"{len(PROMPTS)} prompts in one call", together, panel="prompts")
    many = Figure(f"{len(PROMPTS)} calls", alone, panel="prompts")
    return [one, many, ratio("one call against as many calls", one, many)]
