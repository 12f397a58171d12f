"""What a call costs in things that can be counted: regressions are caught here, and not by the clock."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from benchmarks import direct, tracking
from benchmarks.pictures import noise
from sa2va_host.media import read_image
from sa2va_host.protocol import arrays
from sa2va_host.timings import TOKENS
from sa2va_worker.engine import Sa2VAEngine
from sa2va_worker.models.checkpoint import BUNDLED, Checkpoint

PICTURE = (240, 320)


@pytest.fixture(scope="module")
def engine() -> Sa2VAEngine:
    return direct.load("sa2va-tiny", "cpu")


@pytest.mark.parametrize(("objects", "frames"), [(1, 1), (4, 1), (3, 7)])
def test_each_frame_is_encoded_once_whatever_the_number_of_objects(objects, frames):
    sam2 = tracking.build(torch.device("cpu"), Checkpoint(BUNDLED / "sa2va-tiny").config["sam2_config"])
    with torch.inference_mode():
        tracking.track(sam2, objects, frames)
    assert sam2.encoder_calls == frames


def test_the_language_model_runs_once_for_each_token(engine):
    runs = []
    decoder = engine._model.model.language.model.get_decoder()
    hook = decoder.register_forward_hook(lambda *_: runs.append(1))
    answer, _ = direct.segment(engine, [noise(PICTURE)], ["the red circle"])
    hook.remove()
    assert len(runs) == answer.timings[TOKENS]


def test_a_picture_is_looked_at_once_for_all_prompts(engine):
    seen = []
    vision = engine._model.model.language.model.model.visual
    hook = vision.register_forward_hook(lambda *_: seen.append(1))
    direct.segment(engine, [noise(PICTURE)], ["the red circle", "the green square", "everything"])
    hook.remove()
    assert len(seen) == 1


def test_a_picture_is_copied_once_on_its_way():
    """An array of the right form is not copied when it is read, and once into the message."""
    picture = noise((1080, 1920))
    assert np.shares_memory(read_image(picture), picture)
    tracemalloc.start()
    packed = arrays.pack([read_image(picture)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * picture.nbytes
    del packed
