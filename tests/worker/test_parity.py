"""The native model answers what upstream's own code answers: `tests/parity` holds the weights and the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sa2va_host.errors import InvalidInput
from sa2va_host.generation import GREEDY, MAX_NEW_TOKENS
from sa2va_host.masks import masks
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.models.language import Utterance
from sa2va_worker.models.pictures import Patches, square
from sa2va_worker.models.sampling import Sampler
from sa2va_worker.models.tiles import Tiles
from sa2va_worker.models.tracker import Tracker
from sa2va_worker.steps import ChatRequest, Said
from tests.parity.weights import ANSWERS, HERE, write_checkpoint
from tests.worker.conftest import Heard, load_engine, segment

Golden = Mapping[str, Any]
TOLERANCE = 1e-3
"""Largest difference allowed, in standard deviations of what upstream answered."""
WRONG_PIXELS = 1e-4
FAMILIES = ("qwen3", "qwen25", "internvl", "internlm2")


@dataclass(frozen=True)
class Family:
    """A parity checkpoint, loaded, and what upstream's code answered with it."""

    folder: Path
    golden: Golden
    engine: Sa2VAEngine


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = write_checkpoint(request.param, tmp_path_factory.mktemp("parity") / request.param)
    with np.load(HERE / request.param / ANSWERS) as answers:
        return Family(folder, dict(answers), load_engine(folder))


def pictures(golden: Golden, case: str) -> list[Any]:
    if case == "fast":
        return [golden["fast.image"]]
    return {"image": [golden["image"]], "video": list(golden["frames"]), "text": []}[case]


def vectors(
    family: Family, utterance: Utterance, seen: object, case: str, earlier: Utterance | None = None
) -> torch.Tensor:
    """Let the model speak, hold what it says and the objects' prompts `[objects, 256]` to upstream's; returns these."""
    golden, loaded = family.golden, family.engine._model
    front, model = loaded.front, loaded.sa2va
    assert utterance.prompt_ids == golden[f"{case}.input_ids"][0].tolist()
    sampler = Sampler(GREEDY, front.defaults)
    for _ in model.language.speak(
        utterance, seen, sampler, front.segment_token, front.end_tokens, MAX_NEW_TOKENS, earlier
    ):
        pass
    said = utterance.token_ids
    assert golden[f"{case}.output_ids"].tolist() in (said, utterance.prompt_ids + said)
    with torch.inference_mode():
        prompts = model.prompts(utterance.segment_states)
    for number, vector in enumerate(prompts.numpy() if case != "text" else []):
        wanted = golden[f"{case}.seg_embedding.{number}"]
        assert np.abs(vector - wanted).max() <= TOLERANCE * wanted.std()
    return prompts


def check_masks(golden: Golden, case: str, logits: NDArray[np.float32], image_size: int) -> None:
    """Hold logits `[objects, frames, h, w]` and the masks made of them to upstream's."""
    found = masks.binarise(logits, image_size, golden[f"{case}.mask_shape.0"][1:])
    assert len(found) == 2
    for number in range(2):
        wanted = golden[f"{case}.low_res_logits.{number}"]
        assert np.abs(logits[number] - wanted).max() <= TOLERANCE * wanted.std()
        shape = tuple(golden[f"{case}.mask_shape.{number}"])
        bits = np.unpackbits(golden[f"{case}.mask.{number}"])[: np.prod(shape)].reshape(shape).astype(bool)
        assert (found[number] != bits).mean() <= WRONG_PIXELS


@pytest.mark.parametrize("case", ["image", "video", "text"])
def test_tokens_and_object_vectors_are_upstreams(family: Family, case: str) -> None:
    golden, front = family.golden, family.engine._model.front
    utterance, seen = front.prepare(str(golden[f"{case}.prompt"]), pictures(golden, case)[:5])
    if isinstance(seen, Patches):
        np.testing.assert_array_equal(seen.grids.numpy(), golden[f"{case}.image_grid_thw"])
        if case == "image":
            np.testing.assert_array_equal(seen.values.numpy(), golden["image.pixel_values"])
    vectors(family, utterance, seen, case)


@pytest.mark.parametrize("case", ["image", "video"])
def test_logits_and_masks_are_upstreams(family: Family, case: str) -> None:
    golden, engine = family.golden, family.engine
    frames = pictures(golden, case)
    heard = Heard(list(segment(engine, str(golden[f"{case}.prompt"]), frames, tracked=case == "video")))
    assert heard.answer.objects == 2
    assert heard.answer.text + "<|im_end|>" == str(golden[f"{case}.text"])
    check_masks(golden, case, heard.logits, engine.info.image_size)


@pytest.mark.parametrize("name", ["qwen3", "qwen25"])
def test_a_folder_that_declares_the_fast_processor_is_answered_as_upstream_does(
    name: str, tmp_path: Path
) -> None:
    folder = write_checkpoint(name, tmp_path / name)
    file = folder / "preprocessor_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"image_processor_type": "Qwen2VLImageProcessorFast"})
    )
    with np.load(HERE / name / ANSWERS) as answers:
        family = Family(folder, dict(answers), load_engine(folder))
    golden, engine = family.golden, family.engine
    prompt, images = str(golden["fast.prompt"]), pictures(golden, "fast")
    utterance, seen = engine._model.front.prepare(prompt, images)
    assert isinstance(seen, Patches)
    np.testing.assert_array_equal(seen.grids.numpy(), golden["fast.image_grid_thw"])
    np.testing.assert_array_equal(seen.values.numpy(), golden["fast.pixel_values"])
    vectors(family, utterance, seen, "fast")
    heard = Heard(list(segment(engine, prompt, images)))
    assert heard.answer.text + "<|im_end|>" == str(golden["fast.text"])
    check_masks(golden, "fast", heard.logits, engine.info.image_size)


@pytest.mark.parametrize("case", ["image", "video"])
def test_the_next_prompt_about_the_same_pictures_reads_its_own_words_alone(family: Family, case: str) -> None:
    golden, loaded = family.golden, family.engine._model
    front, language = loaded.front, loaded.sa2va.language
    first, seen = front.prepare("What is this?", pictures(golden, case)[:5])
    for _ in language.speak(first, seen, Sampler(GREEDY, front.defaults), None, frozenset(), 3):
        pass
    read: list[int] = []
    hook = language.model.get_decoder().register_forward_hook(
        lambda _module, _inputs, output: read.append(output.last_hidden_state.shape[1])
    )
    second, _ = front.prepare(str(golden[f"{case}.prompt"]), pictures(golden, case)[:5])
    vectors(family, second, seen, case, earlier=first)
    hook.remove()
    assert read[0] <= len(second.prompt_ids) - second.pictures_end


@pytest.mark.parametrize("family", ["internvl", "internlm2"], indirect=True)
def test_regions_are_upstreams(family: Family) -> None:
    golden, loaded = family.golden, family.engine._model
    utterance, tiles = loaded.front.prepare(
        str(golden["region.prompt"]), [golden["image"]], regions=list(golden["region.regions"].astype(bool))
    )
    assert isinstance(tiles, Tiles)
    np.testing.assert_array_equal(tiles.values.numpy(), golden["region.pixel_values"])
    prompts = vectors(family, utterance, tiles, "region")
    sam2 = loaded.sa2va.sam2
    with torch.inference_mode():
        picture = torch.from_numpy(square(golden["image"], sam2.image_size).copy())
        features = sam2.encode(sam2.pixels(picture.unsqueeze(0)))
        decoded = Tracker(sam2, prompts).step(features.expand(2), conditioning=True)
    check_masks(golden, "region", decoded.logits.unsqueeze(1).numpy(), sam2.image_size)


def test_a_chat_about_regions(family: Family) -> None:
    golden, engine = family.golden, family.engine
    if "region.prompt" not in golden:
        with pytest.raises(InvalidInput, match="takes no region prompts"):
            list(
                engine.chat(
                    ChatRequest("what is region1?", [golden["image"]], regions=[golden["image"][..., 0] > 0])
                )
            )
        return
    regions = list(golden["region.regions"].astype(bool))
    request = ChatRequest(str(golden["region.prompt"]), [golden["image"]], regions=regions)
    heard = Heard(list(engine.chat(request)))
    assert heard.answer.text + "<|im_end|>" == str(golden["region.text"])


def test_a_question_in_words_gets_words(family: Family) -> None:
    heard = Heard(list(family.engine.chat(ChatRequest(str(family.golden["text.prompt"])))))
    assert heard.answer.text + "<|im_end|>" == str(family.golden["text.text"])


@pytest.mark.parametrize(("case", "upstream"), [("image", 2), ("video", 26)])
def test_each_frame_is_encoded_once_however_many_objects(family: Family, case: str, upstream: int) -> None:
    golden, sam2 = family.golden, family.engine._model.sa2va.sam2
    frames = pictures(golden, case)
    before = sam2.encoder_calls
    heard = Heard(list(segment(family.engine, str(golden[f"{case}.prompt"]), frames)))
    assert heard.answer.objects == 2
    assert sam2.encoder_calls - before == len(frames) < upstream == golden[f"{case}.encoder_calls"]


def test_several_prompts_share_one_picture(family: Family) -> None:
    golden, engine = family.golden, family.engine
    prompt, sam2 = str(golden["image.prompt"]), engine._model.sa2va.sam2
    before = sam2.encoder_calls
    heard = Heard(list(segment(engine, [prompt, "What else?", prompt], [golden["image"]])))
    assert sam2.encoder_calls - before == 1
    said = [step for step in heard.steps if isinstance(step, Said)]
    assert [step.objects for step in said] == [2, 2, 2]
    assert said[0].text == said[2].text == str(golden["image.text"]).removesuffix("<|im_end|>")
    for start in (0, 4):
        check_masks(golden, "image", heard.logits[start : start + 2], engine.info.image_size)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_says_the_same_and_moves_masks_little(family: Family, dtype: str) -> None:
    golden, engine = family.golden, load_engine(family.folder, dtype=dtype)
    assert engine.info.dtype == dtype
    heard = Heard(list(segment(engine, str(golden["video.prompt"]), pictures(golden, "video"))))
    assert heard.answer.text + "<|im_end|>" == str(golden["video.text"])
    for number in range(2):
        same = (heard.logits[number] > 0) == (golden[f"video.low_res_logits.{number}"] > 0)
        # Where two of the decoder's candidates are almost equally good, rounding may choose the other one.
        assert np.median(same.mean(axis=(1, 2))) >= 0.97
