"""Training: a packed batch means what its questions mean alone, and a broken-off run goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sa2va_worker.models.checkpoint import Checkpoint
from sa2va_worker.models.pictures import Patches
from sa2va_worker.models.qwen_front import QwenFront
from sa2va_worker.models.sa2va import build, load
from training.batch import BatchMaker
from training.draw import draw_clip
from training.tiny import write_folder, write_weights
from training.train import fresh_model
from training.train import main as train
from training.wording import ask_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    write_folder(out, seed=1)
    return out


def test_packed_questions_are_answered_as_if_each_were_alone(folder: Path) -> None:
    model = fresh_model(folder, seed=1).eval()
    rng = np.random.default_rng(3)
    batch = BatchMaker(folder).clips(rng, scenes=2, questions=3, frames=4, key_frames=2)
    again = np.random.default_rng(3)
    size = batch_size(again)
    clips = [draw_clip(again, size, 4) for _ in range(2)]
    assert all(clip.things for clip in clips), "the seed must give two scenes at once"
    asked = [ask_clip(again, clip, 3, 2) for clip in clips]
    front = QwenFront(Checkpoint(folder))
    with torch.inference_mode():
        packed, _ = model.language.hidden(
            batch.ids, batch.positions, Patches(batch.patches, batch.grids), attention_mask=batch.attention
        )
        alone = []
        for clip, questions in zip(clips, asked, strict=True):
            for question in questions:
                utterance, patches = front.prepare(question.prompt, list(clip.frames[:2]))
                ids = torch.tensor([utterance.prompt_ids + front.conversation.encode_reply(question.answer)])
                assert patches is not None
                positions, _ = model.language.positions(ids, patches)
                states, _ = model.language.hidden(ids, positions, patches)
                alone.append(states[ids == front.conversation.segment_token])
    together = packed[batch.object_rows, batch.object_places]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def batch_size(rng: np.random.Generator) -> tuple[int, int]:
    from training.batch import CANVASES

    return CANVASES[rng.integers(len(CANVASES))]


def test_labels_are_the_answers(folder: Path) -> None:
    batch = BatchMaker(folder).pictures(np.random.default_rng(5), scenes=2, questions=4)
    front = QwenFront(Checkpoint(folder))
    said = front.conversation.decode(batch.labels[batch.labels >= 0].tolist())
    assert said.count("<|im_end|>") == 8
    assert said.count("[SEG]") == len(batch.object_rows) == len(batch.masks)
    assert batch.masks.amax(dim=(1, 2, 3)).min() > 0.5, "every object of a still is somewhere in it"


def test_written_weights_load_into_the_worker_unchanged(folder: Path, tmp_path: Path) -> None:
    model = fresh_model(folder, seed=2)
    write_folder(tmp_path, seed=1)
    write_weights(tmp_path, model.state_dict())
    checkpoint = Checkpoint(tmp_path)
    loaded = build(checkpoint, torch.device("cpu"), torch.float32)
    for _ in load(loaded, checkpoint):
        pass
    for (name, ours), theirs in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(ours.half().float(), theirs), name


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    common = ["--scenes", "2", "--device", "cpu", "--workers", "0", "--save", "2", "--steps", "4"]
    train(["--out", str(whole), *common])
    train(["--out", str(broken), *common, "--stop-after", "2"])
    train(["--out", str(broken), *common, "--resume"])
    first, second = (load_file(path / "model.safetensors") for path in (whole, broken))
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert torch.equal(values, second[name]), name
