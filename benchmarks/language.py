"""The language model: our loop against transformers' `generate`, and several prompts in one call against as many calls.

On the processor, with the bundled model, the weights take so little time that this is what the loop itself costs.
"""

from __future__ import annotations

from functools import partial

import torch

from sa2va_host import Sa2VA
from sa2va_worker.models.checkpoint import find_folder

from .figures import Figure, Plan, ratio, times
from .gpu import TOKENS, Dictation, Model
from .pictures import noise

PICTURE = (240, 320)
PROMPTS = ("the red circle", "the green square", "the blue triangle", "everything")


def measure(plan: Plan) -> list[Figure]:
    """Tokens per second and the first token's time, of so many tokens about a picture; and prompts of one picture."""
    return [*_against_generate(plan), *_prompts(plan)]


def _against_generate(plan: Plan) -> list[Figure]:
    model = Model(find_folder(plan.model), "auto")
    ours, theirs = times(plan.repeat, partial(_speak, model, TOKENS), partial(_generate, model, TOKENS))
    first, their_first = times(plan.repeat, partial(_speak, model, 1), partial(_generate, model, 1))
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


def _speak(model: Model, tokens: int) -> None:
    """Ours, as the engine calls it; the words are dictated, so that no answer ends early."""
    utterance, pictures = model.front.prepare(PROMPTS[0], [noise(PICTURE)], (), ())
    dictated = Dictation(-1, utterance.prompt_ids[0], 0)
    for _ in model.sa2va.language.speak(utterance, pictures, dictated, None, frozenset(), tokens):
        pass


@torch.inference_mode()
def _generate(model: Model, tokens: int) -> None:
    """transformers' own loop on the same weights and inputs, greedy, as many tokens."""
    utterance, pictures = model.front.prepare(PROMPTS[0], [noise(PICTURE)], (), ())
    assert pictures is not None
    language = model.sa2va.language.model
    ids = torch.tensor([utterance.prompt_ids], device=model.device)
    language.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=pictures.values.to(model.device),
        image_grid_thw=pictures.grids.to(model.device),
        mm_token_type_ids=(ids == language.config.image_token_id).int(),
        do_sample=False,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        pad_token_id=0,
    )


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
