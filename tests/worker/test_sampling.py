"""Which token comes next: every setting alone, against what it is defined to do, and seeds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from sa2va_host.errors import ModelLoadFailed, WorkerError
from sa2va_host.generation import GREEDY, Generation
from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.sampling import Sampler, read_defaults

NOTHING = GenerationConfig()
PROBABILITIES = torch.tensor([[0.5, 0.25, 0.15, 0.06, 0.04]])
SCORES = PROBABILITIES.log()


def drawn(count: int = 400, **settings: Any) -> Counter[int]:
    """How often each token is chosen of `PROBABILITIES`."""
    sampler = Sampler(Generation(do_sample=True, seed=1, **settings), NOTHING)
    return Counter(sampler.choose(SCORES, [0]) for _ in range(count))


def test_greedy_takes_the_likeliest() -> None:
    sampler = Sampler(GREEDY, NOTHING)
    assert {sampler.choose(SCORES, [0]) for _ in range(20)} == {0}


def test_scores_that_are_no_numbers_end_the_answer() -> None:
    for asked in (Generation(), Generation(do_sample=True)):
        with pytest.raises(WorkerError, match="no numbers"):
            Sampler(asked, NOTHING).choose(SCORES * torch.nan, [0])


def test_sampling_draws_by_probability() -> None:
    found = drawn(4000)
    for token, probability in enumerate(PROBABILITIES[0].tolist()):
        # Five standard deviations of a binomial.
        assert abs(found[token] / 4000 - probability) < 5 * (probability * (1 - probability) / 4000) ** 0.5


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.74}, {0, 1}),
        ({"top_p": 0.76}, {0, 1, 2}),
        ({"min_p": 0.29}, {0, 1, 2}),
        ({"temperature": 0.01}, {0}),
        ({"temperature": 100.0}, {0, 1, 2, 3, 4}),
    ],
)
def test_each_setting_leaves_the_tokens_that_it_should(settings: dict[str, Any], tokens: set[int]) -> None:
    assert set(drawn(**settings)) == tokens


def test_a_repetition_penalty_works_on_greedy_decoding_too() -> None:
    scores = torch.tensor([[2.0, 1.5, -1.0]])
    assert Sampler(GREEDY, NOTHING).choose(scores, [0]) == 0
    assert Sampler(Generation(repetition_penalty=2.0), NOTHING).choose(scores, [0]) == 1


def test_a_seed_means_the_same_words_and_another_one_others() -> None:
    def words(seed: int | None) -> list[int]:
        sampler = Sampler(Generation(do_sample=True, seed=seed), NOTHING)
        return [sampler.choose(SCORES, [0]) for _ in range(60)]

    assert words(7) == words(7)
    assert words(7) != words(8)
    assert words(None) != words(None)


def test_samplers_that_take_turns_do_not_disturb_each_other_nor_anybody_else() -> None:
    settings = [Generation(do_sample=True, seed=seed) for seed in (1, 2)]
    alone = []
    for each in settings:
        sampler = Sampler(each, NOTHING)
        alone.append([sampler.choose(SCORES, [0]) for _ in range(40)])
    before = torch.get_rng_state()
    samplers = [Sampler(each, NOTHING) for each in settings]
    turns = [[sampler.choose(SCORES, [0]) for sampler in samplers] for _ in range(40)]
    assert [list(column) for column in zip(*turns, strict=True)] == alone
    assert torch.equal(torch.get_rng_state(), before)


def test_of_a_checkpoints_defaults_the_bias_and_the_penalty_hold() -> None:
    scores = torch.tensor([[2.0, 1.5, -1.0]])
    assert Sampler(GREEDY, GenerationConfig(sequence_bias=[[[2], 9.0]])).choose(scores, [0]) == 2
    penalty = GenerationConfig(repetition_penalty=2.0)
    assert Sampler(GREEDY, penalty).choose(scores, [0]) == 1
    assert Sampler(Generation(repetition_penalty=1.0), penalty).choose(scores, [0]) == 0


def test_a_checkpoints_sampling_settings_do_not() -> None:
    eager = GenerationConfig(do_sample=True, temperature=0.01, top_k=1)
    assert {Sampler(GREEDY, eager).choose(SCORES, [0]) for _ in range(20)} == {0}
    sampler = Sampler(Generation(do_sample=True, seed=3), eager)
    assert len({sampler.choose(SCORES, [0]) for _ in range(200)}) > 2


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": "much"},
        {"repetition_penalty": -1},
        {"sequence_bias": 5},
        {"cache_implementation": "none"},
    ],
)
def test_defaults_that_cannot_be_followed_fail_the_load(tmp_path: Path, settings: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelLoadFailed, match=r"generation_config.json cannot be followed: "):
        read_defaults(Checkpoint(tmp_path))
