"""The attention that a model gets is one that has run here, and the log says which and why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedConfig, Qwen3VLConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from sa2va_host.errors import ModelLoadFailed
from sa2va_worker.attention import FLASH, choose, configure

from .conftest import load_engine

CPU = torch.device("cpu")
LOGGER = "sa2va_worker"


@pytest.fixture
def broken() -> Iterator[str]:
    """An implementation that transformers knows and that cannot run, as a library built for another GPU is."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    ALL_ATTENTION_FUNCTIONS["broken"] = fail
    yield "broken"
    del ALL_ATTENTION_FUNCTIONS["broken"]


@pytest.fixture
def wrong() -> Iterator[str]:
    """An implementation that runs and answers nonsense."""

    def poison(*arguments: Any, **more: Any) -> tuple[torch.Tensor, None]:
        return sdpa_attention_forward(*arguments, **more)[0] * float("nan"), None

    ALL_ATTENTION_FUNCTIONS["wrong"] = poison
    yield "wrong"
    del ALL_ATTENTION_FUNCTIONS["wrong"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_what_is_asked_for_and_runs_is_taken(name: str, dtype: torch.dtype) -> None:
    chosen = choose(name, CPU, dtype)
    assert (chosen.name, chosen.asked) == (name, name)
    assert chosen.reason == f"it runs on cpu in {str(dtype).removeprefix('torch.')}"


def test_auto_is_sdpa_where_flash_attention_has_no_place(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        chosen = choose("auto", CPU, torch.bfloat16)
    assert (chosen.name, chosen.asked) == ("sdpa", "auto")
    assert caplog.record_tuples == [
        (LOGGER, logging.INFO, "attention is sdpa: flash_attention_2 is for CUDA in half precision")
    ]


@pytest.mark.parametrize("asked", [FLASH, "kernels-community/flash-attn2", "kernels-community/none@main:x"])
def test_what_cannot_run_falls_back_with_one_line(asked: str, caplog: pytest.LogCaptureFixture) -> None:
    chosen = choose(asked, CPU, torch.float32)
    assert (chosen.name, chosen.asked) == ("sdpa", asked)
    (line,) = [message for name, _, message in caplog.record_tuples if name == LOGGER]
    assert line.startswith(f"attention is sdpa: {asked} does not run on cpu in float32 (")
    assert "\n" not in line
    assert chosen.details == {"attention_asked": asked, "attention_reason": chosen.reason}


def test_a_failure_inside_the_implementation_is_a_reason_to_fall_back(broken: str) -> None:
    chosen = choose(broken, CPU, torch.float32)
    assert chosen.name == "sdpa"
    assert "RuntimeError: no kernel image is available for execution on the device" in chosen.reason


def test_results_that_are_no_numbers_are_a_failure(wrong: str) -> None:
    chosen = choose(wrong, CPU, torch.float32)
    assert chosen.name == "sdpa"
    assert "ArithmeticError: its results are not finite" in chosen.reason


def test_without_sdpa_the_plain_operations_are_left(broken: str) -> None:
    ALL_ATTENTION_FUNCTIONS["sdpa"] = ALL_ATTENTION_FUNCTIONS[broken]
    try:
        chosen = choose("auto", CPU, torch.float32)
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]  # the library's own is underneath
    assert chosen.name == "eager"
    assert "sdpa does not run on cpu in float32" in chosen.reason
    assert choose("auto", CPU, torch.float32).name == "sdpa"


@pytest.mark.parametrize("asked", ["none", "flash", "../kernel", "a/b/c", ""])
def test_a_word_that_names_no_implementation_is_refused(asked: str) -> None:
    with pytest.raises(
        ModelLoadFailed, match=r"is not supported\. Use one of: auto, flash_attention_2, sdpa"
    ):
        choose(asked, CPU, torch.float32)


def test_trying_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    choose("auto", CPU, torch.float32)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("name", ["eager", FLASH])
def test_a_vision_tower_has_sdpa_whatever_the_language_model_has(name: str) -> None:
    settings = Qwen3VLConfig()
    configure(settings, name)
    language, tower = settings.text_config, settings.vision_config
    assert isinstance(language, PreTrainedConfig)
    assert isinstance(tower, PreTrainedConfig)
    assert (language._attn_implementation, tower._attn_implementation) == (name, "sdpa")


def test_a_loaded_model_says_what_it_uses_and_what_was_asked(qwen3_folder: Path) -> None:
    info = load_engine(qwen3_folder, attention=FLASH).info
    assert info.attention == "sdpa"
    assert info.details["attention_asked"] == FLASH
    assert f"{FLASH} does not run on cpu in float32" in info.details["attention_reason"]


@pytest.mark.gpu
@pytest.mark.parametrize("asked", ["auto", FLASH])
def test_flash_attention_on_a_gpu(asked: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("flash_attn")
    assert choose(asked, torch.device("cuda:0"), torch.bfloat16).name == FLASH
    assert choose(asked, torch.device("cuda:0"), torch.float32).name == "sdpa"
