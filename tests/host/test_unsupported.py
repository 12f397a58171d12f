"""Published checkpoints that cannot run here are refused by name before a download, and by content before a worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sa2va_host.config import ModelSettings, Settings
from sa2va_host.errors import ModelLoadFailed, ModelNotFound
from sa2va_host.models import hub, unsupported
from sa2va_host.models.checkpoint_folder import INDEX, CheckpointFolder
from sa2va_host.models.choice import specify
from sa2va_host.models.known_models import TABLE

SAM3, LLAVA, SASASA2VA = "SAM 3", "LLaVA-1.5", "ten [SEG]"
TRUNK = "grounding_encoder.sam2_model.backbone.vision_backbone.trunk.blocks.0.norm1.weight"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def make(folder: Path, *, language: str = "qwen2", tensor: str = "a", shards: int = 0) -> Path:
    """A checkpoint as far as looking at it goes; with ``shards``, an index alone."""
    folder.mkdir(parents=True)
    config = {"model_type": "sa2va_chat", "llm_config": {"model_type": language}}
    (folder / "config.json").write_text(json.dumps(config))
    if shards:
        names = {f"{tensor}.{number}": f"model-{number}.safetensors" for number in range(shards)}
        (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    else:
        header = json.dumps({tensor: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    return folder


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("ByteDance/Sa2VA-Qwen3-VL-4B-SAM3", SAM3),
        ("bytedance/sa2va-qwen3-vl-4b-sam3", SAM3),
        ("HarborYuan/Sa2VA-Qwen3-VL-4B-SAM3", SAM3),
        ("ByteDance/Sa2VA-LLaVA-1.5-7B", LLAVA),
        ("HarborYuan/SA2VA-llava-1.5-7b", LLAVA),
        ("QuanzhuNiu/SaSaSa2VA-4B", SASASA2VA),
        ("QuanzhuNiu/SaSaSa2VA-14B", SASASA2VA),
        ("quanzhuniu/sasasa2va-26b", SASASA2VA),
    ],
)
def test_a_name_is_refused_before_anything_is_fetched(model: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed) as pulled:
        hub.pull(model)
    with pytest.raises(ModelLoadFailed) as named:
        specify(Settings(model=model))
    assert str(pulled.value) == str(named.value)
    assert pulled.value.message.startswith(f"{model} ")
    assert why in pulled.value.message
    assert "Fetch" not in str(pulled.value)
    assert not (tmp_path / "hub").exists()
    folder = make(tmp_path / "models" / model.rpartition("/")[2])
    for settings in (Settings(model=str(folder)), Settings(model=model, model_folders=(str(folder.parent),))):
        with pytest.raises(ModelLoadFailed) as local:
            specify(settings)
        assert why in local.value.message


def test_what_runs_is_not_refused() -> None:
    assert not any(unsupported.refusal(model.name) for model in TABLE)
    for name in (
        "Org/Sa2VA-SAM2.1",
        "me/sam3",
        "me/Sa2VA-4B-SAM30",
        "llava-hf/llava-1.5-7b-hf",
        "sa2va-tiny",
    ):
        assert unsupported.refusal(name) == ""
    with pytest.raises(ModelNotFound, match="sa2va pull Org/Sa2VA-New"):
        specify(Settings(model="Org/Sa2VA-New"))


@pytest.mark.parametrize("shards", [0, 5])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_sam_3_is_recognised_by_its_tensors(tmp_path: Path, shards: int, prefix: str) -> None:
    folder = make(tmp_path / "renamed", tensor=prefix + TRUNK, shards=shards)
    with pytest.raises(ModelLoadFailed, match=r"renamed finds its masks with SAM 3"):
        specify(Settings(model=str(folder)))
    with pytest.raises(ModelLoadFailed, match="SAM 3"):
        specify(Settings(model=str(folder), trust_remote_code=True))
    sam2 = make(
        tmp_path / "other", tensor="grounding_encoder.sam2_model.image_encoder.trunk.blocks.0.norm1.bias"
    )
    assert specify(Settings(model=str(sam2))).checkpoint == str(sam2)


def test_a_llama_is_recognised_and_its_own_code_may_run_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "renamed", language="llama")
    with pytest.raises(ModelLoadFailed, match="'llama'"):
        specify(Settings(model=str(folder)))
    assert specify(Settings(model=str(folder), trust_remote_code=True)).checkpoint == str(folder)


def test_a_snapshot_and_a_name_of_the_settings_are_refused_too(tmp_path: Path, cache: Path) -> None:
    snapshot = make(cache / "models--me--SaSaSa2VA-4B" / "snapshots" / ("a" * 40))
    elsewhere = make(tmp_path / "elsewhere")
    named = {"QuanzhuNiu/SaSaSa2VA-4B": ModelSettings(path=str(elsewhere))}
    for settings in (
        Settings(model=str(snapshot)),
        Settings(model="me/SaSaSa2VA-4B"),
        Settings(model=str(elsewhere), models=named),
    ):
        with pytest.raises(ModelLoadFailed, match=r"ten \[SEG\]"):
            specify(settings)
    assert unsupported.refusal_of(CheckpointFolder(elsewhere)) == "", "under another name it cannot be told"


def test_an_adapter_alone_is_refused_before_a_worker_starts(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "ByteDance/Sa2VA-4B"}')
    with pytest.raises(ModelLoadFailed, match="an adapter alone of ByteDance/Sa2VA-4B"):
        specify(Settings(model=str(tmp_path)))
