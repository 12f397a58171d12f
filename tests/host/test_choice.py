"""Which model answers when nobody named one, and that the reason is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from sa2va_host.config import ModelSettings, Settings
from sa2va_host.errors import ModelNotFound
from sa2va_host.models.choice import BUNDLED, LARGE, Choice, choose, gpu_memory, specify


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
    folder = Path(settings.model_folders[0]) / LARGE
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "sa2va_chat"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_model_that_was_named_needs_no_reason(settings: Settings) -> None:
    assert choose(Settings(model="some/model"), gigabytes(80)) == Choice("some/model", "")


def test_a_gpu_with_room_gets_the_large_checkpoint(settings: Settings, large: Path) -> None:
    choice = choose(settings, gigabytes(24))
    assert choice.model == LARGE
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
        ("auto", 8, "has 8 GB"),
        ("cuda:0", 0, "no NVIDIA GPU"),
        ("cpu", 80, "device is cpu"),
        ("mps", 80, "device is mps"),
    ],
)
def test_a_machine_without_such_a_gpu_gets_the_bundled_one(
    settings: Settings, large: Path, device: str, memory: float, reason: str
) -> None:
    choice = choose(Settings(device=device, model_folders=settings.model_folders), gigabytes(memory))
    assert choice.model == BUNDLED
    assert reason in choice.reason
    assert LARGE in choice.reason


def test_nothing_is_fetched_but_the_command_is_told(settings: Settings, tmp_path: Path) -> None:
    choice = choose(settings, gigabytes(24))
    assert choice.model == BUNDLED
    assert f"`sa2va pull {LARGE}`" in choice.reason
    assert not (tmp_path / "hub").exists()


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
