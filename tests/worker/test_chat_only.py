"""Checkpoints without SAM2: plain Qwen-VL and Qwen models answer in words, and say so when asked for masks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from sa2va_host import Sa2VA
from sa2va_host.errors import InvalidInput, ModelLoadFailed
from sa2va_host.generation import GREEDY, Generation
from sa2va_host.models.checkpoint_folder import INDEX
from sa2va_host.protocol.limits import Turn
from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.qwen_front import QwenFront
from sa2va_worker.models.sampling import Sampler
from sa2va_worker.steps import ChatRequest, Picture, SegmentRequest
from tests.parity.weights import HERE
from tests.worker.conftest import Heard, load_engine

TOKENS = 12
IDS: dict[str, Any] = {
    "image_token_id": 6,
    "video_token_id": 7,
    "vision_start_token_id": 3,
    "vision_end_token_id": 4,
}
TEXT: dict[str, Any] = {
    "vocab_size": 308,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 4,
    "out_hidden_size": 64,
    "initializer_range": 0.2,
}


def qwen2() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**TEXT))


def qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**TEXT, head_dim=16, tie_word_embeddings=True))


def qwen25_vl() -> PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3]}
    vision = {**VISION, "fullatt_block_indexes": [1]}
    config = Qwen2_5_VLConfig(text_config={**TEXT, "rope_scaling": rope}, vision_config=vision, **IDS)
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl() -> PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    text = {**TEXT, "head_dim": 16, "rope_scaling": rope}
    vision = {**VISION, "deepstack_visual_indexes": [0]}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **IDS)
    return Qwen3VLForConditionalGeneration(config)


Make = Callable[[], PreTrainedModel]
READING: tuple[Make, ...] = (qwen2, qwen3)
SEEING: tuple[Make, ...] = (qwen25_vl, qwen3_vl)


def made(make: Make) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = make().eval()
    return model


def write(model: PreTrainedModel, folder: Path, **settings: Any) -> Path:
    """The folder of a checkpoint as transformers writes it, with tokenizer and image processor of the parity data."""
    model.save_pretrained(folder, **settings)
    for name in (
        "chat_template.jinja",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ):
        shutil.copy(HERE / "qwen3" / name, folder)
    family = "qwen25" if model.config.model_type == "qwen2_5_vl" else "qwen3"
    shutil.copy(HERE / family / "preprocessor_config.json", folder)
    return folder


def picture() -> Picture:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


CASES = [(make, False) for make in (*READING, *SEEING)] + [(make, True) for make in SEEING]


@pytest.mark.parametrize(("make", "sees"), CASES)
def test_it_says_what_transformers_own_generate_says(make: Make, tmp_path: Path, sees: bool) -> None:
    model = made(make)
    loaded = load_engine(write(model, tmp_path))._model
    utterance, patches = loaded.front.prepare("what is it?", [picture()] if sees else [])
    ids = torch.tensor([utterance.prompt_ids])
    seen: dict[str, Any] = {}
    if patches is not None:
        seen = {"pixel_values": patches.values, "image_grid_thw": patches.grids}
        seen["mm_token_type_ids"] = (ids == IDS["image_token_id"]).int()
    wanted = model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=0,
        **seen,
    )[0, ids.shape[1] :].tolist()
    sampler = Sampler(GREEDY, loaded.front.defaults)
    end_tokens = loaded.front.end_tokens
    assert list(loaded.model.language.speak(utterance, patches, sampler, None, end_tokens, TOKENS)) == wanted
    assert len(set(wanted)) > 2


@pytest.mark.parametrize("make", [*READING, *SEEING])
def test_it_says_that_it_makes_no_masks(make: Make, tmp_path: Path) -> None:
    model = made(make)
    engine = load_engine(write(model, tmp_path))
    assert engine.info.family == model.config.model_type
    assert (engine.info.image_size, engine.info.mask_size) == (0, 0)

    class Untouched:
        image_size = 0

        @property
        def finished(self) -> bool:
            raise AssertionError("a frame was asked for")

        def get(self) -> Picture | None:
            raise AssertionError("a frame was asked for")

    with pytest.raises(InvalidInput, match="makes no masks"):
        engine.segment(SegmentRequest(["the dog"], [picture()]), Untouched())


@pytest.mark.parametrize("make", [*READING, *SEEING])
def test_several_files_load_like_one(make: Make, tmp_path: Path) -> None:
    model = made(make)
    whole = load_engine(write(model, tmp_path / "whole"))
    split = load_engine(write(model, tmp_path / "split", max_shard_size="50KB"))
    assert len(set(json.loads((tmp_path / "split" / INDEX).read_text())["weight_map"].values())) > 2
    tensors = zip(
        whole._model.model.state_dict().items(), split._model.model.state_dict().items(), strict=True
    )
    for (name, ours), (other, theirs) in tensors:
        assert name == other
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("make", READING)
def test_a_model_that_reads_words_alone_refuses_pictures(make: Make, tmp_path: Path) -> None:
    engine = load_engine(write(make(), tmp_path))
    with pytest.raises(InvalidInput, match="sees no pictures"):
        list(engine.chat(ChatRequest("what is it?", [picture()])))


@pytest.mark.parametrize("make", [qwen2, qwen3_vl])
def test_earlier_turns_are_words(make: Make, tmp_path: Path) -> None:
    engine = load_engine(write(make(), tmp_path))
    history = [Turn("the dog", "It is [SEG].")]
    utterance, _ = engine._model.front.prepare("and now?", [], history)
    assert "It is [SEG]." in engine._model.front.decode(utterance.prompt_ids)
    request = ChatRequest("and now?", history=history, generation=Generation(max_new_tokens=2))
    assert Heard(list(engine.chat(request))).answer.objects == 0


def test_early_qwen25_vl_settings_at_the_top_mean_the_same(tmp_path: Path) -> None:
    """As the Qwen2.5-VL checkpoints on the hub have them."""
    nested = load_engine(write(made(qwen25_vl), tmp_path / "nested"))
    flat = Path(shutil.copytree(tmp_path / "nested", tmp_path / "flat"))
    config = json.loads((flat / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    del text["model_type"]
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    config |= text | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    (flat / "config.json").write_text(json.dumps(config))
    request = ChatRequest("what is it?", [picture()], generation=Generation(max_new_tokens=TOKENS))
    said = [Heard(list(engine.chat(request))).answer.text for engine in (nested, load_engine(flat))]
    assert said[0] == said[1]


def test_a_folders_name_makes_no_sa2va(tmp_path: Path) -> None:
    folder = write(qwen3_vl(), tmp_path / "Sa2VA-Qwen3-VL-4B")
    assert load_engine(folder).info.image_size == 0


def test_a_word_in_its_settings_makes_no_sa2va_either(tmp_path: Path) -> None:
    folder = write(qwen3_vl(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "sa2va_chat"}))
    with pytest.raises(ModelLoadFailed, match="tensors missing"):
        load_engine(folder)


def test_regions_are_refused_where_the_family_has_none(tmp_path: Path) -> None:
    folder = write(qwen3_vl(), tmp_path)
    front = QwenFront(Checkpoint(folder), segments=False)
    with pytest.raises(InvalidInput, match="no region prompts"):
        front.prepare("what is it?", [picture()], regions=[np.ones((60, 90), bool)])


def test_through_the_front_door_masks_are_refused_and_words_are_not(tmp_path: Path) -> None:
    folder = write(made(qwen3_vl), tmp_path / "plain")
    with Sa2VA(str(folder), device="cpu", keep_alive=60) as model:
        info = model.load()
        assert (info.family, info.image_size, info.mask_size) == ("qwen3_vl", 0, 0)
        with pytest.raises(InvalidInput, match="plain answers in words alone"):
            model.segment(picture(), "the dog")
        assert model.chat("what is it?", picture(), generation=Generation(max_new_tokens=TOKENS)).text
        model.unload()
