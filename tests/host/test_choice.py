"""Which model answers when nobody named one, and that the reason is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from sa2va_host.config import ModelSettings, Settings
from sa2va_host.errors import ModelNotFound
from sa2va_host.models.checkpoint_folder import INDEX
from sa2va_host.models.checkpoints import pull_command
from sa2va_host.models.choice import BUNDLED, LARGE, Choice, choose, gpu_memory, recommend, specify


def gigabytes(count: float) -> Callable[[], int]:
    return lambda: int(count * 1e9)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a user without any model but the bundled one."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return Settings(model_folders=(str(tmp_path / "models"),))


@pytest.fixture
def large(settings: Settings) -> Path:
    """The large checkpoint, as far as finding it goes."""
    return make_checkpoint(Path(settings.model_folders[0]) / LARGE)


def make_checkpoint(folder: Path, language: str = "qwen2", shape: Sequence[int] = (2,)) -> Path:
    """A checkpoint, as far as finding it goes: a configuration, and a file with a header and as good as no weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "sa2va_chat",
                "llm_config": {"model_type": language},
                "auto_map": {"AutoModel": "modeling.Model"},
            }
        )
    )
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    return folder


def test_a_model_that_was_named_needs_no_reason(settings: Settings) -> None:
    assert choose(Settings(model="some/model"), gigabytes(80)) == Choice("some/model", "")


def test_a_gpu_with_room_gets_the_large_checkpoint(settings: Settings, large: Path) -> None:
    choice = choose(settings, gigabytes(24))
    assert (choice.model, choice.fallback) == (LARGE, False)
    assert str(large) in choice.reason


def test_a_table_in_the_settings_says_where_the_large_checkpoint_is(
    settings: Settings, large: Path, tmp_path: Path
) -> None:
    elsewhere = large.rename(tmp_path / "elsewhere")
    assert choose(settings, gigabytes(24)).model == BUNDLED
    told = replace(settings, models={LARGE: ModelSettings(path=str(elsewhere))})
    choice = choose(told, gigabytes(24))
    assert choice.model == LARGE
    assert str(elsewhere) in choice.reason


@pytest.mark.parametrize(
    ("device", "memory", "reason"),
    [
        ("auto", 0, "no NVIDIA GPU"),
        ("auto", 8, f"{LARGE} takes about 10.0 GB, and the GPU has 8.0 GB"),
        ("auto", 10, "the GPU has 10.0 GB"),
        ("cuda:0", 0, "no NVIDIA GPU"),
        ("cpu", 80, "device is cpu"),
        ("mps", 80, "device is mps"),
    ],
)
def test_a_machine_without_such_a_gpu_gets_the_bundled_one(
    settings: Settings, large: Path, device: str, memory: float, reason: str
) -> None:
    choice = choose(replace(settings, device=device), gigabytes(memory))
    assert (choice.model, choice.fallback) == (BUNDLED, True)
    assert reason in choice.reason


def test_a_machine_without_a_checkpoint_fetches_none(settings: Settings, tmp_path: Path) -> None:
    choice = choose(settings, gigabytes(24))
    assert choice == Choice(
        BUNDLED, "the GPU has 24.0 GB, but no known checkpoint is on this machine.", fallback=True
    )
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("memory", "quantization", "model"),
    [
        (24, "none", "ByteDance/Sa2VA-8B"),
        (17, "none", LARGE),
        (12, "none", LARGE),
        (9, "none", "ByteDance/Sa2VA-4B"),
        (8, "none", "ByteDance/Sa2VA-InternVL3-2B"),
        (5, "none", BUNDLED),
        (12, "8bit", "ByteDance/Sa2VA-8B"),
        (10, "8bit", LARGE),
        (8, "4bit", "ByteDance/Sa2VA-8B"),
        (25, "4bit", "ByteDance/Sa2VA-26B"),
    ],
)
def test_the_one_with_the_most_parameters_that_fits_is_taken(
    settings: Settings, memory: float, quantization: str, model: str
) -> None:
    """By the published memory, else the computed one: 17.6 GB for the 8B, 8.9 for the 4B."""
    for name in ("InternVL3-2B", "4B", "Qwen3-VL-4B", "InternVL3-8B", "8B", "26B"):
        make_checkpoint(Path(settings.model_folders[0]) / "ByteDance" / f"Sa2VA-{name}")
    assert choose(replace(settings, quantization=quantization), gigabytes(memory)).model == model


def test_of_equals_the_first_of_the_table_is_taken(settings: Settings) -> None:
    for name in ("kumuji/Sa2VA-i-8B", "ByteDance/Sa2VA-8B"):
        make_checkpoint(Path(settings.model_folders[0]) / name)
    assert choose(settings, gigabytes(24)).model == "ByteDance/Sa2VA-8B"


def test_what_is_broken_or_needs_code_of_its_own_or_is_not_supported_is_passed_over(
    settings: Settings, large: Path
) -> None:
    models = Path(settings.model_folders[0])
    half = make_checkpoint(models / "ByteDance/Sa2VA-8B")
    (half / "model.safetensors").rename(half / "model-00001-of-00002.safetensors")
    (half / INDEX).write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    foreign = make_checkpoint(models / "ByteDance/Sa2VA-26B", language="phi3")
    (foreign / "modeling.py").write_text("")
    make_checkpoint(models / "ByteDance/Sa2VA-InternVL3-14B", language="llama")
    make_checkpoint(models / "QuanzhuNiu/SaSaSa2VA-26B")
    unknown = {"QuanzhuNiu/SaSaSa2VA-26B": ModelSettings(), "Org/Sa2VA-Small": ModelSettings()}
    assert choose(replace(settings, models=unknown), gigabytes(80)).model == LARGE


def test_parameters_that_nobody_told_are_counted_in_the_files(settings: Settings, large: Path) -> None:
    own = replace(settings, models={"Org/Tuned": ModelSettings()})
    folder = make_checkpoint(Path(settings.model_folders[0]) / "Org" / "Tuned", shape=[6_000_000, 1000])
    assert choose(own, gigabytes(24)).model == "Org/Tuned"
    assert choose(own, gigabytes(12.9)).model == LARGE, "6 billion parameters take 12 GB, and 1 GB at work"
    (folder / "config.json").write_text(
        '{"model_type": "bright", "auto_map": {"AutoModel": "modeling.Model"}}'
    )
    (folder / "modeling.py").write_text("")
    assert choose(own, gigabytes(24)).model == LARGE, "it can only be run by its own code"


@pytest.mark.parametrize(
    ("memory", "model", "quantization"),
    [
        (85, "ByteDance/Sa2VA-26B", "none"),
        (25.7, "ByteDance/Sa2VA-Qwen2_5-VL-7B", "none"),
        (12.9, LARGE, "none"),
        (8.6, LARGE, "8bit"),
        (6.4, LARGE, "4bit"),
        (4.3, "ByteDance/Sa2VA-Qwen3-VL-2B", "4bit"),
        (1.5, "ByteDance/Sa2VA-1B", "none"),
        (0, "ByteDance/Sa2VA-1B", "none"),
    ],
)
def test_what_to_fetch_is_the_largest_that_fits_and_rounded_where_it_must_be(
    settings: Settings, memory: float, model: str, quantization: str
) -> None:
    told = recommend(settings, gigabytes(memory))
    assert told is not None
    assert (told.model, told.quantization, told.installed) == (model, quantization, False)
    assert told.command == pull_command(model)
    assert told.reason.endswith(".")
    assert (f"--quantization {quantization}" in told.reason) == (quantization != "none")
    assert ("the CPU, which is slow" in told.reason) == (memory < 2)
    if memory > 2:
        make_checkpoint(Path(settings.model_folders[0]) / model)
        then = replace(settings, quantization=quantization)
        assert choose(then, gigabytes(memory)).model == model, "what was fetched is taken"


def test_what_is_here_is_not_fetched_again(settings: Settings, large: Path) -> None:
    told = recommend(settings, gigabytes(8.6))
    assert told is not None
    assert (told.model, told.command) == (LARGE, f"--model {LARGE} --quantization 8bit")
    assert told.installed
    on_cpu = recommend(replace(settings, device="cpu"), gigabytes(80))
    assert on_cpu is not None
    assert (on_cpu.command, on_cpu.installed) == (f"--model {LARGE}", True)
    assert (
        on_cpu.reason
        == "It is on this machine: the device is cpu, so it would run on the CPU, which is slow."
    )


def test_a_revision_of_the_settings_is_in_the_command(settings: Settings) -> None:
    told = recommend(replace(settings, models={LARGE: ModelSettings(revision="v2")}), gigabytes(12.9))
    assert told is not None
    assert told.command == pull_command(LARGE, "v2")


def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert gpu_memory() == 0


def test_settings_without_a_model_name_a_checkpoint_that_is_here(settings: Settings) -> None:
    assert Path(specify(settings).checkpoint).name == BUNDLED


@pytest.mark.gpu
def test_a_real_gpu_tells_its_memory() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    sizes = [
        torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())
    ]
    assert gpu_memory() >= 0.95 * max(sizes)


def test_a_tracker_decoder_is_found_as_models_are_and_belongs_to_the_specification(
    settings: Settings, tmp_path: Path
) -> None:
    repo, commit = tmp_path / "hub" / "models--facebook--sam2-hiera-large", "a" * 40
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "sam2_video"}')
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    named = replace(settings, model=BUNDLED, tracker_decoder="facebook/sam2-hiera-large")
    assert specify(named).tracker_decoder == str(snapshot)
    assert specify(named).key != specify(replace(named, tracker_decoder="")).key
    with pytest.raises(ModelNotFound, match="sa2va pull facebook/sam2-hiera-tiny"):
        specify(replace(named, tracker_decoder="facebook/sam2-hiera-tiny"))
