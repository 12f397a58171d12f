"""The bundled model, through the front door: a real worker, a real model, real pictures."""

from __future__ import annotations

import json

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from sa2va_host import Sa2VA
from sa2va_worker.models.checkpoint import BUNDLED, Checkpoint, find_folder
from training import heldout, scores
from training.evaluate import Counts, Generator, OwnGenerator, evaluate
from training.heldout import draw_clip, draw_picture

NAME = "sa2va-tiny"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Sa2VA:
    return Sa2VA(NAME, device="cpu", keep_alive=60)


def test_it_is_small_and_holds_no_code() -> None:
    files = [file for file in (BUNDLED / NAME).iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 15e6
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors", ".txt"}
    assert find_folder(NAME) == BUNDLED / NAME
    assert Checkpoint(BUNDLED / NAME).config["model_type"] == "sa2va_chat"


def test_a_sentence_and_a_picture_in_masks_out_from_one_warm_worker(model: Sa2VA) -> None:
    scene = draw_picture(np.random.default_rng(3), (200, 300))
    first = model.segment(scene.image, "everything")
    assert first.masks().shape == (len(first), 200, 300)
    assert first.masks().dtype == bool
    chances = first.probabilities()
    assert chances.dtype == np.float32
    assert ((chances >= 0) & (chances <= 1)).all()
    np.testing.assert_array_equal(first.masks(0.3), chances > 0.3)
    pid = model.status().pid
    again = model.segment(scene.image, "everything")
    assert again.text == first.text
    np.testing.assert_array_equal(again.logits, first.logits)
    assert model.status().pid == pid
    info = model.load()
    assert (info.name, info.family, info.image_size) == (NAME, "qwen3_vl", 192)


def test_a_clip_is_followed_through_every_frame(model: Sa2VA) -> None:
    clip = draw_clip(np.random.default_rng(4), (120, 160), 9)
    track = model.segment_video(iter(clip.frames), "everything", key_frames="first:3")
    assert track.masks().shape == (len(track), 9, 120, 160)
    assert len(track) >= 1


def test_a_question_gets_words(model: Sa2VA) -> None:
    scene = draw_picture(np.random.default_rng(5), (200, 200))
    answer = model.chat("how many circles are there?", scene.image)
    assert answer.text
    assert "[SEG]" not in answer.text


def test_unloaded_it_is_gone_and_the_next_call_starts_another(model: Sa2VA) -> None:
    model.load()
    pid = model.status().pid
    model.unload()
    assert not model.status()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert model.chat("hello").text
    assert model.status().pid != pid
    model.unload()


def test_its_configuration_says_what_upstreams_leave_out() -> None:
    config = json.loads((BUNDLED / NAME / "config.json").read_text())
    assert {"sam2_config", "min_pixels", "max_pixels"} <= set(config)
    assert "auto_map" not in config


@pytest.mark.timeout(600)  # some hundred answers, on a machine that may have other work
@pytest.mark.parametrize("generator", [OwnGenerator(), heldout], ids=["own", "second"])
def test_it_finds_what_is_meant_on_scenes_it_has_not_seen(model: Sa2VA, generator: Generator) -> None:
    """Far below its page's figures, which are means of many more scenes, and far above chance."""

    def segment(image: NDArray[np.uint8], prompt: str) -> scores.Answer:
        result = model.segment(image, prompt)
        return scores.Answer(result.text, result.masks()[:, None])

    def segment_video(frames: NDArray[np.uint8], prompt: str) -> scores.Answer:
        result = model.segment_video(frames, prompt)
        return scores.Answer(result.text, result.masks())

    found = evaluate(generator, segment, segment_video, Counts(pictures=16, prompts=4, clips=2), seed=21)
    means = {name: float(np.mean(values)) for name, values in found.values.items() if values}
    assert means["right_object"] >= 0.75
    assert means["single_iou"] >= 0.65
    assert means["refused"] >= 0.8
    assert means["question"] >= 0.6
    assert means["video"] >= 0.3
