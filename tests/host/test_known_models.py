"""The table of known checkpoints, and the page that shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sa2va_host.config import ModelSettings, Settings
from sa2va_host.models.checkpoints import is_hub_name
from sa2va_host.models.choice import LARGE
from sa2va_host.models.known_models import (
    HEADINGS,
    QUANTIZED_BYTES,
    TABLE,
    cells,
    computed_memory,
    known_models,
    memory,
)
from sa2va_host.plugins.hookspecs import KnownModel
from sa2va_host.protocol.specification import QUANTIZATIONS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_page_shows_the_table() -> None:
    section = PAGE.split("## Known checkpoints\n")[1].split("\n#")[0]
    rows = [
        tuple(cell.strip() for cell in row.strip("|").split("|"))
        for row in re.findall(r"^\|.*$", section, re.MULTILINE)
    ]
    assert rows[0] == tuple(heading.lower() for heading in HEADINGS)
    assert rows[2:] == [cells(model) for model in TABLE]


def test_every_name_can_be_pulled_and_stands_there_once() -> None:
    names = [model.name for model in TABLE]
    assert all(map(is_hub_name, names))
    assert len(set(names)) == len(names)


def test_less_bits_are_less_memory_and_no_model_is_smaller_than_its_weights() -> None:
    assert tuple(QUANTIZED_BYTES) == QUANTIZATIONS
    for model in TABLE:
        plain, eight, four = (computed_memory(model, each) for each in QUANTIZED_BYTES)
        assert plain > eight > four > 0, model.name
        assert 0 < model.quantizable < model.parameters


@pytest.mark.parametrize("model", [model for model in TABLE if model.memory], ids=lambda model: model.name)
def test_what_is_published_comes_before_what_is_computed_and_is_near_it(model: KnownModel) -> None:
    for quantization, published in model.memory.items():
        assert memory(model, quantization) == published
        # Upstream counts the output layer of the small Qwens once, with the embedding.
        assert computed_memory(model, quantization) == pytest.approx(published, rel=0.4)


@pytest.mark.parametrize("model", [model for model in TABLE if model.download], ids=lambda model: model.name)
def test_downloads_are_float32(model: KnownModel) -> None:
    """InternVL's vision tower (0.3 billion parameters, of the 26B 5.5) lies there in 16 bits, but for the 1B's."""
    tower = {"internvl": 0.304e9}.get(model.family, 0.0)
    tower = {"ByteDance/Sa2VA-1B": 0.0, "ByteDance/Sa2VA-26B": 5.54e9}.get(model.name, tower)
    assert model.download == pytest.approx(4 * model.parameters - 2 * tower, rel=0.01)


def test_plugins_and_settings_add_to_the_table_and_change_nothing_in_it() -> None:
    plugged = KnownModel("Org/New", "bright", download=7)
    settings = Settings(
        models={"Org/Own": ModelSettings(), "Org/New": ModelSettings(), LARGE: ModelSettings()}
    )
    found = known_models(settings, [plugged, KnownModel(LARGE)])
    assert found == [*TABLE, plugged, KnownModel("Org/Own")]


def test_what_is_not_known_is_no_number() -> None:
    assert cells(KnownModel("Org/Own")) == ("Org/Own", *"-------")
