"""Quantized weights: which layers they are, what they cost in masks, and what a user sees who lacks the library."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sa2va_host.errors import ModelLoadFailed
from sa2va_worker.models import quantization
from sa2va_worker.models.checkpoint import BUNDLED
from tests.worker.conftest import Heard, load_engine, segment
from training.heldout import draw_picture

TINY = BUNDLED / "sa2va-tiny"
PICTURES = [draw_picture(np.random.default_rng(seed), (120, 160)).image for seed in (5, 6)]


@pytest.fixture(scope="module")
def answers() -> list[Heard]:
    """What the bundled model says of the pictures when nothing is rounded."""
    engine = load_engine(TINY)
    return [Heard(list(segment(engine, "everything", [picture]))) for picture in PICTURES]


@pytest.mark.parametrize(("bits", "least"), [("8bit", 0.95), ("4bit", 0.9)])
def test_rounded_weights_say_the_same_and_move_masks_little(
    answers: list[Heard], bits: str, least: float
) -> None:
    pytest.importorskip("bitsandbytes")
    engine = load_engine(TINY, quantization=bits)
    assert (engine.info.quantization, engine.info.dtype) == (bits, "float32")
    for picture, exact in zip(PICTURES, answers, strict=True):
        heard = Heard(list(segment(engine, "everything", [picture])))
        assert heard.answer.text == exact.answer.text
        found, wanted = heard.logits > 0, exact.logits > 0
        assert (found & wanted).sum() / (found | wanted).sum() >= least


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_only_the_language_models_decoder_layers_are_rounded(bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    loaded = load_engine(TINY, quantization=bits, dtype="bfloat16")
    exact = load_engine(TINY, dtype="bfloat16")
    model, twin = loaded._model.model, exact._model.model
    rounded = {name for name, each in model.named_parameters() if quantization.is_quantized(each)}
    layers = "language.model.model.language_model.layers."
    assert rounded == {
        f"{name}.weight"
        for name, module in twin.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(layers)
    }
    for name, parameter in twin.named_parameters():
        if name not in rounded:
            assert torch.equal(model.get_parameter(name), parameter)
    assert loaded.info.parameters == exact.info.parameters


def test_4_bit_layers_are_nf4_with_double_quantization_and_compute_in_the_models_dtype() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    engine = load_engine(TINY, quantization="4bit", dtype="bfloat16")
    language = engine._model.model.language.model
    layers = [layer for _, layer in quantization.linear_layers(language)]
    assert len(layers) == 7 * language.config.get_text_config().num_hidden_layers
    for layer in layers:
        assert isinstance(layer, bitsandbytes.nn.Linear4bit)
        assert layer.compute_dtype is torch.bfloat16
        assert (layer.weight.quant_type, layer.quant_state.nested) == ("nf4", True)


def test_without_bitsandbytes_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as Python has it for what must not be imported
    with pytest.raises(ModelLoadFailed, match=r"needs bitsandbytes.*-m pip install 'bitsandbytes>=0\.45'$"):
        load_engine(TINY, quantization="4bit")


def test_a_bitsandbytes_that_cannot_be_imported_is_said_to_be_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bitsandbytes.py").write_text("raise OSError('libcudart.so.12 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    with pytest.raises(ModelLoadFailed, match=r"cannot be imported: libcudart\.so\.12 is missing"):
        load_engine(TINY, quantization="8bit")


def test_what_bitsandbytes_would_fetch_with_the_library_kernels_stays_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kernels.py").write_text("")
    (tmp_path / "bitsandbytes.py").write_text(
        "try:\n    import kernels\nexcept ImportError:\n    kernels = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("bitsandbytes", "kernels"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    quantization.import_bitsandbytes()
    stand_in = sys.modules.pop("bitsandbytes")
    assert stand_in.kernels is None
    assert importlib.import_module("kernels").__file__ == str(tmp_path / "kernels.py"), "others have it"
    del sys.modules["kernels"]


def test_an_unknown_quantization_is_refused() -> None:
    with pytest.raises(
        ModelLoadFailed, match=r"quantization '3bit' is not supported\. Use one of: none, 8bit, 4bit"
    ):
        quantization.choose("3bit")
    assert quantization.choose("auto") == "none"
