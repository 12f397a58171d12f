"""A checkpoint folder that brings its own code (`brought/`), with weights made here."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, dynamic_module_utils

HERE = Path(__file__).parent
PARITY = HERE.parent / "parity" / "internvl"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")


@pytest.fixture(scope="session", autouse=True)
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where transformers copies foreign code to before it imports it; workers are told too."""
    folder = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(folder))
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        patch.setenv("HF_MODULES_CACHE", str(folder))
        yield folder


def write_brought(folder: Path) -> Path:
    """Code, configuration, tokenizer and random weights of a model that says `S[SEG]a[SEG]`."""
    shutil.copytree(HERE / "brought", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in TOKENIZER:
        shutil.copy(PARITY / name, folder)
    bias = json.loads((PARITY / "generation_config.json").read_text())["sequence_bias"]
    config = {
        "model_type": "sa2va_chat",
        "auto_map": {
            "AutoConfig": "configuration_brought.BroughtConfig",
            "AutoModel": "modeling_brought.BroughtModel",
        },
        "llm_config": {
            "model_type": "mistral",
            "vocab_size": 308,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
        },
        "sequence_bias": bias,
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(7)
    settings = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model: Any = AutoModel.from_config(settings, trust_remote_code=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One such folder that no test changes."""
    return write_brought(tmp_path_factory.mktemp("models") / "brought-7b")


@pytest.fixture
def changed(brought: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of it with other values in a JSON file; None takes one out."""

    def change(file: str = "config.json", **values: object) -> Path:
        # transformers knows code by its folder's name, and imports it once for each.
        folder = shutil.copytree(brought, tmp_path / tmp_path.name)
        content = {**json.loads((folder / file).read_text()), **values}
        (folder / file).write_text(
            json.dumps({name: value for name, value in content.items() if value is not None})
        )
        return folder

    return change
