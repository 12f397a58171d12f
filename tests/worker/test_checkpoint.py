"""Checkpoint folders: what fits is loaded whole, what does not is named, what could run code is not opened."""

from __future__ import annotations

import codecs
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.generation import Generation
from sa2va_host.models.checkpoint_folder import INDEX, NATIVE
from sa2va_host.protocol.specification import Specification
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.extensions import PluginEngine
from sa2va_worker.models import families
from sa2va_worker.models.checkpoint import Checkpoint, find_folder
from sa2va_worker.models.names import disk_name, our_name, row
from sa2va_worker.models.qwen_front import QwenFront
from sa2va_worker.models.sa2va import build, load
from sa2va_worker.models.vocabulary import TOKENIZER_FILES, load_qwen_tokenizer
from sa2va_worker.steps import Answer, ChatRequest
from tests.parity.weights import HERE, SHAPES, write_checkpoint


def load_all(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    for _ in load(build(checkpoint, torch.device("cpu"), torch.float32), checkpoint):
        pass


@pytest.fixture
def folder(qwen3_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen3_folder, tmp_path / "copy"))


def test_every_on_disk_name_has_a_place_and_comes_back() -> None:
    names = json.loads((HERE / "qwen3" / SHAPES).read_text())
    ours = [our_name(name) for name in names]
    assert len(set(ours)) == len(ours)
    assert [disk_name(name) for name in ours] == list(names)


def test_rows_of_a_table_are_told_from_whole_tensors() -> None:
    assert row("a.b[3]") == ("a.b", 3)
    assert row("a.b") == ("a.b", None)


def test_shards_load_like_one_file(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts: dict[str, dict[str, np.ndarray]] = {"a.safetensors": {}, "b.safetensors": {}}
    for number, (name, values) in enumerate(whole.items()):
        parts[("a.safetensors", "b.safetensors")[number % 2]][name] = values
    for file, tensors in parts.items():
        save_file(tensors, folder / file)
    weight_map = {name: file for file, tensors in parts.items() for name in tensors}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    load_all(folder)


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    twice = next(iter(whole))
    save_file({twice: whole[twice]}, folder / "b.safetensors")
    weight_map = dict.fromkeys(whole, "a.safetensors") | {twice: "b.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelLoadFailed, match=rf"^{re.escape(twice)} is in [ab]\.safetensors and in"):
        load_all(folder)


def edit_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_missing_and_unknown_tensors_are_named(folder: Path) -> None:
    def rename(tensors: dict[str, np.ndarray]) -> None:
        tensors["text_hidden_fcs.7.bias"] = tensors.pop("text_hidden_fcs.2.bias")

    edit_weights(folder, rename)
    with pytest.raises(ModelLoadFailed) as failure:
        load_all(folder)
    assert "text_hidden_fcs.2.bias" in str(failure.value)
    assert "text_hidden_fcs.7.bias" in str(failure.value)


def loaded(folder: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights of a folder as the model has them, and the notes about its names."""
    checkpoint = Checkpoint(folder)
    model = build(checkpoint, torch.device("cpu"), torch.float32)
    for _ in load(model, checkpoint):
        pass
    return model.state_dict(), checkpoint.notes


def wrap(tensors: dict[str, np.ndarray], prefix: str, of: Callable[[str], bool] = lambda name: True) -> None:
    for name in [name for name in tensors if of(name)]:
        tensors[prefix + name] = tensors.pop(name)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "base_model.model.",
        "module._orig_mod.",
        "base_model.model.module.",
        "_orig_mod.base_model.model.model.",
        "mllm.",
    ],
)
def test_a_prefix_that_all_names_share_is_passed_over_with_a_note(folder: Path, prefix: str) -> None:
    expected, none = loaded(folder)
    assert none == []
    edit_weights(folder, lambda tensors: wrap(tensors, prefix))
    weights, notes = loaded(folder)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], values) for name, values in expected.items())
    (note,) = notes
    assert prefix.replace("_orig_mod.", "") in note
    assert ("_orig_mod." in prefix) == ("'_orig_mod.'" in note)


def test_a_compiled_part_is_loaded(folder: Path) -> None:
    expected, _ = loaded(folder)

    def compiled(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if name.startswith("grounding_encoder.sam2_model.")]:
            tensors[name.replace("sam2_model.", "sam2_model._orig_mod.")] = tensors.pop(name)

    edit_weights(folder, compiled)
    weights, notes = loaded(folder)
    assert all(torch.equal(weights[name], values) for name, values in expected.items())
    assert len(notes) == 1


def test_a_prefix_of_some_names_is_not_passed_over(folder: Path) -> None:
    edit_weights(folder, lambda tensors: wrap(tensors, "module.", lambda name: name.startswith("model.")))
    with pytest.raises(ModelLoadFailed, match=r"tensors unknown \(module\.model\.") as failure:
        load_all(folder)
    assert "fine-tune" in failure.value.advice


@pytest.mark.parametrize("family", ["qwen3", "internlm2"])
def test_tables_that_every_model_computes_are_passed_over_with_a_note(tmp_path: Path, family: str) -> None:
    folder = write_checkpoint(family, tmp_path / family)
    expected, _ = loaded(folder)
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
        "language_model.model.layers.0.attention.rotary_emb.inv_freq": np.ones(8, np.float32),
        "vision_model.embeddings.position_ids": np.arange(4)[None],
    }
    edit_weights(folder, lambda tensors: tensors.update(extra))
    weights, (note,) = loaded(folder)
    assert all(torch.equal(weights[name], values) for name, values in expected.items())
    assert note.startswith("3 tensors are passed over")
    assert "rotary_emb.inv_freq" in note


@pytest.mark.parametrize("family", ["qwen3", "internlm2"])
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("v_head.summary.weight", "value or reward head"),
        ("base_model.v_head.weight", "value or reward head"),
        ("model.lm_head.lora_A.default.weight", "merge_and_unload"),
        ("language_model.model.layers.0.attention.wqkv.lora_B.weight", "merge_and_unload"),
        ("text_hidden_fcs.0.base_layer.weight", "merge_and_unload"),
        ("model.lm_head.weight_scale_inv", "rounded weights"),
        ("something.of.mine", "If it is a fine-tune"),
    ],
)
def test_an_unknown_tensor_comes_with_advice_for_a_fine_tune(
    tmp_path: Path, family: str, name: str, advice: str
) -> None:
    folder = write_checkpoint(family, tmp_path / family)
    edit_weights(folder, lambda tensors: tensors.update({name: np.ones((4, 4), np.float32)}))
    with pytest.raises(ModelLoadFailed, match=rf"1 tensor unknown \({re.escape(name)}\)") as failure:
        load_all(folder)
    assert advice in failure.value.advice
    assert "Fetch the checkpoint again" not in failure.value.advice


def test_notes_are_logged_and_travel_with_every_answer(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit_weights(folder, lambda tensors: wrap(tensors, "module."))
    engine = Sa2VAEngine()
    with caplog.at_level("WARNING", "sa2va_worker"):
        for _ in engine.load(Specification(checkpoint=str(folder), device="cpu", dtype="float32")):
            pass
    (note,) = Checkpoint(folder).notes
    assert f"copy: {note}" in caplog.messages
    request = ChatRequest("hello", [], generation=Generation(max_new_tokens=1))
    answers = [step for step in engine.chat(request) if isinstance(step, Answer)]
    assert [list(answer.notes) for answer in answers] == [[note]]


def test_an_adapter_alone_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "ByteDance/Sa2VA-4B"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelLoadFailed, match=r"adapter alone of ByteDance/Sa2VA-4B\. .*merge_and_unload"):
        find_folder(str(tmp_path))


def test_files_with_a_byte_order_mark_are_read(folder: Path) -> None:
    for file in folder.glob("*.json"):
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    checkpoint = Checkpoint(folder)
    load_all(folder)
    front = families.family(checkpoint.config).front(checkpoint)
    assert front.segment_token is not None
    assert front.decode([front.segment_token]) == "[SEG]"


def test_a_pointer_of_git_lfs_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    with pytest.raises(ModelLoadFailed, match=r"model\.safetensors is a pointer of Git LFS.*git lfs pull"):
        load_all(folder)


def to_sam3(folder: Path) -> None:
    edit_weights(
        folder,
        lambda tensors: tensors.update(
            {"grounding_encoder.sam2_model.backbone.vision_backbone.trunk.pos_embed": np.ones(2, np.float32)}
        ),
    )


def to_llava(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["llm_config"] = {"model_type": "llama"}
    del config["text_config"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("change", "said"), [(to_sam3, "SAM 3"), (to_llava, "'llama'")])
@pytest.mark.parametrize("engine", [Sa2VAEngine, PluginEngine])
def test_what_is_known_not_to_run_is_refused_before_it_is_read(
    folder: Path,
    change: Callable[[Path], None],
    said: str,
    engine: Callable[[], Sa2VAEngine | PluginEngine],
) -> None:
    change(folder)
    with pytest.raises(ModelLoadFailed, match=said) as failure:
        next(engine().load(Specification(checkpoint=str(folder), device="cpu")))
    assert "Fetch" not in str(failure.value)
    assert "sa2va models --all" in failure.value.advice


def test_the_host_knows_the_families_that_the_worker_has() -> None:
    ours = [(family.part, family.model_type) for family in families.FAMILIES if family.segments]
    assert sorted(ours) == sorted(NATIVE)


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"text_hidden_fcs.2.bias": np.zeros(7, np.float32)}))
    with pytest.raises(ModelLoadFailed, match=r"text_hidden_fcs\.2\.bias has shape \(7,\)"):
        load_all(folder)


def test_whole_numbers_in_the_place_of_weights_are_named(folder: Path) -> None:
    def quantize(tensors: dict[str, np.ndarray]) -> None:
        tensors["text_hidden_fcs.2.bias"] = tensors["text_hidden_fcs.2.bias"].astype(np.int8)

    edit_weights(folder, quantize)
    with pytest.raises(ModelLoadFailed, match=r"text_hidden_fcs\.2\.bias in .* holds int8 numbers"):
        load_all(folder)


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("config.json", {"sam2_config": {"image_size": 0}}, "sam2_config.image_size is 0"),
        ("config.json", {"sam2_config": {"image_size": 100}}, "a multiple of 32"),
        ("config.json", {"sam2_config": {"image_size": "large"}}, "image_size is 'large'"),
        ("config.json", {"max_pixels": 0}, "max_pixels is 0"),
        ("config.json", {"min_pixels": 2000, "max_pixels": 1000}, r"from min_pixels \(2000\) on"),
        ("config.json", {"min_pixels": -1}, "min_pixels is -1"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, r"image_mean is \[0\.5\]"),
        ("preprocessor_config.json", {"image_std": [0.5, 0, 0.5]}, "three numbers above 0"),
        ("config.json", {"vision_config": {"temporal_patch_size": None}}, "temporal_patch_size is None"),
        ("config.json", {"vision_config": {"spatial_merge_size": 0}}, "spatial_merge_size is 0"),
        ("generation_config.json", {"eos_token_id": "stop"}, "eos_token_id is 'stop'"),
        ("generation_config.json", {"eos_token_id": [2, [3]]}, r"eos_token_id is \[2, \[3\]\]"),
    ],
)
def test_settings_that_cannot_be_are_named(
    folder: Path, file: str, changes: dict[str, object], said: str
) -> None:
    content = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    for name, value in changes.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ModelLoadFailed, match=said) as caught:
        QwenFront(Checkpoint(folder))
    assert str(folder / file) in str(caught.value)


def test_a_missing_output_layer_is_the_embedding(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.__delitem__("model.lm_head.weight"))
    checkpoint = Checkpoint(folder)
    model = build(checkpoint, torch.device("cpu"), torch.float32)
    for _ in load(model, checkpoint):
        pass
    language = model.language.model
    assert language.lm_head.weight is language.model.language_model.embed_tokens.weight


def test_everything_in_memory_comes_from_the_files_or_was_computed(folder: Path) -> None:
    """What the allocator gives is filled with NaN first, so that nothing of it can pass for weights or tables."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(4).isnan().all()
        checkpoint = Checkpoint(folder)
        model = build(checkpoint, torch.device("cpu"), torch.float32)
        assert any(parameter.isnan().any() for parameter in model.parameters())
        for _ in load(model, checkpoint):
            pass
    finally:
        torch.use_deterministic_algorithms(False)
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        assert values.isfinite().all(), name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(folder: Path, value: float) -> None:
    edit_weights(folder, lambda tensors: tensors["text_hidden_fcs.2.bias"].__setitem__(3, value))
    with pytest.raises(ModelLoadFailed, match=r"text_hidden_fcs\.2\.bias in .* infinite or no numbers"):
        load_all(folder)


def test_weights_whose_sum_is_too_large_for_the_dtype_are_loaded(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors["text_hidden_fcs.2.bias"].fill(6e4))
    checkpoint = Checkpoint(folder)
    model = build(checkpoint, torch.device("cpu"), torch.float16)
    for _ in load(model, checkpoint):
        pass
    bias = model.get_parameter("text_hidden_fcs.2.bias")
    assert bias.sum().isinf()
    assert bias.eq(6e4).all()


def test_weights_too_large_for_the_dtype_are_named(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors["text_hidden_fcs.2.bias"].__setitem__(3, 1e6))
    load_all(folder)
    checkpoint = Checkpoint(folder)
    with pytest.raises(ModelLoadFailed, match=r"text_hidden_fcs\.2\.bias in .* in float16") as caught:
        for _ in load(build(checkpoint, torch.device("cpu"), torch.float16), checkpoint):
            pass
    assert "bfloat16" in caught.value.advice


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("text_config", {"vocab_size": 10**12}, r"has shape \(308, 64\)"),
        ("text_config", {"hidden_size": 10**9}, "has shape"),
        ("text_config", {"num_hidden_layers": 10**8}, "num_hidden_layers is 100000000"),
        ("text_config", {"num_hidden_layers": 60}, "tensors missing"),
        ("vision_config", {"depth": 10**8}, "depth is 100000000"),
        ("vision_config", {"deepstack_visual_indexes": [0] * 10**5}, "deepstack_visual_indexes is"),
        ("sam2_config", {"stages": [1, 2, 10**8, 1]}, "stages is"),
        ("sam2_config", {"memory_attention_layers": 10**8}, "memory_attention_layers is"),
        ("sam2_config", {"image_size": 32 * 10**6}, "tables of [0-9]+ numbers"),
        ("text_config", {"hidden_act": "telepathy"}, "no model that can be built"),
        ("text_config", {"num_attention_heads": 0}, "no model that can be built"),
        ("text_config", {"hidden_size": -64}, "no model that can be built"),
        ("vision_config", {"spatial_merge_size": "two"}, "no model that can be built"),
    ],
)
def test_settings_that_mean_another_model_are_refused_before_memory_is_taken(
    folder: Path, part: str, changes: dict[str, object], said: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    config[part] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadFailed, match=said) as caught:
        build(Checkpoint(folder), torch.device("cpu"), torch.float32)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 1000


def break_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": "../other/model.safetensors"}}))


def no_shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {}}))


def missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))


def other_family(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["model_type"] = "llama"
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_json, "cannot be read"),
        (cut_weights, "is damaged"),
        (only_pickles, "pickled weights"),
        (no_weights, "holds no weights"),
        (outside, "outside the folder"),
        (no_shards, "no usable weight_map"),
        (missing_shard, "is missing"),
        (other_family, "'llama'"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(
    folder: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(folder)
    with pytest.raises(ModelLoadFailed, match=said):
        load_all(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "holds no tokenizer"),
        (b"{", "cannot be loaded"),
        (b"\xff\xfe", "cannot be loaded"),
        (b'{"version": "1.0", "model": {"type": "none"}}', "cannot be loaded"),
    ],
)
def test_a_tokenizer_that_is_absent_or_damaged_is_named(
    folder: Path, content: bytes | None, said: str
) -> None:
    for name in TOKENIZER_FILES:
        (folder / name).unlink()
    if content is not None:
        (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelLoadFailed, match=said) as caught:
        load_qwen_tokenizer(folder)
    assert str(folder) in caught.value.message


def test_a_tokenizer_without_seg_is_no_sa2va(folder: Path) -> None:
    from sa2va_worker.models.conversation import Conversation

    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace("[SEG]", "[GES]"), encoding="utf-8")
    with pytest.raises(ModelLoadFailed, match=r"no \[SEG\] token"):
        Conversation(folder, 6)


@pytest.mark.parametrize("family", ["qwen3", "internvl"])
def test_a_model_that_was_not_resized_for_seg_is_refused(tmp_path: Path, family: str) -> None:
    folder = write_checkpoint(family, tmp_path / family)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    beyond = len(vocabulary)
    vocabulary["something else"] = vocabulary.pop("[SEG]")
    for token in tokenizer["added_tokens"]:
        if token["content"] == "[SEG]":
            token["id"] = beyond
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    checkpoint = Checkpoint(folder)
    with pytest.raises(ModelLoadFailed, match=rf"\[SEG\] is token {beyond} .* has {beyond} tokens"):
        families.family(checkpoint.config).front(checkpoint)
