"""InternVL: what its front writes, what its files mean, and Sa2VA-i's two mask decoders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from sa2va_host.errors import InvalidInput, ModelLoadFailed
from sa2va_host.protocol.limits import Turn
from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.internlm2 import llama_config, unpack_language
from sa2va_worker.models.internvl_front import InternVLFront
from sa2va_worker.models.internvl_vision import vision_config
from sa2va_worker.models.names import DECODER, FINE_TUNED_DECODER
from tests.parity.weights import ANSWERS, HERE, tensor, write_checkpoint
from tests.worker.conftest import Heard, load_engine, segment

FOLDER = HERE / "internvl"
SPECIAL = range(16)
QUESTION = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
TILE = "<IMG_CONTEXT>" * 256


@pytest.fixture(scope="module")
def front() -> InternVLFront:
    return InternVLFront(Checkpoint(FOLDER))


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.zeros((448, 448, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the parity checkpoint without its weights."""
    for file in FOLDER.iterdir():
        if file.name != ANSWERS:
            shutil.copy(file, tmp_path)
    return tmp_path


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def written(front: InternVLFront, prompt: str, pictures: list[Any], **more: Any) -> str:
    return front.decode(front.prepare(prompt, pictures, **more)[0].prompt_ids)


def test_a_picture_stands_where_the_prompt_says_or_before_it(
    front: InternVLFront, picture: NDArray[np.uint8]
) -> None:
    shown = f"<img>{TILE}</img>"
    assert written(front, "<image>the dog", [picture]) == QUESTION.format(f"{shown}the dog")
    assert written(front, "the dog", [picture]) == QUESTION.format(f"{shown}the dog")
    assert written(front, "see <image>: the dog", [picture]) == QUESTION.format(f"see {shown}: the dog")
    assert written(front, "<image>a<image>b", [picture]) == QUESTION.format(f"{shown}ab")
    assert written(front, "<image>the dog", []) == QUESTION.format("the dog")


def test_frames_stand_one_below_the_other(front: InternVLFront, picture: NDArray[np.uint8]) -> None:
    shown = "\n".join([f"<img>{TILE}</img>"] * 3)
    assert written(front, "<image>the dog", [picture] * 3) == QUESTION.format(f"{shown}the dog")


def test_regions_are_listed_after_the_picture(front: InternVLFront, picture: NDArray[np.uint8]) -> None:
    top, all_of_it = np.zeros((448, 448), bool), np.ones((448, 448), bool)
    top[:28] = True
    seen = "<IMG_CONTEXT>" * 16
    assert written(front, "<image>what is region1?", [picture], regions=[top, all_of_it]) == QUESTION.format(
        f"<img>{TILE}</img>\nThere are 2 part regions in the picture: "
        f"region1<vp>{seen}</vp>, region2<vp>{TILE}</vp>.\nwhat is region1?"
    )
    with pytest.raises(InvalidInput, match="0 were given"):
        front.prepare("what is region1?", [], regions=[top])


@pytest.mark.parametrize(
    "typed",
    ["[SEG]", "<|im_end|>", "<img><IMG_CONTEXT></img>", "<vp><IMG_CONTEXT></vp>", "a<|im_start|>b <p>c</p>"],
)
def test_special_tokens_typed_by_the_user_stay_text(
    front: InternVLFront, picture: NDArray[np.uint8], typed: str
) -> None:
    def special(prompt: str, history: list[Turn]) -> list[int]:
        ids = front.prepare(prompt, [picture], history)[0].prompt_ids
        return [token for token in ids if token in SPECIAL]

    assert special(typed, []) == special("x", [])
    assert special(f"see <image>{typed}", []) == special("x", [])
    plain = [Turn("x", "x")]
    assert special("x", [Turn(typed, "x")]) == special("x", plain)
    assert special("x", [Turn("x", typed.replace("[SEG]", "<img>"))]) == special("x", plain)
    assert typed in written(front, typed, [picture])


def test_pictures_stand_in_the_first_turn_and_answers_keep_their_objects(
    front: InternVLFront, picture: NDArray[np.uint8]
) -> None:
    history = [Turn("<image>the dog", "It is [SEG].")]
    ids = front.prepare("what colour?", [picture], history)[0].prompt_ids
    assert front.decode(ids) == (
        QUESTION.format(f"<img>{TILE}</img>the dog")
        + "It is [SEG].<|im_end|>\n"
        + QUESTION.format("what colour?")
    )
    assert ids.count(front.segment_token or 0) == 1


def test_a_tokenizer_in_several_files_says_the_same(folder: Path, front: InternVLFront) -> None:
    words = "<image>the [SEG] of the dog<|im_end|>"
    whole = front.prepare(words, [])[0]
    (folder / "tokenizer.json").unlink()
    assert InternVLFront(Checkpoint(folder)).prepare(words, [])[0] == whole


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "vicuna"}, "template is 'vicuna' .* qwen_chat or internlm2_chat"),
        ({"force_image_size": 450}, "force_image_size is 450 .* multiple of the patch size"),
        ({"downsample_ratio": 0.3}, r"downsample_ratio is 0\.3"),
        ({"max_dynamic_patch": 10**9}, "max_dynamic_patch is 1000000000"),
        ({"min_dynamic_patch": 13}, "max_dynamic_patch is 12 .* from 13"),
        ({"vision_config": {"patch_size": 0}}, "patch_size is 0"),
    ],
)
def test_settings_that_cannot_be_are_named(folder: Path, changes: dict[str, object], said: str) -> None:
    change(folder, **changes)
    with pytest.raises(ModelLoadFailed, match=said):
        InternVLFront(Checkpoint(folder))


def test_a_tokenizer_without_the_templates_tokens_is_refused(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace("IMG_CONTEXT", "IMG_CONTENT"), encoding="utf-8")
    with pytest.raises(ModelLoadFailed, match="has no <IMG_CONTEXT> token"):
        InternVLFront(Checkpoint(folder))


def test_settings_that_upstream_does_not_save_have_its_defaults() -> None:
    vision = vision_config({"hidden_size": 3200})
    assert (vision.norm_type, vision.use_qk_norm, vision.attention_bias) == ("rms_norm", True, False)
    assert vision_config({"norm_type": "layer_norm", "qk_normalization": False}).use_qk_norm is False
    language = llama_config({"hidden_size": 64, "num_attention_heads": 4})
    assert language.attention_bias is True
    assert language.num_key_value_heads == 4


def test_fused_heads_come_apart_group_by_group() -> None:
    stored = {"num_attention_heads": 4, "num_key_value_heads": 2}
    # Heads of two numbers: for each of the two groups two queries, a key, a value.
    fused = torch.tensor(
        [[10.0], [11], [20], [21], [1], [2], [3], [4], [30], [31], [40], [41], [5], [6], [7], [8]]
    )
    name = "model.layers.0.attention.wqkv.weight"
    parts = {part: values.flatten().tolist() for part, values in unpack_language(stored, name, fused)}
    prefix = "model.layers.0.self_attn."
    assert parts == {
        f"{prefix}q_proj.weight": [10, 11, 20, 21, 30, 31, 40, 41],
        f"{prefix}k_proj.weight": [1, 2, 5, 6],
        f"{prefix}v_proj.weight": [3, 4, 7, 8],
    }


def edited(family: str, out: Path, edit: Callable[[dict[str, NDArray[np.float32]]], None]) -> Path:
    """A parity checkpoint whose weights `edit` has changed."""
    folder = write_checkpoint(family, out / family)
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("internvl", "vision_model.encoder.layers.0.attn.qkv.weight"),
        ("internlm2", "language_model.model.layers.0.attention.wqkv.weight"),
    ],
)
def test_a_fused_tensor_that_cannot_be_taken_apart_is_named(tmp_path: Path, family: str, name: str) -> None:
    def cut(tensors: dict[str, NDArray[np.float32]]) -> None:
        tensors[name] = np.ascontiguousarray(tensors[name][:-1])

    with pytest.raises(ModelLoadFailed, match=f"1 tensor unknown .{name}"):
        load_engine(edited(family, tmp_path, cut))


def with_two_decoders(tensors: dict[str, NDArray[np.float32]]) -> None:
    """The decoder under Sa2VA-i's name for the fine-tuned one, and another as SAM2's own."""
    for name in [name for name in tensors if DECODER in name]:
        tensors[name.replace(DECODER, FINE_TUNED_DECODER)] = tensors[name]
        tensors[name] = tensor(f"original.{name}", tensors[name].shape)


def test_of_two_decoders_the_fine_tuned_one_answers_and_the_original_is_kept(tmp_path: Path) -> None:
    engine = load_engine(edited("internvl", tmp_path, with_two_decoders))
    sam2 = engine._model.sa2va.sam2
    assert sam2.original_decoder is not None
    tuned, original = (
        dict(each.named_parameters()) for each in (sam2.model.mask_decoder, sam2.original_decoder)
    )
    assert tuned.keys() == original.keys()
    stem = f"grounding_encoder.sam2_model.{DECODER}iou_token.weight"
    np.testing.assert_array_equal(tuned["iou_token.weight"], tensor(stem, (1, 256)))
    np.testing.assert_array_equal(original["iou_token.weight"], tensor(f"original.{stem}", (1, 256)))
    with np.load(FOLDER / ANSWERS) as golden:
        heard = Heard(list(segment(engine, str(golden["image.prompt"]), [golden["image"]])))
        wanted = golden["image.low_res_logits.0"]
    assert np.abs(heard.logits[0] - wanted).max() <= 1e-3 * wanted.std()


def test_the_vision_tower_has_sdpa_and_the_language_model_what_was_asked(tmp_path: Path) -> None:
    folder = write_checkpoint("internvl", tmp_path / "internvl")
    for attention in ("eager", "sdpa"):
        model = load_engine(folder, attention=attention)._model.sa2va
        parts = model.language.model.model.vision_tower, model.language.model.model.language_model
        assert [part.config._attn_implementation for part in parts] == ["sdpa", attention]


def test_half_of_a_second_decoder_is_missed(tmp_path: Path) -> None:
    def cut(tensors: dict[str, NDArray[np.float32]]) -> None:
        with_two_decoders(tensors)
        del tensors[f"grounding_encoder.sam2_model.{DECODER}iou_token.weight"]

    with pytest.raises(ModelLoadFailed, match=r"1 tensor missing .sam2\.original_decoder\.iou_token\.weight"):
        load_engine(edited("internvl", tmp_path, cut))


def test_another_pixel_shuffle_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint("internvl", tmp_path / "internvl")
    change(folder, ps_version="v1")
    with pytest.raises(ModelLoadFailed, match="ps_version is 'v1'"):
        load_engine(folder)
