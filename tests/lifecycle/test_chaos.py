"""Chaos, for as long as there is time: every answer is right, every call ends, and nothing is left behind."""

from __future__ import annotations

import dataclasses
import os
import random

import pytest

from .chaos import TINY, attack
from .conftest import SURVIVE

SEED = int(os.environ.get("SA2VA_CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))
"""Read before the session's fixture cleans the environment."""
SHARES = [("scripted:", "ipc", 1.0), ("scripted:", "tcp", 1.0)]
"""Model, transport, and the share of the time that they are worth."""
if SURVIVE:
    SHARES.append((TINY, "ipc", 0.7))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("model", "transport", "share"), SHARES)
def test_chaos_costs_no_right_answer_and_leaves_nothing(model, transport, share, repeats, figure):
    seconds = share * repeats(30, 1350).stop
    print(f"seed {SEED}")  # noqa: T201 - pytest shows it where this fails
    chaos = attack(seed=SEED, seconds=seconds, model=model, transport=transport)
    counts = chaos.counts
    figure.count(
        29, f"chaos ({model.partition(':')[0]}, {transport})", seed=SEED, **dataclasses.asdict(counts)
    )
    assert not chaos.problems, "\n".join([f"SA2VA_CHAOS_SEED={SEED}", *chaos.problems])
    assert counts.compared > counts.seconds / 10
    assert counts.killed_workers
