"""What a checkpoint's own code says and finds, taken apart into steps: the same, with logits, and with less work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from sa2va_host.errors import InvalidInput, ModelLoadFailed
from sa2va_host.generation import GREEDY, Generation
from sa2va_host.masks import masks
from sa2va_host.protocol.specification import Specification
from sa2va_worker.own_code.engine import OwnCodeEngine
from sa2va_worker.own_code.tracking import WINDOW
from sa2va_worker.own_code.without_cuda import placed
from sa2va_worker.steps import ChatRequest, Picture, Progress, SegmentRequest, Step, Token
from tests.worker.conftest import Frames, Heard

SIZE = (60, 90)
CPU = torch.device("cpu")
ROUNDING = 1e-3
"""The share of pixels whose probability may be 0.5 up to rounding: five of these pictures' 5400."""


def load(folder: Path, **settings: Any) -> OwnCodeEngine:
    engine = OwnCodeEngine()
    spec = Specification(checkpoint=str(folder), **{"device": "cpu", "trust_remote_code": True, **settings})
    for _ in engine.load(spec):
        pass
    return engine


@pytest.fixture(scope="module")
def engine(brought: Path) -> OwnCodeEngine:
    return load(brought)


def noise(count: int, seed: int = 0) -> list[Picture]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8))


def segment(
    engine: OwnCodeEngine, pictures: Sequence[Picture], tracked: bool, asked: Generation = GREEDY
) -> Iterator[Step]:
    request = SegmentRequest(["what is there?"], list(pictures[:5]), tracked, len(pictures), asked)
    return engine.segment(request, Frames(pictures, engine.info.image_size))


def upstreams_way(engine: OwnCodeEngine, brought: Path, pictures: Sequence[Picture], tracked: bool) -> Any:
    """What `predict_forward` of the very same model returns when nobody listens: text and masks of true and false."""
    untouched = load(brought)._ready.model.model
    del untouched.grounding_encoder.language_embd_inference
    del untouched.language_model.generate
    images = [Image.fromarray(picture) for picture in pictures]
    shown = {"video": images} if tracked else {"image": images[0]}
    tokenizer = AutoTokenizer.from_pretrained(brought, trust_remote_code=True)
    with placed(CPU), torch.inference_mode():
        answer = untouched.predict_forward(text="<image>what is there?", tokenizer=tokenizer, **shown)
    return answer, untouched.grounding_encoder.sam2_model.encoder_calls


@pytest.mark.parametrize(("count", "tracked"), [(1, False), (9, True), (3, True), (1, True)])
def test_it_answers_what_the_code_answers_with_one_encoding_of_each_frame(
    engine: OwnCodeEngine, brought: Path, count: int, tracked: bool
) -> None:
    pictures = noise(count)
    wanted, calls = upstreams_way(engine, brought, pictures, tracked)
    encoder = engine._ready.model.model.grounding_encoder.sam2_model
    before = encoder.encoder_calls
    heard = Heard(list(segment(engine, pictures, tracked)))
    assert encoder.encoder_calls - before == count < calls
    assert heard.answer.text + "<|im_end|>" == wanted["prediction"]
    assert heard.answer.objects == len(wanted["prediction_masks"]) == 2
    assert heard.logits.shape == (2, count, 32, 32)
    found = masks.binarise(heard.logits, engine.info.image_size, SIZE)
    for ours, theirs in zip(found, wanted["prediction_masks"], strict=True):
        assert 0.01 < theirs.mean() < 0.99
        assert (ours != theirs).mean() <= ROUNDING


def test_logits_are_not_thresholded(engine: OwnCodeEngine) -> None:
    logits = Heard(list(segment(engine, noise(1), tracked=False))).logits
    assert len(np.unique(logits)) > logits.size / 2


def test_what_is_remembered_of_a_long_video_has_a_bound(engine: OwnCodeEngine) -> None:
    vector = torch.ones(3, 2, engine._ready.model.model.grounding_encoder.hidden_dim)
    from sa2va_worker.own_code.seam import Spoken

    with torch.inference_mode():
        tracking = engine._ready.model.tracking([Spoken(prompts=[vector])])
        side = engine.info.image_size
        for frame in range(40):
            tracking.step(np.full((side, side, 3), 6 * frame, np.uint8))
    kept = tracking._state["output_dict"]
    assert len(kept["cond_frame_outputs"]) == 3
    assert len(kept["non_cond_frame_outputs"]) <= WINDOW
    assert not tracking._state["cached_features"]
    assert not any(each["non_cond_frame_outputs"] for each in tracking._state["output_dict_per_obj"].values())


def test_two_calls_taken_in_turns_answer_as_if_alone(engine: OwnCodeEngine) -> None:
    first, second = noise(7, seed=1), noise(2, seed=2)
    alone = [Heard(list(segment(engine, frames, tracked=True))) for frames in (first, second)]
    turns = [segment(engine, frames, tracked=True) for frames in (first, second)]
    heard = [Heard(), Heard()]
    for steps in itertools.zip_longest(*turns):
        for listener, step in zip(heard, steps, strict=True):
            if step is not None:
                listener.steps.append(step)
    for together, by_itself in zip(heard, alone, strict=True):
        assert together.answer.text == by_itself.answer.text
        np.testing.assert_array_equal(together.logits, by_itself.logits)


@pytest.mark.parametrize("stop_after", [1, 3, 6, 9, 12])
def test_a_closed_call_leaves_the_next_one_alone(engine: OwnCodeEngine, stop_after: int) -> None:
    frames = noise(6)
    wanted = Heard(list(segment(engine, frames, tracked=True))).logits
    call = segment(engine, frames, tracked=True)
    for _ in range(stop_after):
        next(call)
    call.close()  # type: ignore[attr-defined] # a generator, as all engines' calls
    np.testing.assert_array_equal(Heard(list(segment(engine, frames, tracked=True))).logits, wanted)


def test_tokens_come_as_they_are_said(engine: OwnCodeEngine) -> None:
    heard = Heard(list(segment(engine, noise(1), tracked=False)))
    assert [step.text for step in heard.steps if isinstance(step, Token)] == ["S", "[SEG]", "a", "[SEG]"]
    counted = [step for step in heard.steps if isinstance(step, Progress) and step.phase == "generating"]
    assert counted[-1].done == counted[-1].total == 5


def test_a_long_answer_is_cut_where_the_caller_says(engine: OwnCodeEngine) -> None:
    heard = Heard(list(segment(engine, noise(1), tracked=False, asked=Generation(max_new_tokens=3))))
    assert (heard.answer.text, heard.answer.objects) == ("S[SEG]a", 1)


def test_sampling_is_repeated_by_its_seed(changed: Callable[..., Path]) -> None:
    engine = load(changed(sequence_bias=None))

    def say(seed: int) -> str:
        asked = Generation(do_sample=True, temperature=3.0, seed=seed, max_new_tokens=8)
        return Heard(list(engine.chat(ChatRequest("who are you?", generation=asked)))).answer.text

    assert say(1) == say(1) != say(2)


def test_a_repetition_penalty_is_the_callers(changed: Callable[..., Path]) -> None:
    engine = load(changed(sequence_bias=None))

    def said(penalty: float | None) -> int:
        asked = Generation(repetition_penalty=penalty, max_new_tokens=12)
        heard = Heard(list(engine.chat(ChatRequest("who are you?", generation=asked))))
        return len({step.text for step in heard.steps if isinstance(step, Token)})

    assert said(100.0) > said(None)


def test_words_without_pictures(engine: OwnCodeEngine) -> None:
    heard = Heard(list(engine.chat(ChatRequest("who are you?"))))
    assert (heard.answer.text, heard.answer.objects) == ("S[SEG]a[SEG]", 0)
    with pytest.raises(InvalidInput, match="one question at a time"):
        list(engine.chat(ChatRequest("and then?", history=[("who are you?", "me")])))  # type: ignore[list-item]


def test_the_report_says_whose_code_runs_and_on_what(engine: OwnCodeEngine) -> None:
    info = engine.info
    assert (info.name, info.family, info.image_size, info.mask_size) == ("brought-7b", "own_code", 128, 32)
    assert (info.device, info.dtype) == ("cpu", "float32")
    assert info.details["class"] == "BroughtModel"
    assert info.details["code"] == "configuration_brought.py, modeling_brought.py, sam2.py"
    assert info.details["transformers"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_says_the_same(brought: Path, engine: OwnCodeEngine, dtype: str) -> None:
    half = load(brought, dtype=dtype)
    frames = noise(7)
    exact, near = (Heard(list(segment(each, frames, tracked=True))) for each in (engine, half))
    assert near.answer.text == exact.answer.text
    assert ((near.logits > 0) == (exact.logits > 0)).mean() > 0.97


def test_code_that_is_not_shaped_like_upstreams(changed: Callable[..., Path]) -> None:
    folder = changed()
    model = folder / "modeling_brought.py"
    model.write_text(model.read_text().replace("def predict_forward", "def answer"))
    with pytest.raises(ModelLoadFailed, match=r"class BroughtModel lacks predict_forward\."):
        load(folder)


def test_code_that_fails_to_load(changed: Callable[..., Path]) -> None:
    folder = changed(transformers_version="4.57.1")
    model = folder / "modeling_brought.py"
    model.write_text("from transformers import ThisIsGone\n" + model.read_text())
    with pytest.raises(ModelLoadFailed, match="ThisIsGone") as caught:
        load(folder)
    assert "sa2va setup remote-code" in caught.value.advice


def test_what_it_cannot_do_is_refused(brought: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="not quantized"):
        load(brought, quantization="8bit")


@pytest.mark.parametrize("how", [{"key_positions": [0, 3]}, {"condition_on": "masks"}])
def test_it_tracks_vectors_from_the_first_frames_on_alone(engine: OwnCodeEngine, how: dict[str, Any]) -> None:
    request = SegmentRequest(["what is there?"], noise(2), tracked=True, **how)
    with pytest.raises(InvalidInput, match="tracks vectors from the first frames"):
        list(engine.segment(request, Frames(noise(5), engine.info.image_size)))
