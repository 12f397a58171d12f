"""The native model answers what upstream's own code answers: `tests/parity` holds the weights and the answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sa2va_host import masks
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.qwen import QwenFront
from sa2va_worker.models.sa2va import build, load
from sa2va_worker.steps import ChatRequest
from tests.worker.conftest import Heard, load_engine, segment

Golden = Mapping[str, Any]
TOLERANCE = 1e-3
"""Largest difference allowed, in standard deviations of what upstream answered."""
WRONG_PIXELS = 1e-4


@pytest.fixture(scope="module")
def golden() -> Golden:
    with np.load(Path(__file__).parents[1] / "parity" / "qwen3" / "golden.npz") as answers:
        return dict(answers)


def pictures(golden: Golden, case: str) -> list[Any]:
    return {"image": [golden["image"]], "video": list(golden["frames"]), "text": []}[case]


@pytest.mark.parametrize("case", ["image", "video", "text"])
def test_tokens_and_object_vectors_are_upstreams(golden: Golden, qwen3_folder: Path, case: str) -> None:
    checkpoint = Checkpoint(qwen3_folder)
    model = build(checkpoint, torch.device("cpu"), torch.float32)
    for _ in load(model, checkpoint):
        pass
    front = QwenFront(checkpoint)
    utterance, patches = front.prepare(str(golden[f"{case}.prompt"]), pictures(golden, case)[:5])
    assert utterance.prompt_ids == golden[f"{case}.input_ids"][0].tolist()
    if case == "image":
        assert patches is not None
        np.testing.assert_array_equal(patches.values.numpy(), golden["image.pixel_values"])
    if patches is not None:
        np.testing.assert_array_equal(patches.grids.numpy(), golden[f"{case}.image_grid_thw"])
    segment_token = front.conversation.segment_token
    for _ in model.language.speak(
        utterance, patches, segment_token, front.processors, front.end_tokens, 2048
    ):
        pass
    assert utterance.prompt_ids + utterance.token_ids == golden[f"{case}.output_ids"].tolist()
    with torch.inference_mode():
        vectors = model.prompts(utterance.segment_states).numpy()
    for number, vector in enumerate(vectors if case != "text" else []):
        wanted = golden[f"{case}.seg_embedding.{number}"]
        assert np.abs(vector - wanted).max() <= TOLERANCE * wanted.std()


@pytest.mark.parametrize("case", ["image", "video"])
def test_logits_and_masks_are_upstreams(golden: Golden, engine: Sa2VAEngine, case: str) -> None:
    frames = pictures(golden, case)
    heard = Heard(list(segment(engine, str(golden[f"{case}.prompt"]), frames, tracked=case == "video")))
    assert heard.answer.objects == 2
    assert heard.answer.text + "<|im_end|>" == str(golden[f"{case}.text"])
    size = frames[0].shape[:2]
    found = masks.binarise(heard.logits, engine.info.image_size, size)
    for number in range(2):
        wanted = golden[f"{case}.low_res_logits.{number}"]
        assert np.abs(heard.logits[number] - wanted).max() <= TOLERANCE * wanted.std()
        shape = tuple(golden[f"{case}.mask_shape.{number}"])
        bits = np.unpackbits(golden[f"{case}.mask.{number}"])[: np.prod(shape)].reshape(shape).astype(bool)
        assert (found[number] != bits).mean() <= WRONG_PIXELS


def test_a_question_in_words_gets_words(golden: Golden, engine: Sa2VAEngine) -> None:
    heard = Heard(list(engine.chat(ChatRequest(str(golden["text.prompt"])))))
    assert heard.answer.text + "<|im_end|>" == str(golden["text.text"])


@pytest.mark.parametrize(("case", "upstream"), [("image", 2), ("video", 26)])
def test_each_frame_is_encoded_once_however_many_objects(
    golden: Golden, qwen3_folder: Path, case: str, upstream: int
) -> None:
    engine = load_engine(qwen3_folder)
    frames = pictures(golden, case)
    heard = Heard(list(segment(engine, str(golden[f"{case}.prompt"]), frames)))
    assert heard.answer.objects == 2
    assert engine._model.model.sam2.encoder_calls == len(frames) < upstream == golden[f"{case}.encoder_calls"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_says_the_same_and_moves_masks_little(
    golden: Golden, qwen3_folder: Path, dtype: str
) -> None:
    engine = load_engine(qwen3_folder, dtype=dtype)
    assert engine.info.dtype == dtype
    heard = Heard(list(segment(engine, str(golden["video.prompt"]), pictures(golden, "video"))))
    assert heard.answer.text + "<|im_end|>" == str(golden["video.text"])
    for number in range(2):
        same = (heard.logits[number] > 0) == (golden[f"video.low_res_logits.{number}"] > 0)
        # Where two of the decoder's candidates are almost equally good, rounding may choose the other one.
        assert np.median(same.mean(axis=(1, 2))) >= 0.97
