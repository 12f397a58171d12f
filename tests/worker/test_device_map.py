"""A model over several devices: where its layers go, that each finds its input there, and that answers stay the same.

A processor is all that these tests have. It stands for the accelerator, and under its other name, `cpu:0`, for the
memory beside it; the meta device, where tensors have no numbers, stands for another accelerator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sa2va_host.errors import ModelLoadFailed
from sa2va_host.protocol.specification import Specification
from sa2va_worker import device, engine
from sa2va_worker.device import choose, choose_all
from sa2va_worker.device_map import dispatch, infer
from sa2va_worker.models import sa2va
from sa2va_worker.models.checkpoint import BUNDLED
from sa2va_worker.models.families import family
from sa2va_worker.models.sa2va import need_of
from sa2va_worker.placement import PROCESSOR, check_room
from tests.parity.weights import HERE
from tests.worker.conftest import Heard, load_engine, segment
from training.heldout import draw_picture

TINY = BUNDLED / "sa2va-tiny"
BESIDE, META = torch.device("cpu", 0), torch.device("meta")
GPUS = tuple(torch.device("cuda", index) for index in range(3))
MB = 10**6
PICTURE = draw_picture(np.random.default_rng(5), (120, 160)).image


@pytest.fixture(scope="module")
def layers() -> nn.ModuleList:
    """Ten layers of 4 MB in float32, without memory."""
    with torch.device("meta"):
        return nn.ModuleList(nn.Sequential(nn.Linear(1000, 1000, bias=False)) for _ in range(10))


@pytest.mark.parametrize(
    ("room", "dtype", "bits", "counts"),
    [
        ({GPUS[0]: 90, GPUS[1]: 90}, torch.float32, "none", {GPUS[0]: 5, GPUS[1]: 5}),
        (
            {GPUS[0]: 90, GPUS[1]: 90, GPUS[2]: 90},
            torch.float32,
            "none",
            {GPUS[0]: 3, GPUS[1]: 4, GPUS[2]: 3},
        ),
        # Even shares find no room, and these do.
        ({GPUS[0]: 9, GPUS[1]: 90, GPUS[2]: 9}, torch.float32, "none", {GPUS[0]: 1, GPUS[1]: 9}),
        ({GPUS[0]: 21, PROCESSOR: 90}, torch.float32, "none", {GPUS[0]: 4, PROCESSOR: 6}),
        ({GPUS[0]: 21, PROCESSOR: 90}, torch.bfloat16, "none", {GPUS[0]: 10}),
        ({GPUS[0]: 6, GPUS[1]: 6}, torch.bfloat16, "8bit", {GPUS[0]: 5, GPUS[1]: 5}),
        ({GPUS[0]: 3, GPUS[1]: 3}, torch.bfloat16, "4bit", {GPUS[0]: 5, GPUS[1]: 5}),
        ({GPUS[0]: 18, GPUS[1]: 18}, torch.float32, "none", None),
        ({GPUS[0]: 21, PROCESSOR: 20}, torch.float32, "none", None),
    ],
)
def test_layers_go_where_there_is_room(
    layers: nn.ModuleList,
    room: Mapping[torch.device, int],
    dtype: torch.dtype,
    bits: str,
    counts: Mapping[torch.device, int] | None,
) -> None:
    places = infer(layers, {device: size * MB for device, size in room.items()}, dtype, bits)
    assert counts == (places and {device: places.count(device) for device in dict.fromkeys(places)})
    assert places is None or list(places) == sorted(places, key=list(room).index)


@pytest.fixture(scope="module")
def whole() -> Heard:
    """What the bundled model answers on one device."""
    return Heard(list(segment(load_engine(TINY), "everything", [PICTURE])))


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor for the GPU of `offload`, with room for about half of the bundled model's layers."""
    need = need_of(load_engine(TINY)._model.model)
    free = {PROCESSOR: need.bytes(torch.float32) - need.layers * 4 // 3, BESIDE: 10**12}
    monkeypatch.setattr(engine, "choose_all", lambda _: ((PROCESSOR, BESIDE), torch.float32))
    monkeypatch.setattr(sa2va, "check_room", partial(check_room, memory=free.__getitem__))


def test_a_model_with_offloaded_layers_answers_bit_for_bit_the_same(whole: Heard, small_gpu: None) -> None:
    loaded = load_engine(TINY)
    model = loaded._model.model
    assert set(model.places) == {PROCESSOR, BESIDE}
    assert "cpu:0" in loaded.info.details["layers"]
    for _ in range(2):
        heard = Heard(list(segment(loaded, "everything", [PICTURE])))
        assert heard.answer.text == whole.answer.text
        np.testing.assert_array_equal(heard.logits, whole.logits)
        # Between calls their weights have left the device.
        for layer, place in zip(model.language.model.get_decoder().layers, model.places, strict=True):
            wanted = "cpu" if place == PROCESSOR else "meta"
            assert {parameter.device.type for parameter in layer.parameters()} == {wanted}


@pytest.mark.parametrize("name", ["qwen3", "qwen25", "internvl", "internlm2"])
def test_states_go_where_a_layer_is_and_come_back_after_the_last(name: str) -> None:
    """The meta device is the other accelerator: it refuses numbers of elsewhere, and cannot give back any."""
    config = json.loads((HERE / name / "config.json").read_text())
    language = family(config).language(config, "sdpa")
    layers = language.model.get_decoder().layers
    places = [PROCESSOR, *[META] * (len(layers) - 1)]
    for layer, place in zip(layers, places, strict=True):
        layer.to(place)
    dispatch(language.model, places)
    computed: list[torch.device] = []
    for layer in layers:
        layer.register_forward_hook(lambda _layer, _states, states: computed.append(states.device))
    ids = torch.arange(5).unsqueeze(0)
    with torch.inference_mode(), pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        language.hidden(ids, language.positions(ids, None)[0])
    assert computed == places


@pytest.mark.parametrize("word", ["balanced", "offload"])
def test_without_a_gpu_several_devices_are_refused(word: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelLoadFailed, match=rf"device '{word}' needs an NVIDIA GPU, .* finds none on this"):
        load_engine(TINY, device=word)


def test_one_device_is_the_first_of_one() -> None:
    spec = Specification(checkpoint="it", device="cpu")
    assert choose_all(spec) == ((PROCESSOR,), torch.float32)
    assert choose(spec) == (PROCESSOR, torch.float32)


def test_a_checkpoint_that_runs_its_own_code_has_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_devices", lambda _: (PROCESSOR, BESIDE))
    with pytest.raises(ModelLoadFailed, match="device 'offload' is for models that load natively"):
        choose(Specification(checkpoint="it", device="offload"))


def test_rounded_weights_are_not_offloaded() -> None:
    with pytest.raises(ModelLoadFailed, match="quantization 4bit does not go with device 'offload'"):
        load_engine(TINY, device="offload", quantization="4bit")
