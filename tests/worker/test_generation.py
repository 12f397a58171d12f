"""Generation end to end: limits, seeds, what is kept, cancelling, and what a result says of it."""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from sa2va_host import Cancellation, Cancelled, Generation, InvalidInput, Sa2VA
from sa2va_host.events import Event, TextPiece
from sa2va_plugins.cli.main import main
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.steps import ChatRequest, Step, Token
from tests.worker.conftest import Heard, load_engine

ENDLESS = {"eos_token_id": 2, "sequence_bias": [[[66], 1000.0]]}
"""Token 66, an S, before everything else, the end included."""
LONG = 30_000


def variant(folder: Path, out: Path, generation_config: dict[str, object]) -> Path:
    """The same checkpoint with other generation settings; its weights are not copied."""
    shutil.copytree(folder, out, copy_function=os.link)
    (out / "generation_config.json").unlink()
    (out / "generation_config.json").write_text(json.dumps(generation_config))
    return out


@pytest.fixture(scope="module")
def endless_folder(qwen3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return variant(qwen3_folder, tmp_path_factory.mktemp("endless") / "endless", ENDLESS)


@pytest.fixture(scope="module")
def endless(endless_folder: Path) -> Sa2VAEngine:
    return load_engine(endless_folder)


@pytest.fixture(scope="module")
def free(qwen3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Sa2VAEngine:
    """Nothing is biased: a random model that says random things."""
    return load_engine(variant(qwen3_folder, tmp_path_factory.mktemp("free") / "free", {"eos_token_id": 2}))


def chat(engine: Sa2VAEngine, generation: Generation) -> Generator[Step, None, None]:
    yield from engine.chat(ChatRequest("hello", generation=generation))


def test_the_answer_has_as_many_tokens_as_were_asked_for(endless: Sa2VAEngine) -> None:
    answer = Heard(list(chat(endless, Generation(max_new_tokens=5)))).answer
    assert answer.text == "SSSSS"
    assert answer.timings["tokens"] == 5


def test_more_tokens_than_the_model_has_room_for_are_refused_by_name(endless: Sa2VAEngine) -> None:
    with pytest.raises(InvalidInput, match=r"^max_new_tokens is 32768, and .* has room for 32\d\d\d"):
        list(chat(endless, Generation(max_new_tokens=32_768)))


def test_a_seed_says_the_same_words_alone_and_in_turns(free: Sa2VAEngine) -> None:
    asked = [Generation(do_sample=True, seed=seed, max_new_tokens=12) for seed in (1, 2, 1)]
    alone = [Heard(list(chat(free, each))).answer.text for each in asked]
    assert alone[0] == alone[2] != alone[1]
    heard = [Heard(), Heard(), Heard()]
    for steps in itertools.zip_longest(*(chat(free, each) for each in asked)):
        for listener, step in zip(heard, steps, strict=True):
            if step is not None:
                listener.steps.append(step)
    assert [listener.answer.text for listener in heard] == alone


def test_greedy_answers_are_the_same_every_time(free: Sa2VAEngine) -> None:
    first, second = (Heard(list(chat(free, Generation(max_new_tokens=8)))).answer.text for _ in range(2))
    assert first == second


def test_a_repetition_penalty_makes_a_greedy_answer_say_something_else(free: Sa2VAEngine) -> None:
    plain, penalised = (
        Heard(list(chat(free, Generation(max_new_tokens=12, repetition_penalty=penalty)))).answer.text
        for penalty in (None, 100.0)
    )
    assert plain != penalised


def test_a_closed_answer_costs_no_further_step(endless: Sa2VAEngine) -> None:
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    hook = endless._model.model.language.model.lm_head.register_forward_hook(count)
    try:
        call = chat(endless, Generation(max_new_tokens=LONG))
        heard = [step for step in itertools.islice(call, 12) if isinstance(step, Token)]
        call.close()
        assert steps == len(heard) > 5
        assert list(call) == []
        assert steps == len(heard)
    finally:
        hook.remove()


def test_of_the_hidden_states_nothing_is_kept_but_at_seg(endless: Sa2VAEngine) -> None:
    width = endless._model.model.language.hidden_size

    def states() -> int:
        gc.collect()
        tensors = (each for each in gc.get_objects() if type(each) is torch.Tensor)
        return sum(each.shape[-1:] == (width,) for each in tensors)

    call = chat(endless, Generation(max_new_tokens=LONG))
    counts = []
    for _ in range(2):
        for _ in itertools.islice(call, 15):
            pass
        counts.append(states())
    call.close()
    assert len(set(counts)) == 1


@pytest.fixture(scope="module")
def heard_events() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def model(endless_folder: Path, heard_events: list[Event]) -> Iterator[Sa2VA]:
    """The endless checkpoint in a worker process of its own."""
    with Sa2VA(endless_folder, device="cpu", keep_alive=60, on_event=heard_events.append) as sa:
        sa.load()
        yield sa
        sa.unload(force=True)


def test_a_cancel_ends_a_long_answer_in_the_middle(model: Sa2VA, heard_events: list[Event]) -> None:
    cancellation = Cancellation()
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            model.chat("hello", generation=Generation(max_new_tokens=LONG), cancellation=cancellation)
        except Cancelled as error:
            caught.append(error)

    def pieces() -> int:
        return sum(isinstance(event, TextPiece) for event in heard_events)

    caller = threading.Thread(target=ask)
    begun = time.monotonic()
    caller.start()
    while pieces() < 20:
        assert time.monotonic() - begun < 60
        time.sleep(0.005)
    assert model.status().phase == "generating"
    step = (time.monotonic() - begun) / pieces()
    cancellation.cancel()
    cancelled = time.monotonic()
    caller.join(10)
    assert len(caught) == 1
    while model.status().active:
        # One step is under way; the rest is for a machine that has other things to do.
        assert time.monotonic() - cancelled < max(2.0, 20 * step)
        time.sleep(0.005)
    said = pieces()
    assert said < LONG / 10
    assert model.chat("hello", generation=Generation(max_new_tokens=3)).text == "SSS"
    assert pieces() == said + 3


def test_every_result_tells_time_tokens_and_memory(model: Sa2VA) -> None:
    timings = model.chat("hello", generation=Generation(max_new_tokens=6)).timings
    assert set(timings) == {
        "encoding",
        "generating",
        "first_token",
        "tokens",
        "tokens_per_second",
        "load",
        "process_peak_bytes",
        "device_peak_bytes",
        "total",
    }
    assert timings["tokens"] == 6
    assert timings["tokens_per_second"] == pytest.approx(6 / timings["generating"])
    assert 0 < timings["first_token"] <= timings["encoding"] + timings["generating"] <= timings["total"]
    assert timings["load"] > 0.1
    assert timings["process_peak_bytes"] >= model.status().host_memory / 2 > 50e6
    assert timings["device_peak_bytes"] == 0


@pytest.mark.parametrize("command", ["chat", "segment"])
def test_the_commands_options_reach_the_model(
    model: Sa2VA, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "picture.png")
    where = ["--model", model.settings.model, "--device", "cpu", "--json"]
    more = ["--save", "none"] if command == "segment" else []
    limit = ["--max-new-tokens", "4"]
    assert main([command, str(tmp_path / "picture.png"), "--prompt", "hello", *where, *more, *limit]) == 0
    document = json.loads(capsys.readouterr().out)
    said = document["text"] if command == "chat" else document["results"][0]["text"]
    assert said == "SSSS"
    assert document["timings"]["tokens"] == 4


def test_the_workers_refusal_reaches_the_caller(model: Sa2VA) -> None:
    with pytest.raises(InvalidInput, match="max_new_tokens is 1000000"):
        model.chat("hello", generation=Generation(max_new_tokens=1_000_000))
