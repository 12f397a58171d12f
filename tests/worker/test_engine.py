"""The engine's calls: steps that interleave, stop and repeat without touching one another."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from sa2va_host import timings
from sa2va_host.errors import InvalidInput, ModelLoadFailed, ModelNotFound
from sa2va_host.protocol.specification import Specification
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.models.tracker import Tracker
from sa2va_worker.steps import ChatRequest, Masks, Picture, Progress, SegmentRequest, Token, Waiting
from tests.worker.conftest import Frames, Heard, load_engine, segment


def noise(count: int, seed: int = 0, size: tuple[int, int] = (60, 90)) -> list[Picture]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8))


def test_loading_counts_up_to_the_checkpoints_bytes(qwen3_folder: Path) -> None:
    engine = Sa2VAEngine()
    steps = list(engine.load(Specification(checkpoint=str(qwen3_folder), device="cpu")))
    progress = [step for step in steps if isinstance(step, Progress)]
    assert [step.done for step in progress] == sorted(step.done for step in progress)
    assert progress[-1].done == progress[-1].total == (qwen3_folder / "model.safetensors").stat().st_size
    assert (engine.info.family, engine.info.device, engine.info.dtype) == ("qwen3_vl", "cpu", "float32")
    assert (engine.info.image_size, engine.info.mask_size) == (256, 64)


def test_two_calls_taken_in_turns_answer_as_if_alone(engine: Sa2VAEngine) -> None:
    first, second = noise(7, seed=1), noise(2, seed=2, size=(120, 50))
    alone = [Heard(list(segment(engine, "the one", frames))) for frames in (first, second)]
    turns = [segment(engine, "the one", frames) for frames in (first, second)]
    heard = [Heard(), Heard()]
    for steps in itertools.zip_longest(*turns):
        for listener, step in zip(heard, steps, strict=True):
            if step is not None:
                listener.steps.append(step)
    for together, by_itself in zip(heard, alone, strict=True):
        assert together.answer.text == by_itself.answer.text
        np.testing.assert_array_equal(together.logits, by_itself.logits)


def test_a_closed_call_leaves_the_next_one_alone(engine: Sa2VAEngine) -> None:
    frames = noise(6)
    wanted = Heard(list(segment(engine, "it", frames))).logits
    for stop_after in (1, 3, 6, 9, 12):
        call = segment(engine, "it", frames)
        for _ in range(stop_after):
            next(call)
        call.close()
    np.testing.assert_array_equal(Heard(list(segment(engine, "it", frames))).logits, wanted)


def test_frames_that_come_late_are_waited_for(engine: Sa2VAEngine) -> None:
    frames = noise(4)
    request = SegmentRequest(["it"], frames[:2], tracked=True)
    heard = Heard(list(engine.segment(request, Frames(frames, engine.info.image_size, slow=True))))
    assert any(isinstance(step, Waiting) for step in heard.steps)
    assert [step.frame for step in heard.steps if isinstance(step, Masks)] == [0, 1, 2, 3]


def test_tokens_stream_and_join_to_the_text(engine: Sa2VAEngine) -> None:
    heard = Heard(list(segment(engine, "it", noise(1))))
    assert "".join(step.text for step in heard.steps if isinstance(step, Token)) == heard.answer.text
    assert set(timings.phases(heard.answer.timings)) == {"encoding", "generating", "tracking"}


def test_a_seg_that_is_the_very_last_token_is_no_object(engine: Sa2VAEngine) -> None:
    heard = Heard(list(segment(engine, "it", noise(1), limit=2)))
    assert heard.answer.text == "S[SEG]"
    assert heard.answer.objects == 0
    assert not any(isinstance(step, Masks) for step in heard.steps)


def test_a_long_video_is_remembered_in_a_window(engine: Sa2VAEngine) -> None:
    model = engine._model.sa2va
    import torch

    with torch.inference_mode():
        tracker = Tracker(model.sam2, torch.zeros(2, model.sam2.width))
        for frame in range(24):
            pixels = model.sam2.pixels(torch.full((1, 256, 256, 3), 9 * frame, dtype=torch.uint8))
            tracker.step(model.sam2.encode(pixels).expand(2), conditioning=frame < 3)
    assert (len(tracker._conditioning), len(tracker._recent), len(tracker._pointers)) == (3, 6, 15)


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(engine: Sa2VAEngine, prompt: str) -> None:
    with pytest.raises(InvalidInput, match="prompt is empty"):
        list(segment(engine, prompt, noise(1)))


def test_a_prompt_too_long_for_the_model_is_refused_at_once(engine: Sa2VAEngine) -> None:
    with pytest.raises(InvalidInput, match="tokens"):
        list(engine.chat(ChatRequest("漢字 " * 100_000)))


def test_a_picture_too_long_for_the_model_is_refused(engine: Sa2VAEngine) -> None:
    with pytest.raises(InvalidInput, match="200 times as long"):
        list(segment(engine, "it", noise(1, size=(2, 600))))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "int3"}, "dtype 'int3' is unknown"),
        ({"device": "toaster"}, "device 'toaster' is unknown"),
        ({"attention": "none"}, "attention 'none' is not supported"),
        ({"quantization": "1bit"}, "quantization '1bit' is not supported"),
    ],
)
def test_impossible_settings_are_named(qwen3_folder: Path, settings: dict[str, str], said: str) -> None:
    with pytest.raises(ModelLoadFailed, match=said):
        load_engine(qwen3_folder, **settings)


def test_an_unknown_model_names_the_bundled_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="neither a bundled model nor a folder"):
        load_engine(Path("no-such-model"))
    with pytest.raises(ModelNotFound, match="has no config"):
        load_engine(tmp_path)
